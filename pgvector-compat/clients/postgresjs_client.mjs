// postgres.js on encrypted columns.  Arguments: folder of the server's socket, plain database, encrypted database.
import postgres from 'postgres'
import { compare } from './twins.mjs'

const [host, plain, encrypted] = process.argv.slice(2)
const note = { p: 'John Smith', age: 52, n: { c: 'Oslo' }, tags: ['a'] }

async function opened (database, revealed) {
  const options = { host, database, user: 'postgres', max: 1, onnotice () {} }
  if (process.env.PGPORT) options.port = Number(process.env.PGPORT)
  const sql = postgres(options)
  if (revealed) {
    // pgseal: begin
    await sql`SET pgseal.reveal = on`
    // pgseal: end
  } else {
    await sql`CREATE TABLE docs (id int PRIMARY KEY, embedding vector(3), body text, metadata jsonb)`
  }
  await sql`INSERT INTO docs ${sql([
    { id: 1, embedding: '[1,2,3]', body: 'Chest pain.', metadata: sql.json(note) },
    { id: 2, embedding: '[3,1,2]', body: 'Asthma', metadata: sql.json({ p: 'Mary Jones', age: 34 }) }
  ])}`
  return sql
}

const rows = (question) => async (sql) => Array.from(await question(sql), (row) => ({ ...row }))
/** Undone afterwards. */
const changed = (question) => async (sql) => {
  let seen
  await sql.begin(async (sql) => {
    seen = await rows(question)(sql)
    throw new Error('undo')
  }).catch((error) => { if (error.message !== 'undo') throw error })
  return seen
}

const cases = {
  all: rows((sql) => sql`SELECT id, body, metadata FROM docs ORDER BY id`),
  contains: rows((sql) => sql`SELECT id FROM docs WHERE metadata @> ${sql.json({ p: 'John Smith' })}`),
  contains_object: rows((sql) => sql`SELECT id FROM docs WHERE metadata @> ${{ p: 'John Smith' }}`),
  text_of_key: rows((sql) => sql`SELECT id FROM docs WHERE metadata ->> 'p' = ${'John Smith'}`),
  key_parameter: rows((sql) => sql`SELECT id FROM docs WHERE metadata ->> ${'p'} = ${'John Smith'}`),
  item: rows((sql) => sql`SELECT id FROM docs WHERE metadata -> 'n' = ${sql.json({ c: 'Oslo' })}`),
  in_list: rows((sql) => sql`SELECT id FROM docs WHERE metadata ->> 'p' IN ${sql(['John Smith', 'x'])}`),
  any: rows((sql) => sql`SELECT id FROM docs WHERE metadata ->> 'p' = ANY(${['John Smith', 'x']})`),
  body: rows((sql) => sql`SELECT metadata FROM docs WHERE body = ${'Asthma'}`),
  body_any: rows((sql) => sql`SELECT metadata FROM docs WHERE body = ANY(${['Asthma']})`),
  greater: rows((sql) => sql`SELECT id FROM docs WHERE (metadata ->> 'age')::int > ${40}`),
  nearest: rows((sql) => sql`SELECT id FROM docs WHERE metadata ->> 'p' = 'John Smith' ORDER BY embedding <=> ${'[1,2,2]'}`),
  group_by: rows((sql) => sql`SELECT metadata ->> 'p' AS p, count(*) FROM docs GROUP BY 1 ORDER BY 1`),
  json_agg: rows((sql) => sql`SELECT json_agg(d ORDER BY id) FROM (SELECT id, body, metadata FROM docs) d`),
  coalesce: rows((sql) => sql`SELECT coalesce(body, ${'-'}) AS body FROM docs ORDER BY id`),
  insert: changed((sql) => sql`INSERT INTO docs (id, body, metadata) VALUES (9, ${'new'}, ${sql.json({ a: 1 })}) RETURNING id, body, metadata`),
  insert_object: changed((sql) => sql`INSERT INTO docs (id, body, metadata) VALUES (9, ${'new'}, ${{ a: 1 }}) RETURNING id, body, metadata`),
  insert_helper: changed((sql) => sql`INSERT INTO docs ${sql({ id: 9, body: 'new', metadata: { a: 1 } })} RETURNING id, body, metadata`),
  update_helper: changed((sql) => sql`UPDATE docs SET ${sql({ body: 'x', metadata: { a: 1 } })} WHERE id = 1 RETURNING body, metadata`),
  concatenate: changed((sql) => sql`UPDATE docs SET metadata = metadata || ${{ a: 1 }} WHERE id = 1 RETURNING metadata`),
  delete: changed((sql) => sql`DELETE FROM docs WHERE metadata ->> 'p' = ${'John Smith'} RETURNING id, body`),
  cursor: async (sql) => {
    const seen = []
    for await (const some of sql`SELECT id, metadata FROM docs ORDER BY id`.cursor(1)) seen.push({ ...some[0] })
    return seen
  }
}

await compare('postgres.js', cases, await opened(plain, false), await opened(encrypted, true))
