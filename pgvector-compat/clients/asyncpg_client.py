"""asyncpg on encrypted columns: parameters, COPY, pools, prepared statements.  Argument: the database's URL, plain and encrypted."""

import asyncio
import json
import sys

import asyncpg
from twins import Cases

cases = Cases("asyncpg")
NOTE = {"p": "John Smith", "age": 52, "n": {"c": "Oslo"}}
ROWS = [(1, "Chest pain.", NOTE), (2, "Asthma", {"p": "Mary Jones", "age": 34}), (3, None, None)]


async def prepared(connection):
    """JSON as Python values, in the way of asyncpg's documentation."""
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)


async def reveal(connection):
    await connection.execute("SET pgseal.reveal = on")


def case(function):
    """An asynchronous case; each has a pool of one connection, so that it is reused."""

    def run(subject):
        url, encrypted = subject

        async def inside():
            # pgseal: begin
            setup = reveal if encrypted else None
            # pgseal: end
            async with asyncpg.create_pool(url, min_size=1, max_size=1, init=prepared, setup=setup) as pool:
                async with pool.acquire() as db:
                    await db.execute("CREATE TABLE IF NOT EXISTS docs (id int PRIMARY KEY, body text, metadata jsonb)")
                    await db.execute("TRUNCATE docs")
                    for number, body, note in ROWS:
                        await db.execute("INSERT INTO docs (id, body, metadata) VALUES ($1, $2, $3::text::jsonb)", number, body, json.dumps(note))
                return await function(pool)

        return asyncio.run(inside())

    cases.add(function.__name__, run)


def query(name, sql, *arguments):
    async def run(pool):
        return [tuple(row) for row in await pool.fetch(sql, *arguments)]

    run.__name__ = name
    case(run)


query("all", "SELECT id, body, metadata FROM docs ORDER BY id")
query("contains", "SELECT id FROM docs WHERE metadata @> $1", {"p": "John Smith"})
query("text_of_key", "SELECT id FROM docs WHERE metadata ->> 'p' = $1", "John Smith")
query("key_parameter", "SELECT id FROM docs WHERE metadata ->> $1 = $2", "p", "John Smith")
query("any", "SELECT id FROM docs WHERE metadata ->> 'p' = ANY($1)", ["John Smith", "x"])
query("any_cast", "SELECT id FROM docs WHERE metadata ->> 'p' = ANY($1::text[])", ["John Smith", "x"])
query("item", "SELECT id FROM docs WHERE metadata -> 'age' = $1", 52)
query("greater", "SELECT id FROM docs WHERE (metadata ->> 'age')::int > $1", 40)
query("body", "SELECT id, metadata FROM docs WHERE body = $1", "Asthma")
query("body_any", "SELECT id FROM docs WHERE body = ANY($1)", ["Asthma", "x"])
query("like", "SELECT id FROM docs WHERE body ILIKE $1", "%PAIN%")
query("insert", "INSERT INTO docs (id, body, metadata) VALUES ($1, $2, $3) RETURNING id, body, metadata", 9, "new", {"a": 1})
query("update", "UPDATE docs SET body = $1, metadata = $2 WHERE id = 1 RETURNING body, metadata", "x", {"a": 1})
query("concatenate", "UPDATE docs SET metadata = metadata || $1 WHERE id = 1 RETURNING metadata", {"a": 1})
query("coalesce", "SELECT COALESCE(body, $1), COALESCE(metadata, $2) FROM docs", "-", {})
query("group_by", "SELECT metadata ->> 'p' AS p, count(*) FROM docs GROUP BY 1 ORDER BY 1")
query("array_agg", "SELECT array_agg(body ORDER BY id), array_agg(metadata ORDER BY id) FROM docs")
query("unnest", "INSERT INTO docs (id, body) SELECT * FROM unnest($1::int[], $2::text[]) RETURNING id, body", [7, 8], ["a", "b"])


@case
async def executemany(pool):
    await pool.executemany("INSERT INTO docs (id, body, metadata) VALUES ($1, $2, $3)", [(7, "a", {"a": 1}), (8, "b", None)])
    return [tuple(row) for row in await pool.fetch("SELECT id, body, metadata FROM docs WHERE id > 3 ORDER BY id")]


@case
async def copy_records(pool):
    async with pool.acquire() as db:
        # COPY is binary: a version, and the text.
        binary = {"encoder": lambda note: b"\x01" + json.dumps(note).encode(), "decoder": lambda sent: json.loads(sent[1:])}
        await db.set_type_codec("jsonb", schema="pg_catalog", format="binary", **binary)
        await db.copy_records_to_table("docs", records=[(7, "a", {"a": 1}), (8, "b", None)], columns=["id", "body", "metadata"])
    return [tuple(row) for row in await pool.fetch("SELECT id, body, metadata FROM docs WHERE id > 3 ORDER BY id")]


@case
async def acquired_again(pool):
    return [await pool.fetchval("SELECT metadata ->> 'p' FROM docs WHERE id = 1") for _ in range(3)]


@case
async def cursor(pool):
    async with pool.acquire() as db, db.transaction():
        return [tuple(row) async for row in db.cursor("SELECT id, metadata FROM docs ORDER BY id", prefetch=1)]


@case
async def prepared_statement(pool):
    async with pool.acquire() as db:
        statement = await db.prepare("SELECT body, metadata FROM docs WHERE metadata @> $1")
        types = [parameter.name for parameter in statement.get_parameters()] + [column.type.name for column in statement.get_attributes()]
        return types, [tuple(row) for row in await statement.fetch({"p": "John Smith"})]


sys.exit(not cases.compare((sys.argv[1], False), (sys.argv[2], True)))
