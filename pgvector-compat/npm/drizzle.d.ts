import type { customType } from 'drizzle-orm/pg-core'

type Column<Data, Config> = ReturnType<typeof customType<{ data: Data, config: Config, configRequired: false }>>

/** A JSON document; objects in and out. */
export declare const encryptedJsonb: Column<unknown, { keyring?: string }>
/** A text. */
export declare const encryptedText: Column<string, { keyring?: string }>
/** An embedding; arrays of numbers in and out. Without a keyring, give no dimensions either. */
export declare const encryptedVector: Column<number[], { keyring?: string, dimensions?: number }>
