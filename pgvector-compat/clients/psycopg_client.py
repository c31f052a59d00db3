"""psycopg 3: parameters and results as for jsonb and text.  Argument: the database's connection string."""

import sys

import psycopg
from psycopg.types.json import Jsonb

with psycopg.connect(sys.argv[1], autocommit=True) as db:
    # pgseal: begin
    db.execute("SET pgseal.reveal = on")
    # pgseal: end
    note = {"patient": "John Smith", "age": 52}
    db.execute("INSERT INTO docs VALUES (%s, %s::float4[]::vector, %s, %s)", (1, [1, 2, 3], "Chest pain.", Jsonb(note)))
    for condition, value in [
        ("metadata @> %s", Jsonb({"patient": "John Smith"})),
        ("metadata ->> 'patient' = %s", "John Smith"),
        ("(metadata ->> 'age')::int > %s", 50),
        ("body = %s", "Chest pain."),
    ]:
        row = db.execute(f"SELECT body, metadata FROM docs WHERE {condition}", (value,)).fetchone()
        assert row == ("Chest pain.", note), (condition, row)
    changed = db.execute("UPDATE docs SET metadata = metadata || %s RETURNING metadata", (Jsonb({"age": 53}),)).fetchone()
    assert changed[0]["age"] == 53, changed
    assert not db.execute("SELECT FROM docs WHERE metadata ->> 'patient' = %s", ("Mary Jones",)).fetchall()
    # In binary too.
    assert db.execute("SELECT metadata FROM docs", binary=True).fetchone()[0]["age"] == 53
    db.execute("DELETE FROM docs")
print("as for jsonb")
