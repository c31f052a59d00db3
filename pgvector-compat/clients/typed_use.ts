// How typed programs use the package; checked by tsc, not run.
import { eq } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable } from 'drizzle-orm/pg-core'
import knex from 'knex'
import pg from 'pg'
import { afterCreate, REVEAL, reveal, verify } from 'pgseal'
import { encryptedJsonb, encryptedText, encryptedVector } from 'pgseal/drizzle'
import { register } from 'pgseal/typeorm'
import { DataSource } from 'typeorm'

const client: pg.Client = await reveal(new pg.Client())
const pool: pg.Pool = await reveal(new pg.Pool({ verify }))
const statement: string = REVEAL

const docs = pgTable('docs', {
  id: integer().primaryKey(),
  body: encryptedText({ keyring: 'clients' }),
  loose: encryptedText(),
  named: encryptedText('body_text', { keyring: 'clients' }).notNull(),
  meta: encryptedJsonb({ keyring: 'clients' }).$type<{ p: string }>(),
  embedding: encryptedVector({ keyring: 'clients', dimensions: 3 })
})
const db = drizzle(pool)
await db.insert(docs).values({ id: 1, body: 'x', named: 'y', meta: { p: 'z' }, embedding: [1, 2, 3] })
const rows = await db.select().from(docs).where(eq(docs.body, 'x'))
const seen: { id: number, body: string | null, named: string, meta: { p: string } | null, embedding: number[] | null } = rows[0]
// @ts-expect-error: a keyring is a name
encryptedText({ keyring: 7 })
// @ts-expect-error: not null, and missing
await db.insert(docs).values({ id: 1 })

const table = knex({ client: 'pg', pool: { afterCreate } })
const source: DataSource = register(new DataSource({ type: 'postgres', extra: { verify } }))
export { client, source, seen, statement, table }
