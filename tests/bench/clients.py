#!/usr/bin/env python3
"""Transactions a second of 1, 8 and 64 clients, next to plain jsonb: bench.sh starts it.

pgbench sends prepared statements with one parameter.  The two take turns in every round, as in bench.py.
"""

import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import Bench, interval, machine, say

CLIENTS = (1, 8, 64)
SECONDS = 4  # of one run of pgbench

COLUMNS = {"plain": "jsonb", "sealed": "encrypted_jsonb(bench)"}

SETUP = """
CREATE EXTENSION vector;
CREATE EXTENSION pgseal;
DO $$ BEGIN PERFORM pgseal.create_keyring('bench', searchable => ARRAY['$.one', '$.hundred']); END $$;
"""

DOCUMENT = "jsonb_build_object('one', n, 'hundred', n % greatest(1, {rows} / 100), 'note', repeat(md5(n::text), 12))"

TABLE = """
CREATE TABLE {name} (id int, m {type});
INSERT INTO {name} SELECT n, {document} FROM generate_series(1, {rows}) AS n;
CREATE INDEX ON {name} USING gin (m {operators});
CREATE TABLE {name}_sink (id int, m {type});
CREATE INDEX ON {name}_sink USING gin (m {operators});
VACUUM ANALYZE {name}
"""

# What is done, the target of pgseal's transactions a second to plain's, and how.
SCRIPTS = (
    ("1 row matches", 0.95, "\\set n random(1, {rows})\nSELECT id FROM {name} WHERE m @> jsonb_build_object('one', :n::int);"),
    (
        "100 rows match",
        1.0,
        "\\set n random(0, {rows} / 100 - 1)\nSELECT id FROM {name} WHERE m @> jsonb_build_object('hundred', :n::int);",
    ),
    (
        "one row inserted",
        0.95,
        "\\set n random(1, {rows})\nINSERT INTO {name}_sink SELECT n, {document} FROM (SELECT :n::int) AS one (n);",
    ),
)


class Clients(Bench):
    setup = SETUP

    def load(self):
        for statement in filter(str.strip, self.setup.split(";\n")):
            self.run(statement)
        for name, type_ in COLUMNS.items():
            operators = "jsonb_path_ops" if name == "plain" else ""
            document = DOCUMENT.format(rows=self.rows)
            for statement in TABLE.format(name=name, type=type_, operators=operators, document=document, rows=self.rows).split(";\n"):
                self.run(statement)

    def rate(self, script, name, clients):
        """Transactions a second."""
        if "_sink" in script:
            self.run(f"TRUNCATE {name}_sink")
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(script.format(name=name, rows=self.rows, document=DOCUMENT.format(rows=self.rows)))
            file.flush()
            command = ["pgbench", "-n", "-M", "prepared", "-j", "2", "-c", f"{clients}", "-T", f"{SECONDS}", "-f", file.name]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(re.search(r"tps = ([0-9.]+)", printed)[1])


def main():
    bench = Clients(int(sys.argv[1]), int(sys.argv[2]))
    say(f"{bench.rows} documents of 500 bytes, {bench.rounds} rounds of {SECONDS} s each")
    bench.load()
    say(machine(bench.db))
    say(f"{'':20}{'clients':>8}{'plain':>12}{'pgseal':>12}   pgseal/plain")
    for what, target, script in SCRIPTS:
        for clients in CLIENTS:
            rates = {name: [] for name in COLUMNS}
            for _ in range(bench.rounds):
                for name in COLUMNS:
                    rates[name].append(bench.rate(script, name, clients))
            middle, low, high = interval([sealed / plain for plain, sealed in zip(rates["plain"], rates["sealed"])])
            cells = "".join(f"{statistics.median(values):>10.0f}/s" for values in rates.values())
            verdict = "met" if low >= target else "missed" if high < target else "undecided"
            say(f"{what:20}{clients:>8}{cells}   {middle:.2f} [{low:.2f}, {high:.2f}]   at least {target}: {verdict}")


if __name__ == "__main__":
    main()
