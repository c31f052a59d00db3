#!/usr/bin/env python3
"""ORDER BY, GROUP BY, DISTINCT and hash joins of encrypted values next to plain ones: bench.sh starts it.

Both sides have the same rows in the same order and take turns. Ratios are of
latency at the client and of processor time of the backend, which other work on
the machine disturbs less.
"""

import statistics
import sys

from bench import duration, interval, machine, say
from lists import Lists

FEW = 1_000  # different values, of the text and of the document
SMALL, LARGE = "4MB", "1GB"  # work_mem: spills, does not spill

SETUP = """
CREATE EXTENSION vector;
CREATE EXTENSION pgseal;
DO $$ BEGIN PERFORM pgseal.create_keyring('bench', searchable => ARRAY['$.a', '$']); END $$;
CREATE TABLE plain (id int, few text, own text, document jsonb, few_document jsonb);
CREATE TABLE sealed (id int, few encrypted_text(bench), own encrypted_text(bench), document encrypted_jsonb(bench),
    few_document encrypted_jsonb(bench));
CREATE TABLE plain_names (name text);
CREATE TABLE sealed_names (name encrypted_text(bench));
"""

# {t} is the table; all give one row.
QUERIES = {
    "ORDER BY text": (LARGE, "SELECT count(*) FROM (SELECT own FROM {t} ORDER BY own OFFSET 0) q"),
    "  of few": (LARGE, "SELECT count(*) FROM (SELECT few FROM {t} ORDER BY few OFFSET 0) q"),
    "  that spills": (SMALL, "SELECT count(*) FROM (SELECT own FROM {t} ORDER BY own OFFSET 0) q"),
    "  LIMIT 10": (LARGE, "SELECT count(*) FROM (SELECT own FROM {t} ORDER BY own LIMIT 10) q"),
    "ORDER BY document": (LARGE, "SELECT count(*) FROM (SELECT document FROM {t} ORDER BY document OFFSET 0) q"),
    "  that spills ": (SMALL, "SELECT count(*) FROM (SELECT document FROM {t} ORDER BY document OFFSET 0) q"),
    "GROUP BY text": (LARGE, "SELECT count(*) FROM (SELECT few, count(*) FROM {t} GROUP BY few) q"),
    "  all different": (LARGE, "SELECT count(*) FROM (SELECT own, count(*) FROM {t} GROUP BY own) q"),
    "GROUP BY document": (LARGE, "SELECT count(*) FROM (SELECT few_document, count(*) FROM {t} GROUP BY few_document) q"),
    "GROUP BY ->>": (LARGE, "SELECT count(*) FROM (SELECT document ->> 'a', count(*) FROM {t} GROUP BY 1) q"),
    "count(DISTINCT text)": (LARGE, "SELECT count(DISTINCT few) FROM {t}"),
    "hash join, few": (LARGE, "SELECT count(*) FROM {t} JOIN {t}_names ON few = name"),
    "hash join, all": (LARGE, "SELECT count(*) FROM {t} a JOIN {t} b ON a.own = b.own"),
}


class Grouping(Lists):
    def load(self):
        for statement in filter(str.strip, SETUP.split(";\n")):
            self.run(statement)
        self.run(
            "INSERT INTO plain SELECT i, f, 'value ' || md5(i::text), jsonb_build_object('a', f, 'n', i, 'text', repeat('x', 200)),"
            " jsonb_build_object('a', f, 'text', repeat('x', 200))"
            " FROM generate_series(1, %s) i, LATERAL (SELECT 'word ' || i * 7919 %% %s) t (f)",
            self.rows,
            FEW,
        )
        self.run("INSERT INTO sealed SELECT * FROM plain")
        for table in ("plain", "sealed"):
            self.run(f"INSERT INTO {table}_names SELECT few FROM plain GROUP BY few")
            self.run(f"VACUUM ANALYZE {table}, {table}_names")
        self.run("SET enable_mergejoin = off")
        self.run("SET enable_nestloop = off")
        self.run("SET pgseal.reveal = off")

    def query(self, sql, table):
        return lambda: self.run(sql.format(t=table)).fetchone()[0]


def main():
    bench = Grouping(int(sys.argv[1]), int(sys.argv[2]))
    say(f"{bench.rows} rows, {bench.rounds} rounds, {FEW} different values of the few")
    bench.load()
    say(f"{machine(bench.db)}\n{'':22}{'plain':>11}{'pgseal':>11}   {'pgseal/plain':21}processor time")
    for name, (memory, sql) in QUERIES.items():
        bench.run(f"SET work_mem = '{memory}'")
        queries = [bench.query(sql, table) for table in ("plain", "sealed")]
        times = ([], [])
        for number in range(bench.rounds + 1):
            found = [query() for query in queries] if number == 0 else None
            assert found is None or found[0] == found[1], (name, found)
            for kept, query in zip(times, queries):
                if number:  # the first round only warms the caches
                    kept.append(bench.measured(query))
        plain, sealed = (list(zip(*side)) for side in times)
        ratios = [interval([s / p for p, s in zip(*sides)]) for sides in zip(plain, sealed)]
        cells = "".join(f"{duration(statistics.median(latency)):>11}" for latency, _ in (plain, sealed))
        shown = [f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in ratios]
        say(f"{name:22}{cells}   {shown[0]:21}{shown[1]}")


if __name__ == "__main__":
    main()
