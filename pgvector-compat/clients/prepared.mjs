// Named statements of node-postgres, and those that postgres.js keeps, across changes of pgseal.reveal.
// Arguments: folder of the server's socket, encrypted database.
import assert from 'node:assert'
import pg from 'pg'
import postgres from 'postgres'

const [host, database] = process.argv.slice(2)
const queries = [
  'SELECT metadata AS v FROM docs',
  'SELECT body AS v FROM docs',
  "SELECT metadata ->> 'p' AS v FROM docs",
  'SELECT json_agg(metadata) AS v FROM docs',
  "SELECT concat(body, '!') AS v FROM docs",
  'SELECT row_to_json(d) AS v FROM docs d'
]
let redone = 0
const check = (value, revealed, query) => assert.strictEqual(JSON.stringify(value).includes('John'), revealed, `${query}: ${revealed}`)
/** The answer, or the error that says to prepare the statement again. */
async function answer (ask, revealed, query) {
  try {
    check(await ask(), revealed, query)
  } catch (error) {
    if (error.code !== '0A000') throw error
    assert.match(error.message, /cached plan must not change result type/)
    redone += 1
  }
}

const server = { host, port: Number(process.env.PGPORT ?? 5432), database, user: 'postgres' }
const client = new pg.Client(server)
await client.connect()
await client.query("INSERT INTO docs VALUES (1, '[1,2,3]', 'John', '{\"p\": \"John\"}')")
for (let turn = 0; turn < 6; turn++) {
  const revealed = turn % 2 === 1
  await client.query(`SET pgseal.reveal = ${revealed}`)
  for (const [number, text] of queries.entries()) {
    await answer(async () => (await client.query({ name: `q${number}`, text })).rows[0].v, revealed, text)
    check((await client.query(text)).rows[0].v, revealed, text)
  }
}

const sql = postgres({ ...server, max: 1, onnotice () {} })
for (let turn = 0; turn < 6; turn++) {
  const revealed = turn % 2 === 1
  await sql.unsafe(`SET pgseal.reveal = ${revealed}`)
  for (const text of queries) {
    await answer(async () => (await sql.unsafe(text, [], { prepare: true }))[0].v, revealed, text)
  }
}
await sql.end()
await client.query('DELETE FROM docs')
await client.end()
assert(redone > 0)
console.log(`never the other form; ${redone} statements were to be prepared again`)
