/** The statement that makes encrypted columns arrive as jsonb, text and vector. */
export const REVEAL = 'SET pgseal.reveal = on'

/** For a pool of node-postgres: `new pg.Pool({ verify })`, which waits for it before it hands out a new connection. */
export function verify (client, done) {
  client.query(REVEAL, (error) => done(error))
}

/** Reveals in a connected client of node-postgres, or in every connection that a Pool is going to make. */
export async function reveal (target) {
  // Only pools have this count.
  if (typeof target.totalCount === 'number') target.options.verify = verify
  else await target.query(REVEAL)
  return target
}

/** For Knex: `pool: { afterCreate }`. */
export function afterCreate (connection, done) {
  connection.query(REVEAL, (error) => done(error, connection))
}
