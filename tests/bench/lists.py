#!/usr/bin/env python3
"""Lists of 10 and 1,000 elements next to plain jsonb: bench.sh starts it.

Plain jsonb has the index that helps it most: a btree on the very expression
for texts, GIN with jsonb_path_ops for documents. Without it (GIN does not
help ->> IN) plain jsonb scans: the last column. All sides take turns. Ratios
are of latency at the client and of processor time of the backend, which other
work on the machine disturbs less.
"""

import random
import statistics
import sys

from bench import Bench, duration, interval, machine, say, timed
from vectors import processor_time

DISTINCT = 20_000  # different values: five rows each with 100,000

SETUP = """
CREATE EXTENSION vector;
CREATE EXTENSION pgseal;
DO $$ BEGIN PERFORM pgseal.create_keyring('bench', searchable => ARRAY['$.a', '$.o.c', '$']); END $$;
CREATE TABLE docs (id int, plain jsonb, sealed encrypted_jsonb(bench), words text, body encrypted_text(bench));
"""

FORMS = {
    "->> = ANY (text[])": ("{c} ->> 'a' = ANY (%s::text[])", ("plain", "sealed")),
    "->> IN (literals)": ("{c} ->> 'a' IN ({list})", ("plain", "sealed")),
    "-> ->> = ANY": ("{c} -> 'o' ->> 'c' = ANY (%s::text[])", ("plain", "sealed")),
    "text = ANY": ("{c} = ANY (%s::text[])", ("words", "body")),
    "@> ANY (jsonb[])": ("{c} @> ANY (%s::text[]::jsonb[])", ("plain", "sealed")),
    "->> IN (SELECT ...)": ("{c} ->> 'a' IN (SELECT unnest(%s::text[]))", ("plain", "sealed")),
}


class Lists(Bench):
    def load(self):
        for statement in filter(str.strip, SETUP.split(";\n")):
            self.run(statement)
        self.run(
            "INSERT INTO docs SELECT i, j, j, v, v FROM generate_series(1, %s) i, LATERAL (SELECT 'v' || i %% %s) t (v),"
            " jsonb_build_object('a', v, 'o', jsonb_build_object('c', v), 'n', i, 'text', repeat('x', 200)) j",
            self.rows,
            DISTINCT,
        )
        for index in (
            "btree ((plain ->> 'a'))",
            "btree ((plain -> 'o' ->> 'c'))",
            "gin (plain jsonb_path_ops)",
            "gin (sealed)",
            "btree (words)",
            "gin (body)",
        ):
            self.run(f"CREATE INDEX ON docs USING {index}")
        self.run("VACUUM ANALYZE docs")

    def measured(self, ask):
        before = processor_time(self.db)
        latency = timed(ask)
        return latency, processor_time(self.db) - before

    def scanned(self, ask):
        """Latency where no index is used, and some scans are enough."""
        off = ("enable_bitmapscan", "enable_indexscan", "enable_indexonlyscan")
        for setting in off:
            self.run(f"SET {setting} = off")
        self.run("DISCARD PLANS")  # or the prepared ones stay
        latency = min(timed(ask) for _ in range(3))
        for setting in off:
            self.run(f"RESET {setting}")
        self.run("DISCARD PLANS")
        return latency

    def ask(self, form, column, elements, seed):
        numbers = random.Random(seed).sample(range(2 * DISTINCT), elements)
        texts = [f"v{number}" for number in numbers]
        if "jsonb[]" in form:
            texts = [f'{{"a": "{text}"}}' for text in texts]
        condition = form.format(c=column, list=", ".join(f"'{text}'" for text in texts))
        sql = f"SELECT count(id) FROM docs WHERE {condition}"
        return lambda: self.run(sql, *([texts] if "%s" in form else [])).fetchone()[0]


def main():
    bench = Lists(int(sys.argv[1]), int(sys.argv[2]))
    say(f"{bench.rows} documents, {bench.rounds} rounds, {DISTINCT} different values")
    bench.load()
    say(f"{machine(bench.db)}\n{'':22}{'elements':>9}{'rows':>7}{'plain':>11}{'pgseal':>11}   {'pgseal/plain':21}{'processor time':21}pgseal/scan")
    for name, (form, columns) in FORMS.items():
        for elements in (10, 1000):
            times = ([], [])
            for number in range(bench.rounds + 1):
                asked = [bench.ask(form, column, elements, number) for column in columns]
                found = [ask() for ask in asked]
                assert found[0] == found[1], (name, found)
                for kept, ask in zip(times, asked):
                    if number:  # the first round only warms the caches
                        kept.append([min(of) for of in zip(*(bench.measured(ask) for _ in range(3)))])
            plain, sealed = (list(zip(*side)) for side in times)
            scan = bench.scanned(bench.ask(form, columns[0], elements, 1))
            ratios = [interval([s / p for p, s in zip(*sides)]) for sides in zip(plain, sealed)]
            cells = "".join(f"{duration(statistics.median(latency)):>11}" for latency, _ in (plain, sealed))
            shown = [f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in ratios]
            say(f"{name:22}{elements:>9}{found[0]:>7}{cells}   {shown[0]:21}{shown[1]:21}{statistics.median(sealed[0]) / scan:.2f} of {duration(scan)}")


if __name__ == "__main__":
    main()
