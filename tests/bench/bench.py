#!/usr/bin/env python3
"""Speed of pgseal next to plain jsonb and to pgcrypto: bench.sh starts it.

The three variants hold the same documents and take turns in every round, so
that what disturbs the machine disturbs them alike.  A ratio is the median of
the rounds' ratios to plain jsonb; its interval (95 %) is read off the sorted
ratios, with no assumption about their distribution.
"""

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import psycopg
from psycopg.types.json import Jsonb

ROOT = Path(__file__).resolve().parents[2]
QUERIES = 100  # filtered queries in a round
WARM_UP = 10  # queries before the clock starts: the plan gets cached

NOTES = """\
Ratios to plain jsonb: median [95 % interval]. Same settings for all: no parallel query, no JIT, warm cache.
insert: INSERT ... SELECT from a table of jsonb and vectors into an empty one that has the index on the metadata.
filtered query: metadata @> one patient, the 10 nearest, decrypted; prepared, latency at the client; no HNSW index.
decrypt scan: every row decrypted; the whole document written as text, or one field of it compared.
pgcrypto inserts and scans only a 20th of the rows, since it takes so long; the times are per row.
"""

SETUP = """
CREATE EXTENSION vector;
CREATE EXTENSION pgcrypto;
CREATE EXTENSION pgseal;
CREATE UNLOGGED TABLE staging (id int GENERATED ALWAYS AS IDENTITY, embedding vector(384), metadata jsonb);
DO $$ BEGIN PERFORM pgseal.create_keyring('bench', searchable => ARRAY['$.patient_name', '$.diagnosis', '$.department']); END $$;
"""


class Plain:
    name = "plain jsonb, GIN jsonb_path_ops"
    columns = "metadata jsonb"
    indexes = ("gin (metadata jsonb_path_ops)",)
    sealed = "metadata"
    opened = "metadata"
    where = "metadata @> %s"
    share = 1  # of the rows, inserted and scanned

    @staticmethod
    def filter(patient):
        return Jsonb({"patient_name": patient})


class Pgseal(Plain):
    name = "pgseal, GIN"
    columns = "metadata encrypted_jsonb(bench)"
    indexes = ("gin (metadata)",)
    opened = "pgseal.decrypt(metadata)"


class Pgcrypto(Plain):
    """Each searchable field has a column with its HMAC and an index on that."""

    name = "pgcrypto, HMAC btrees"
    columns = "patient bytea, diagnosis bytea, department bytea, metadata bytea"
    indexes = ("btree (patient)", "btree (diagnosis)", "btree (department)")
    sealed = (
        "hmac(metadata ->> 'patient_name', 'index key', 'sha256'),"
        " hmac(metadata ->> 'diagnosis', 'index key', 'sha256'),"
        " hmac(metadata ->> 'department', 'index key', 'sha256'),"
        " pgp_sym_encrypt(metadata::text, 'data key', 'cipher-algo=aes256')"
    )
    opened = "pgp_sym_decrypt(metadata, 'data key')::jsonb"
    where = "patient = hmac(%s::text, 'index key', 'sha256')"
    share = 20

    @staticmethod
    def filter(patient):
        return patient


VARIANTS = (Plain, Pgseal, Pgcrypto)


def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


