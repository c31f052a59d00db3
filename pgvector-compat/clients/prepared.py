"""Statements that psycopg and asyncpg keep prepared, across changes of pgseal.reveal.  Argument: the encrypted database's URL."""

import asyncio
import sys

import asyncpg
import psycopg

QUERIES = [
    "SELECT metadata FROM docs",
    "SELECT body FROM docs",
    "SELECT metadata ->> 'p' FROM docs",
    "SELECT json_agg(metadata) FROM docs",
    "SELECT concat(body, '!') FROM docs",
    "SELECT row_to_json(d) FROM docs d",
]
url = sys.argv[1]
redone = 0


def check(value, revealed, query):
    assert ("John" in str(value)) == revealed, (query, revealed, value)


def settings():
    """On and off by turns, each kept for more uses than a driver needs to prepare a statement."""
    for turn in range(6):
        yield turn % 2 == 1


with psycopg.connect(url, autocommit=True) as db:
    db.execute("""INSERT INTO docs VALUES (1, '[1,2,3]', 'John', '{"p": "John"}')""")

for threshold in [0, 1, 5]:
    with psycopg.connect(url, autocommit=True, prepare_threshold=threshold) as db:
        for revealed in settings():
            db.execute(f"SET pgseal.reveal = {revealed}")
            for query in QUERIES * 8:
                try:
                    value = db.execute(query).fetchone()[0]
                except psycopg.errors.FeatureNotSupported as error:
                    # Drivers know these words; psycopg hands them on.
                    assert "cached plan must not change result type" in str(error), error
                    redone += 1
                    value = db.execute(query, prepare=False).fetchone()[0]
                check(value, revealed, query)


async def asynchronous():
    global redone
    db = await asyncpg.connect(url)
    for revealed in settings():
        await db.execute(f"SET pgseal.reveal = {revealed}")
        for query in QUERIES * 3:
            # Its cache: it prepares again by itself, outside of transactions.
            check(await db.fetchval(query), revealed, query)
    for revealed in settings():
        await db.execute(f"SET pgseal.reveal = {revealed}")
        for query in QUERIES:
            try:
                async with db.transaction():
                    value = await db.fetchval(query)
            except asyncpg.exceptions.InvalidCachedStatementError:
                redone += 1
                value = await db.fetchval(query)
            check(value, revealed, query)
    statements = {query: await db.prepare(query) for query in QUERIES}
    for revealed in settings():
        await db.execute(f"SET pgseal.reveal = {revealed}")
        for query, statement in statements.items():
            try:
                value = await statement.fetchval()
            except asyncpg.exceptions.FeatureNotSupportedError:
                redone += 1
                continue
            check(value, revealed, query)
    await db.close()


asyncio.run(asynchronous())
with psycopg.connect(url, autocommit=True) as db:
    db.execute("DELETE FROM docs")
assert redone > 0
print(f"never the other form; {redone} statements were to be prepared again")
