// The package in ../npm with the clients it is for.  Arguments: folder of the server's socket, encrypted database.
import assert from 'node:assert'
import { eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable } from 'drizzle-orm/pg-core'
import knex from 'knex'
import pg from 'pg'
import { afterCreate, reveal, verify } from 'pgseal'
import { encryptedJsonb, encryptedText, encryptedVector } from 'pgseal/drizzle'
import { register } from 'pgseal/typeorm'
import typeorm from 'typeorm'

const [host, database] = process.argv.slice(2)
const server = { host, port: Number(process.env.PGPORT ?? 5432), database, user: 'postgres' }
const note = { p: 'John Smith', age: 52 }

// node-postgres: a client, and every connection of a pool.
const client = new pg.Client(server)
await client.connect()
await reveal(client)
const pool = await reveal(new pg.Pool({ ...server, max: 2 }))

// Drizzle: columns of its table, values in and out.
const docs = pgTable('package', {
  id: integer().primaryKey(),
  body: encryptedText({ keyring: 'clients' }),
  meta: encryptedJsonb({ keyring: 'clients' }),
  embedding: encryptedVector({ keyring: 'clients', dimensions: 3 })
})
const types = ['body', 'meta', 'embedding'].map((name) => docs[name].getSQLType())
assert.deepStrictEqual(types, ['encrypted_text(clients)', 'encrypted_jsonb(clients)', 'encrypted_vector(clients, 3)'])
await client.query(`CREATE TABLE package (id int PRIMARY KEY, body ${types[0]}, meta ${types[1]}, embedding ${types[2]})`)
const db = drizzle(pool)
await db.insert(docs).values({ id: 1, body: 'Chest pain.', meta: note, embedding: [1, 2, 3] })
const row = { id: 1, body: 'Chest pain.', meta: note, embedding: [1, 2, 3] }
for (const where of [eq(docs.body, 'Chest pain.'), sql`${docs.meta} @> ${JSON.stringify({ age: 52 })}`, sql`${docs.meta} ->> 'p' = 'John Smith'`]) {
  assert.deepStrictEqual(await db.select().from(docs).where(where), [row])
}
assert.deepStrictEqual((await client.query('SELECT meta FROM package')).rows, [{ meta: note }])
const both = await Promise.all([pool.query('SELECT meta, pg_sleep(0.1)::text FROM package'), pool.query('SELECT meta FROM package')])
assert.deepStrictEqual(both.map(({ rows }) => rows[0].meta), [note, note])
await client.end()
await pool.end()

// Knex: every connection of its pool.
const table = knex({ client: 'pg', connection: server, pool: { min: 0, max: 2, afterCreate } })
assert.deepStrictEqual(await table('package').select('meta').where('body', 'Chest pain.'), [{ meta: note }])
await table.destroy()

// TypeORM: entities, and a synchronisation that has nothing to do.
const columns = { id: { type: 'int', primary: true }, body: { type: 'encrypted_text' }, meta: { type: 'encrypted_jsonb' } }
const entity = new typeorm.EntitySchema({ name: 'Page', tableName: 'pages', columns })
const source = register(new typeorm.DataSource({ type: 'postgres', ...server, username: 'postgres', entities: [entity], extra: { verify } }))
await source.initialize()
await source.query('CREATE TABLE pages (id int PRIMARY KEY, body encrypted_text(clients) NOT NULL, meta encrypted_jsonb(clients) NOT NULL)')
const proposed = (await source.driver.createSchemaBuilder().log()).upQueries.filter(({ query }) => query.includes('"pages"'))
assert.deepStrictEqual(proposed, [])
await source.getRepository(entity).save({ id: 1, body: 'Chest pain.', meta: note })
assert.deepStrictEqual((await source.getRepository(entity).findOneBy({ body: 'Chest pain.' })).meta, note)
await source.destroy()
console.log('node-postgres, Drizzle, Knex and TypeORM with the package')
