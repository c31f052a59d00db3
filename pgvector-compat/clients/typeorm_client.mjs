// TypeORM on encrypted columns.  Arguments: folder of the server's socket, plain database, encrypted database.
import typeorm from 'typeorm'
import { compare } from './twins.mjs'

const { DataSource, EntitySchema, ILike, In, IsNull, JsonContains, Like, MoreThan, Not, Raw } = typeorm
const [host, plain, encrypted] = process.argv.slice(2)

const columns = (types) => ({
  id: { type: 'int', primary: true },
  body: { type: types[0], nullable: true },
  metadata: { type: types[1], nullable: true }
})

async function opened (database, revealed) {
  const types = revealed ? ['encrypted_text', 'encrypted_jsonb'] : ['text', 'jsonb']
  const entity = new EntitySchema({ name: 'Note', tableName: 'notes', columns: columns(types) })
  const source = new DataSource({ type: 'postgres', host, port: Number(process.env.PGPORT ?? 5432), username: 'postgres', database, entities: [entity], poolSize: 1 })
  if (revealed) {
    // pgseal: begin
    source.driver.supportedDataTypes.push('encrypted_text', 'encrypted_jsonb')
    // pgseal: end
  }
  await source.initialize()
  if (revealed) await source.query('SET pgseal.reveal = on')
  const [body, metadata] = revealed ? types.map((type) => `${type}(clients)`) : types
  await source.query(`CREATE TABLE notes (id int PRIMARY KEY, body ${body}, metadata ${metadata})`)
  const notes = source.getRepository(entity)
  await notes.insert([
    { id: 1, body: 'Chest pain.', metadata: { p: 'John Smith', age: 52, n: { c: 'Oslo' } } },
    { id: 2, body: 'Asthma', metadata: { p: 'Mary Jones', age: 34 } },
    { id: 3, body: null, metadata: null }
  ])
  return { source, notes, entity }
}

const ids = (where) => async ({ notes }) => (await notes.find({ where, select: { id: true }, order: { id: 'ASC' } })).map((note) => note.id)
/** Undone afterwards. */
const changed = (change) => async ({ source, entity }) => {
  let seen
  await source.transaction(async (manager) => {
    const notes = manager.getRepository(entity)
    await change(notes)
    seen = (await notes.find({ order: { id: 'ASC' } })).map((note) => ({ ...note }))
    throw new Error('undo')
  }).catch((error) => { if (error.message !== 'undo') throw error })
  return seen
}
const plainly = (rows) => JSON.parse(JSON.stringify(rows))
const built = (build) => async ({ notes }) => plainly(await build(notes.createQueryBuilder('n')))

await compare('typeorm', {
  find: async ({ notes }) => plainly(await notes.find({ order: { id: 'ASC' } })),
  equal: ids({ body: 'Asthma' }),
  not: ids({ body: Not('Asthma') }),
  in: ids({ body: In(['Asthma', 'x']) }),
  like: ids({ body: Like('Chest%') }),
  ilike: ids({ body: ILike('%PAIN%') }),
  more_than: ids({ body: MoreThan('B') }),
  is_null: ids({ metadata: IsNull() }),
  json_contains: ids({ metadata: JsonContains({ p: 'John Smith' }) }),
  json_equal: ids({ metadata: Raw((column) => `${column} = :value`, { value: JSON.stringify({ p: 'Mary Jones', age: 34 }) }) }),
  raw_key: ids({ metadata: Raw((column) => `${column} ->> 'p' = :value`, { value: 'John Smith' }) }),
  or: ids([{ body: 'Asthma' }, { metadata: JsonContains({ p: 'John Smith' }) }]),
  count: async ({ notes }) => notes.countBy({ body: 'Asthma' }),
  order_by: async ({ notes }) => (await notes.find({ order: { body: 'ASC' } })).map((note) => note.id),
  order_and_take: async ({ notes }) => (await notes.find({ order: { body: 'DESC' }, take: 2, skip: 1 })).map((note) => note.id),
  group_by: built((n) => n.select("n.metadata ->> 'p'", 'p').addSelect('count(*)', 'c').groupBy('p').orderBy('p').getRawMany()),
  distinct: built((n) => n.select('n.body', 'body').distinct(true).orderBy('n.body').getRawMany()),
  max: built((n) => n.select('MAX(n.body)', 'max').getRawMany()),
  lower: built((n) => n.select('n.id', 'id').where('LOWER(n.body) = :body', { body: 'asthma' }).getRawMany()),
  insert: changed((notes) => notes.insert({ id: 9, body: 'new', metadata: { a: 1 } })),
  save: changed((notes) => notes.save({ id: 1, body: 'again', metadata: { a: 1 } })),
  save_unchanged: changed(async (notes) => notes.save(await notes.findOneBy({ id: 1 }))),
  update: changed((notes) => notes.update({ body: 'Asthma' }, { metadata: { a: 1 } })),
  upsert: changed((notes) => notes.upsert({ id: 1, body: 'again', metadata: {} }, ['id'])),
  delete: changed((notes) => notes.delete({ metadata: JsonContains({ p: 'John Smith' }) })),
  schema: async ({ source }) => (await source.driver.createSchemaBuilder().log()).upQueries.filter(({ query }) => /metadata|body/.test(query)).map(({ query }) => query)
}, await opened(plain, false), await opened(encrypted, true))
