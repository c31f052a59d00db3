/** Lets entities of a DataSource have columns of the encrypted types; before it is initialised. */
export declare function register<T extends { driver: unknown }> (dataSource: T): T
