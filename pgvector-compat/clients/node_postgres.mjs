// node-postgres: columns arrive as objects and strings.  Arguments: folder of the server's socket, database.
import assert from 'node:assert'
import pg from 'pg'

const db = new pg.Client({ host: process.argv[2], database: process.argv[3], user: 'postgres' })
await db.connect()
// pgseal: begin
await db.query('SET pgseal.reveal = on')
// pgseal: end
const note = { patient: 'John Smith', age: 52 }
await db.query('INSERT INTO docs VALUES ($1, $2, $3, $4)', [1, '[1,2,3]', 'Chest pain.', JSON.stringify(note)])
for (const [condition, value] of [
  ['metadata @> $1', JSON.stringify({ patient: 'John Smith' })],
  ["metadata ->> 'patient' = $1", 'John Smith'],
  ["(metadata ->> 'age')::int > $1", 50],
  ['body = $1', 'Chest pain.'],
]) {
  const { rows } = await db.query(`SELECT body, metadata FROM docs WHERE ${condition}`, [value])
  assert.deepStrictEqual(rows, [{ body: 'Chest pain.', metadata: note }], condition)
}
const { rows } = await db.query("UPDATE docs SET metadata = metadata || $1 RETURNING metadata", [JSON.stringify({ age: 53 })])
assert.strictEqual(rows[0].metadata.age, 53)
await db.query('DELETE FROM docs')
await db.end()
console.log('as for jsonb')
