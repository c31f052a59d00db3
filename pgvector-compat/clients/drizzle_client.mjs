// Drizzle on encrypted columns.  Arguments: folder of the server's socket, plain database, encrypted database.
import { and, cosineDistance, count, desc, eq, ilike, inArray, isNull, max, ne, notInArray, or, relations, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, jsonb, pgTable, text, vector } from 'drizzle-orm/pg-core'
import pg from 'pg'
import { compare } from './twins.mjs'

const [host, plain, encrypted] = process.argv.slice(2)

const authors = pgTable('authors', { id: integer().primaryKey(), name: text() })
const docs = pgTable('documents', {
  id: integer().primaryKey(),
  author: integer(),
  embedding: vector({ dimensions: 3 }),
  body: text(),
  metadata: jsonb()
})
const authorsRelations = relations(authors, ({ many }) => ({ docs: many(docs) }))
const docsRelations = relations(docs, ({ one }) => ({ author_: one(authors, { fields: [docs.author], references: [authors.id] }) }))

async function opened (database, revealed) {
  const client = new pg.Client({ host, database, user: 'postgres' })
  await client.connect()
  const types = revealed ? ['encrypted_text(clients)', 'encrypted_jsonb(clients)', 'encrypted_vector(clients, 3)'] : ['text', 'jsonb', 'vector(3)']
  await client.query(`CREATE TABLE authors (id int PRIMARY KEY, name ${types[0]})`)
  await client.query(`CREATE TABLE documents (id int PRIMARY KEY, author int, embedding ${types[2]}, body ${types[0]}, metadata ${types[1]})`)
  if (revealed) {
    // pgseal: begin
    await client.query('SET pgseal.reveal = on')
    // pgseal: end
  }
  const db = drizzle(client, { schema: { authors, docs, authorsRelations, docsRelations } })
  await db.insert(authors).values([{ id: 1, name: 'Ann' }, { id: 2, name: 'Bob' }])
  await db.insert(docs).values([
    { id: 1, author: 1, embedding: [1, 2, 3], body: 'Chest pain.', metadata: { p: 'John Smith', age: 52, n: { c: 'Oslo' } } },
    { id: 2, author: 1, embedding: [3, 1, 2], body: 'Asthma', metadata: { p: 'Mary Jones', age: 34 } },
    { id: 3, author: 2, embedding: [2, 2, 1], body: null, metadata: null }
  ])
  return db
}

/** Undone afterwards. */
const changed = (question) => async (db) => {
  let seen
  await db.transaction(async (tx) => {
    seen = await question(tx)
    tx.rollback()
  }).catch((error) => { if (error.message !== 'Rollback') throw error })
  return seen
}
const ids = (condition) => (db) => db.select({ id: docs.id }).from(docs).where(condition).orderBy(docs.id)
const patient = sql`${docs.metadata} ->> 'p'`

await compare('drizzle', {
  all: (db) => db.select().from(docs).orderBy(docs.id),
  join: (db) => db.select().from(docs).innerJoin(authors, eq(docs.author, authors.id)).orderBy(docs.id),
  eq: ids(eq(docs.body, 'Asthma')),
  ne: ids(ne(docs.body, 'Asthma')),
  in_array: ids(inArray(docs.body, ['Asthma', 'x'])),
  not_in_array: ids(notInArray(docs.body, ['Asthma', 'x'])),
  ilike: ids(ilike(docs.body, '%PAIN%')),
  is_null: ids(isNull(docs.metadata)),
  eq_json: ids(eq(docs.metadata, { p: 'Mary Jones', age: 34 })),
  contains: ids(sql`${docs.metadata} @> ${JSON.stringify({ p: 'John Smith' })}`),
  text_of_key: ids(sql`${patient} = ${'John Smith'}`),
  key_in_array: ids(inArray(patient, ['John Smith', 'x'])),
  and_or: ids(and(eq(patient, 'John Smith'), or(eq(docs.body, 'Chest pain.'), isNull(docs.body)))),
  order_by: (db) => db.select({ id: docs.id }).from(docs).orderBy(desc(docs.body)),
  order_by_key: (db) => db.select({ id: docs.id }).from(docs).orderBy(patient),
  group_by: (db) => db.select({ patient, count: count() }).from(docs).groupBy(patient).orderBy(patient),
  distinct: (db) => db.selectDistinct({ body: docs.body }).from(docs).orderBy(docs.body),
  distinct_on: (db) => db.selectDistinctOn([docs.body], { id: docs.id, body: docs.body }).from(docs).orderBy(docs.body),
  max: (db) => db.select({ max: max(docs.body) }).from(docs),
  nearest: (db) => db.select({ id: docs.id }).from(docs).orderBy(cosineDistance(docs.embedding, [1, 2, 2])).limit(2),
  count: (db) => db.$count(docs, eq(patient, 'John Smith')),
  find_many: (db) => db.query.docs.findMany({ where: eq(docs.body, 'Asthma') }),
  relational_one: (db) => db.query.docs.findMany({ with: { author_: true }, orderBy: docs.id }),
  relational_many: (db) => db.query.authors.findMany({ with: { docs: true }, orderBy: authors.id }),
  relational_columns: (db) => db.query.authors.findFirst({ with: { docs: { columns: { body: true, metadata: true }, where: eq(docs.body, 'Asthma') } } }),
  subquery: ids(inArray(docs.id, sql`(SELECT id FROM documents WHERE body = 'Asthma')`)),
  insert: changed((db) => db.insert(docs).values({ id: 9, body: 'new', metadata: { a: 1 }, embedding: [1, 1, 1] }).returning()),
  upsert: changed((db) => db.insert(docs).values({ id: 1, body: 'again', metadata: {} }).onConflictDoUpdate({ target: docs.id, set: { body: sql`excluded.body`, metadata: sql`${docs.metadata} || excluded.metadata` } }).returning()),
  update: changed((db) => db.update(docs).set({ body: 'x', metadata: { a: 1 } }).where(eq(patient, 'John Smith')).returning()),
  update_key: changed((db) => db.update(docs).set({ metadata: sql`jsonb_set(${docs.metadata}, '{age}', '1')` }).where(eq(docs.id, 1)).returning()),
  delete: changed((db) => db.delete(docs).where(eq(patient, 'John Smith')).returning()),
  prepared: (db) => db.select().from(docs).where(eq(docs.body, sql.placeholder('body'))).prepare('by_body').execute({ body: 'Asthma' })
}, await opened(plain, false), await opened(encrypted, true))
