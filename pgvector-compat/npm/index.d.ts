/** The statement that makes encrypted columns arrive as jsonb, text and vector. */
export declare const REVEAL: string

/** For a pool of node-postgres: `new pg.Pool({ verify })`, which waits for it before it hands out a new connection. */
export declare function verify (client: any, done: (error?: Error) => void): void

/** Reveals in a connected client of node-postgres, or in every connection that a Pool is going to make. */
export declare function reveal<T extends { query (text: string): unknown }> (target: T): Promise<T>

/** For Knex: `pool: { afterCreate }`. */
export declare function afterCreate (connection: any, done: (error: Error | null, connection: any) => void): void
