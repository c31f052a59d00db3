// Knex on encrypted columns.  Arguments: folder of the server's socket, plain database, encrypted database.
import knex from 'knex'
import { compare } from './twins.mjs'

const [host, plain, encrypted] = process.argv.slice(2)

async function opened (database, revealed) {
  const connection = { host, database, user: 'postgres' }
  // pgseal: begin
  const afterCreate = (client, done) => client.query(revealed ? 'SET pgseal.reveal = on' : 'SELECT', (error) => done(error, client))
  // pgseal: end
  const db = knex({ client: 'pg', connection, pool: { min: 1, max: 1, afterCreate } })
  if (!revealed) {
    await db.raw('CREATE TABLE docs (id int PRIMARY KEY, embedding vector(3), body text, metadata jsonb)')
  }
  await db('docs').insert([
    { id: 1, body: 'Chest pain.', metadata: { p: 'John Smith', age: 52, n: { c: 'Oslo' }, tags: ['a'] } },
    { id: 2, body: 'Asthma', metadata: { p: 'Mary Jones', age: 34 } },
    { id: 3, body: null, metadata: null }
  ])
  return db
}

/** Undone afterwards. */
const changed = (question) => async (db) => {
  let seen
  await db.transaction(async (transaction) => {
    seen = await question(transaction('docs'), transaction)
    throw new Error('undo')
  }).catch((error) => { if (error.message !== 'undo') throw error })
  return seen
}
const ids = (filter) => (db) => filter(db('docs').select('id').orderBy('id'), db)

await compare('knex', {
  all: (db) => db('docs').select('id', 'body', 'metadata').orderBy('id'),
  where: ids((docs) => docs.where({ body: 'Asthma' })),
  where_not: ids((docs) => docs.whereNot({ body: 'Asthma' })),
  where_in: ids((docs) => docs.whereIn('body', ['Asthma', 'x'])),
  where_null: ids((docs) => docs.whereNull('metadata')),
  where_ilike: ids((docs) => docs.whereILike('body', '%PAIN%')),
  where_between: ids((docs) => docs.whereBetween('body', ['A', 'B'])),
  where_json_object: ids((docs) => docs.whereJsonObject('metadata', { p: 'Mary Jones', age: 34 })),
  where_not_json_object: ids((docs) => docs.whereNotJsonObject('metadata', { p: 'Mary Jones', age: 34 })),
  superset: ids((docs) => docs.whereJsonSupersetOf('metadata', { p: 'John Smith' })),
  not_superset: ids((docs) => docs.whereJsonNotSupersetOf('metadata', { p: 'John Smith' })),
  subset: ids((docs) => docs.whereJsonSubsetOf('metadata', { p: 'Mary Jones', age: 34, x: 1 })),
  path: ids((docs) => docs.whereJsonPath('metadata', '$.p', '=', 'John Smith')),
  path_number: ids((docs) => docs.whereJsonPath('metadata', '$.age', '>', 40)),
  path_nested: ids((docs) => docs.whereJsonPath('metadata', '$.n.c', '=', 'Oslo')),
  extract: (db) => db('docs').jsonExtract('metadata', '$.n.c', 'city').orderBy('id').select('id'),
  extract_many: (db) => db('docs').jsonExtract([['metadata', '$.p', 'p'], ['metadata', '$.age', 'age']]).orderBy('id').select('id'),
  raw_key: ids((docs, db) => docs.whereRaw("metadata ->> 'p' = ?", ['John Smith'])),
  set: (db) => db('docs').jsonSet('metadata', '$.age', '1', 'changed').orderBy('id').select('id'),
  insert_json: (db) => db('docs').jsonInsert('metadata', '$.tags[0]', '"z"', 'changed').orderBy('id').select('id'),
  remove: (db) => db('docs').jsonRemove('metadata', '$.age', 'changed').orderBy('id').select('id'),
  order_by: (db) => db('docs').select('id').orderBy('body'),
  distinct: (db) => db('docs').distinct('body').orderBy('body'),
  distinct_on: (db) => db('docs').distinctOn('body').select('id', 'body').orderBy('body'),
  group_by: (db) => db('docs').select('body').count().groupBy('body').orderBy('body'),
  count_distinct: (db) => db('docs').countDistinct('body'),
  max: (db) => db('docs').max('body').min('body'),
  union: (db) => db('docs').select('body').union(db('docs').select('body').where('id', 1)).orderBy('body'),
  insert: changed((docs) => docs.insert({ id: 9, body: 'new', metadata: { a: 1 } }).returning('*')),
  upsert: changed((docs) => docs.insert({ id: 1, body: 'again', metadata: {} }).onConflict('id').merge().returning('*')),
  update: changed((docs) => docs.where('body', 'Asthma').update({ body: 'x', metadata: { a: 1 } }).returning('*')),
  update_set: changed((docs, db) => docs.where('id', 1).update({ metadata: db.jsonSet('metadata', '$.age', '1') }).returning('metadata')),
  delete: changed((docs) => docs.whereJsonSupersetOf('metadata', { p: 'John Smith' }).delete().returning('id'))
}, await opened(plain, false), await opened(encrypted, true))