class Bench:
    def __init__(self, rows, rounds):
        self.rows, self.rounds = rows, rounds
        self.db = psycopg.connect("", autocommit=True, prepare_threshold=1)

    def run(self, sql, *args):
        return self.db.execute(sql, args or None)

    setup = SETUP

    def prepare_staging(self):
        for statement in filter(str.strip, self.setup.split(";\n")):
            self.run(statement)
        with self.db.cursor().copy("COPY staging (embedding, metadata) FROM STDIN") as copy:
            command = [sys.executable, str(ROOT / "tests/data/load_icd10.py"), "--repeat-to", str(self.rows)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as rows:
                while chunk := rows.stdout.read(1 << 16):
                    copy.write(chunk)
        self.run("VACUUM ANALYZE staging")

    def load(self):
        self.prepare_staging()
        for variant in VARIANTS:
            for table in ("docs", "sink", "sink_hnsw"):
                self.create(variant, table)
            say(f"loading: {variant.name}")
            self.insert(variant, "docs", self.rows)
            self.index(variant, "docs")
            self.run(f"VACUUM ANALYZE {variant.__name__}_docs")
            self.index(variant, "sink")
            self.index(variant, "sink_hnsw", hnsw=True)
        self.patients = self.run(
            "SELECT DISTINCT metadata ->> 'patient_name' FROM staging ORDER BY 1 LIMIT %s", QUERIES + WARM_UP
        ).fetchall()
        self.targets = self.run("SELECT embedding::text FROM staging ORDER BY id LIMIT %s", QUERIES + WARM_UP).fetchall()

    def create(self, variant, table):
        name = f"{variant.__name__}_{table}"
        self.run(f"CREATE TABLE {name} (id serial, embedding vector(384), {variant.columns})")

    def index(self, variant, table, hnsw=False):
        for index in variant.indexes + (("hnsw (embedding vector_cosine_ops)",) if hnsw else ()):
            self.run(f"CREATE INDEX ON {variant.__name__}_{table} USING {index}")

    def insert(self, variant, table, rows):
        names = ", ".join(column.split()[0] for column in variant.columns.split(", "))
        self.run(
            f"INSERT INTO {variant.__name__}_{table} (embedding, {names})"
            f" SELECT embedding, {variant.sealed} FROM staging WHERE id <= {rows}"
        )

    def insert_time(self, variant, table, rows):
        rows = max(1, rows // variant.share)
        self.run(f"TRUNCATE {variant.__name__}_{table}")
        self.run("CHECKPOINT")
        return timed(lambda: self.insert(variant, table, rows)) / rows

    def query_time(self, variant):
        # The subquery lets pgcrypto decrypt 10 rows only; pgseal's function says itself that it is costly.
        sql = (
            f"SELECT id, {variant.opened} FROM (SELECT id, metadata FROM {variant.__name__}_docs"
            f" WHERE {variant.where} ORDER BY embedding <=> %s::vector LIMIT 10) AS nearest"
        )
        pairs = [(variant.filter(p), q) for (p,), (q,) in zip(self.patients, self.targets)]

        def ask(pairs):
            for pair in pairs:
                self.run(sql, *pair).fetchall()

        ask(pairs[:WARM_UP])
        return timed(lambda: ask(pairs[WARM_UP:])) / max(1, len(pairs) - WARM_UP)

    def scan_time(self, variant, read):
        rows = max(1, self.rows // variant.share)
        sql = f"SELECT count(({variant.opened}){read}) FROM {variant.__name__}_docs WHERE id <= {rows}"
        return timed(lambda: self.run(sql)) / rows

    def measures(self):
        """What is measured, the target for pgseal's ratio, and how."""
        few = max(1, self.rows // 100)
        yield "insert, per row", 1.3, lambda variant: self.insert_time(variant, "sink", self.rows)
        yield f"with HNSW, {few} rows", None, lambda variant: self.insert_time(variant, "sink_hnsw", few)
        yield "filtered query", 1.1, self.query_time
        yield "scan, document", 2.0, lambda variant: self.scan_time(variant, "::text")
        yield "scan, one field", None, lambda variant: self.scan_time(variant, " ->> 'age'")

    def measure(self, measure):
        times = {variant: [] for variant in VARIANTS}
        for number in range(self.rounds + 1):
            for variant in VARIANTS:
                time = measure(variant)
                if number:  # the first round only warms the caches
                    times[variant].append(time)
            print(".", end="", flush=True)
        print(" done")
        return times


def say(text):
    print(text, flush=True)


def interval(values):
    """Median and its 95 % interval by order statistics (binomial, p = 1/2)."""
    ordered, n = sorted(values), len(values)
    low, tail = 0, 0.5**n
    while low + 1 < n / 2 and tail + math.comb(n, low + 1) * 0.5**n <= 0.025:
        low += 1
        tail += math.comb(n, low) * 0.5**n
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def duration(seconds):
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def machine(db):
    model = next((l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    version = db.execute("SHOW server_version").fetchone()[0]
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB memory, PostgreSQL {version}"


def main():
    bench = Bench(int(sys.argv[1]), int(sys.argv[2]))
    say(f"{bench.rows} documents with vector(384), {bench.rounds} rounds")
    bench.load()
    results = []
    for name, target, measure in bench.measures():
        print(f"measuring: {name} ", end="", flush=True)
        results.append((name, target, bench.measure(measure)))

    say(f"\n{machine(bench.db)}\n{NOTES}")
    say(f"{'':24}{'plain':>11}{'pgseal':>11}{'pgcrypto':>11}   {'pgseal/plain':21}{'pgcrypto/plain':24}target for pgseal")
    for name, target, times in results:
        cells = "".join(f"{duration(statistics.median(times[variant])):>11}" for variant in VARIANTS)
        ratios = [interval([a / b for a, b in zip(times[variant], times[Plain])]) for variant in VARIANTS[1:]]
        seal, crypto = (f"{middle:.2f} [{low:.2f}, {high:.2f}]" for middle, low, high in ratios)
        upper = ratios[0][2]
        verdict = f"{upper:.2f} <= {target}: {'met' if upper <= target else 'missed'}" if target else ""
        say(f"{name:24}{cells}   {seal:21}{crypto:24}{verdict}")


if __name__ == "__main__":
    main()
