import type { ConvertCustomConfig, PgCustomColumnBuilder } from 'drizzle-orm/pg-core'

type Builder<Name extends string, Data> = PgCustomColumnBuilder<ConvertCustomConfig<Name, { data: Data, driverData: unknown }>>

interface Column<Data, Config> {
  (config?: Config): Builder<'', Data>
  <Name extends string>(name: Name, config?: Config): Builder<Name, Data>
}

/** A JSON document; objects in and out. */
export declare const encryptedJsonb: Column<unknown, { keyring?: string }>
/** A text. */
export declare const encryptedText: Column<string, { keyring?: string }>
/** An embedding; arrays of numbers in and out. Without a keyring, give no dimensions either. */
export declare const encryptedVector: Column<number[], { keyring?: string, dimensions?: number }>
