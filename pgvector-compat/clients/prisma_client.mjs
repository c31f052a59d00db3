// Prisma on encrypted columns.  Arguments: folder of the server's socket, plain database, encrypted database.
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { PrismaPg } from '@prisma/adapter-pg'
import pg from 'pg'
import { compare } from './twins.mjs'

const [host, plain, encrypted] = process.argv.slice(2)

const schema = new URL('schema.prisma', import.meta.url).pathname
writeFileSync(schema, `
generator client {
  provider        = "prisma-client-js"
  output          = "./generated"
  previewFeatures = ["relationJoins"]
}
datasource db {
  provider = "postgresql"
}
model Author {
  id   Int     @id
  name String?
  docs Doc[]
  @@map("authors")
}
model Doc {
  id       Int     @id
  authorId Int?    @map("author")
  author   Author? @relation(fields: [authorId], references: [id])
  body     String?
  metadata Json?
  @@map("documents")
}
`)
// It would download an engine for migrations, which it does not use here.
execFileSync('node', ['node_modules/prisma/build/index.js', 'generate', '--schema', schema], {
  cwd: new URL('.', import.meta.url).pathname,
  env: { ...process.env, PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true', CHECKPOINT_DISABLE: '1', PRISMA_HIDE_UPDATE_MESSAGE: '1' }
})
const { PrismaClient, Prisma } = await import('./generated/index.js')

async function opened (database, revealed) {
  const client = new pg.Client({ host, database, user: 'postgres' })
  await client.connect()
  const types = revealed ? ['encrypted_text(clients)', 'encrypted_jsonb(clients)'] : ['text', 'jsonb']
  await client.query(`CREATE TABLE authors (id int PRIMARY KEY, name ${types[0]})`)
  await client.query(`CREATE TABLE documents (id int PRIMARY KEY, author int REFERENCES authors, body ${types[0]}, metadata ${types[1]})`)
  await client.end()
  const connection = { host, database, user: 'postgres' }
  if (revealed) {
    // pgseal: begin
    connection.options = '-c pgseal.reveal=on'
    // pgseal: end
  }
  const db = new PrismaClient({ adapter: new PrismaPg(connection) })
  await db.author.createMany({ data: [{ id: 1, name: 'Ann' }, { id: 2, name: 'Bob' }] })
  await db.doc.createMany({
    data: [
      { id: 1, authorId: 1, body: 'Chest pain.', metadata: { p: 'John Smith', age: 52, n: { c: 'Oslo' }, tags: ['a', 'b'] } },
      { id: 2, authorId: 1, body: 'Asthma', metadata: { p: 'Mary Jones', age: 34, tags: [] } },
      { id: 3, authorId: 2, body: null },
      { id: 4, authorId: 2, body: 'asthma', metadata: { p: 'John Smith', age: 7 } }
    ]
  })
  return db
}

class Undone extends Error {}

/** Undone afterwards. */
const changed = (question) => async (db) => {
  let seen
  await db.$transaction(async (tx) => {
    seen = await question(tx)
    throw new Undone()
  }).catch((error) => { if (!(error instanceof Undone)) throw error })
  return seen
}
const where = (condition) => (db) => db.doc.findMany({ where: condition, orderBy: { id: 'asc' }, select: { id: true } })
const metadata = (condition) => where({ metadata: condition })

await compare('prisma', {
  all: (db) => db.doc.findMany({ orderBy: { id: 'asc' } }),
  one: (db) => db.doc.findUnique({ where: { id: 1 } }),
  first: (db) => db.doc.findFirst({ where: { body: 'Asthma' } }),
  equals: where({ body: 'Asthma' }),
  not: where({ body: { not: 'Asthma' } }),
  insensitive: where({ body: { equals: 'ASTHMA', mode: 'insensitive' } }),
  in: where({ body: { in: ['Asthma', 'x'] } }),
  not_in: where({ body: { notIn: ['Asthma', 'x'] } }),
  contains: where({ body: { contains: 'pain' } }),
  contains_insensitive: where({ body: { contains: 'PAIN', mode: 'insensitive' } }),
  starts_with: where({ body: { startsWith: 'Ch' } }),
  ends_with: where({ body: { endsWith: 'ma' } }),
  greater: where({ body: { gt: 'B', lte: 'b' } }),
  null: where({ body: null }),
  or: where({ OR: [{ body: 'Asthma' }, { metadata: { path: ['p'], equals: 'John Smith' } }] }),
  and_not: where({ AND: [{ metadata: { path: ['p'], equals: 'John Smith' } }, { NOT: { body: 'asthma' } }] }),
  json_path: metadata({ path: ['p'], equals: 'John Smith' }),
  json_nested: metadata({ path: ['n', 'c'], equals: 'Oslo' }),
  json_path_not: metadata({ path: ['p'], not: 'John Smith' }),
  json_number: metadata({ path: ['age'], gt: 10, lte: 52 }),
  json_contains: metadata({ path: ['p'], string_contains: 'Jo' }),
  json_contains_insensitive: metadata({ path: ['p'], string_contains: 'JO', mode: 'insensitive' }),
  json_starts_with: metadata({ path: ['p'], string_starts_with: 'Ma' }),
  json_ends_with: metadata({ path: ['p'], string_ends_with: 'th' }),
  json_array_contains: metadata({ path: ['tags'], array_contains: ['a'] }),
  json_array_starts: metadata({ path: ['tags'], array_starts_with: 'a' }),
  json_array_ends: metadata({ path: ['tags'], array_ends_with: 'b' }),
  json_equals: metadata({ equals: { p: 'John Smith', age: 7 } }),
  json_differs: metadata({ not: { p: 'John Smith', age: 7 } }),
  json_null: metadata({ equals: Prisma.AnyNull }),
  json_db_null: metadata({ not: Prisma.DbNull }),
  order_by: (db) => db.doc.findMany({ orderBy: [{ body: { sort: 'desc', nulls: 'last' } }, { id: 'asc' }] }),
  order_by_related: (db) => db.doc.findMany({ orderBy: [{ author: { name: 'desc' } }, { id: 'asc' }], select: { id: true } }),
  distinct: (db) => db.doc.findMany({ distinct: ['body'], orderBy: { id: 'asc' } }),
  page: (db) => db.doc.findMany({ orderBy: [{ body: 'asc' }, { id: 'asc' }], cursor: { id: 2 }, skip: 1, take: 2 }),
  count: (db) => db.doc.count({ where: { metadata: { path: ['p'], equals: 'John Smith' } } }),
  count_fields: (db) => db.doc.count({ select: { _all: true, body: true, metadata: true } }),
  aggregate: (db) => db.doc.aggregate({ _count: { body: true }, _min: { body: true }, _max: { body: true } }),
  group_by: (db) => db.doc.groupBy({ by: ['body'], _count: { _all: true }, orderBy: { body: 'asc' } }),
  group_having: (db) => db.doc.groupBy({ by: ['authorId'], _max: { body: true }, having: { body: { _max: { gt: 'a' } } }, orderBy: { authorId: 'asc' } }),
  include: (db) => db.author.findMany({ include: { docs: { orderBy: { id: 'asc' } } }, orderBy: { id: 'asc' } }),
  include_by_join: (db) => db.author.findMany({ relationLoadStrategy: 'join', include: { docs: { orderBy: { body: 'asc' } } }, orderBy: { id: 'asc' } }),
  include_one_by_join: (db) => db.doc.findMany({ relationLoadStrategy: 'join', include: { author: true }, orderBy: { id: 'asc' } }),
  include_where: (db) => db.author.findMany({ relationLoadStrategy: 'join', include: { docs: { where: { body: 'Asthma' }, select: { metadata: true } } }, orderBy: { id: 'asc' } }),
  some: (db) => db.author.findMany({ where: { docs: { some: { body: 'Asthma' } } } }),
  none: (db) => db.author.findMany({ where: { docs: { none: { metadata: { path: ['p'], equals: 'Mary Jones' } } } } }),
  of_author: where({ author: { name: 'Ann' } }),
  create: changed((db) => db.doc.create({ data: { id: 9, body: 'new', metadata: { a: 1 } } })),
  create_nested: changed((db) => db.author.create({ data: { id: 9, name: 'Cy', docs: { create: [{ id: 9, body: 'new', metadata: [1, null] }] } }, include: { docs: true } })),
  create_null: changed((db) => db.doc.create({ data: { id: 9, body: null, metadata: Prisma.JsonNull } })),
  create_many: changed((db) => db.doc.createManyAndReturn({ data: [{ id: 9, body: 'new', metadata: {} }, { id: 10, metadata: 'text' }] })),
  update: changed((db) => db.doc.update({ where: { id: 1 }, data: { body: 'x', metadata: { a: 1 } } })),
  update_many: changed((db) => db.doc.updateMany({ where: { body: { contains: 'sthma' } }, data: { body: 'x' } })),
  update_many_returned: changed((db) => db.doc.updateManyAndReturn({ where: { metadata: { path: ['p'], equals: 'Mary Jones' } }, data: { metadata: { a: 1 } } })),
  upsert: changed((db) => db.doc.upsert({ where: { id: 1 }, create: { id: 1, body: 'new' }, update: { body: 'again', metadata: {} } })),
  upsert_new: changed((db) => db.doc.upsert({ where: { id: 9 }, create: { id: 9, body: 'new', metadata: {} }, update: { body: 'again' } })),
  delete: changed((db) => db.doc.delete({ where: { id: 1 } })),
  delete_many: changed((db) => db.doc.deleteMany({ where: { metadata: { path: ['p'], equals: 'John Smith' } } })),
  raw: (db) => db.$queryRaw`SELECT id, body, metadata FROM documents WHERE metadata ->> 'p' = ${'John Smith'} ORDER BY id`,
  raw_contains: (db) => db.$queryRaw`SELECT id, metadata -> 'n' AS n FROM documents WHERE metadata @> ${{ p: 'John Smith' }} ORDER BY id`,
  raw_coalesce: (db) => db.$queryRaw`SELECT id, COALESCE(body, ${'-'}) AS body FROM documents ORDER BY id`,
  raw_execute: changed(async (db) => [await db.$executeRaw`UPDATE documents SET body = ${'x'}, metadata['a'] = ${1}::jsonb WHERE body = ${'Asthma'}`, await db.doc.findUnique({ where: { id: 2 } })])
}, await opened(plain, false), await opened(encrypted, true))
