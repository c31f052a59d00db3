#!/usr/bin/env python3
"""What rotation costs: rows a second in place and by UPDATE, bloat, and reads meanwhile.  bench.sh starts it.

"fast" has no index on the embeddings, "hnsw" has one; both hold the same encrypted documents, with the vectors as
PostgreSQL puts them.  plain.hnsw is the same with plain jsonb: what an UPDATE costs without pgseal.
"""

import os
import sys
import threading
import time

import psycopg
from bench import Bench, machine, say, timed
from psycopg.types.json import Jsonb

PATIENTS = 100
# So many rows are enough to tell what a row costs where it costs milliseconds.
SLOW_ROWS = 1000

KINDS = {"read": "one row by its id, decrypted", "search": "metadata @> one patient, the 10 nearest, decrypted"}


class Rotation(Bench):
    def load(self):
        self.prepare_staging()
        for table, column, hnsw in (("fast", "encrypted_jsonb(bench)", False), ("hnsw", "encrypted_jsonb(bench)", True), ("plain", "jsonb", True)):
            say(f"loading: {table}")
            self.run(f"CREATE TABLE {table} (id int PRIMARY KEY, embedding vector(384), metadata {column})")
            self.run(f"INSERT INTO {table} SELECT id, embedding, metadata FROM staging")
            self.run(f"CREATE INDEX ON {table} USING gin (metadata {'jsonb_path_ops' if table == 'plain' else ''})")
            if hnsw:
                self.run(f"CREATE INDEX ON {table} USING hnsw (embedding vector_cosine_ops)")
            self.run(f"VACUUM ANALYZE {table}")
        self.patients = [name for (name,) in self.run("SELECT DISTINCT metadata ->> 'patient_name' FROM staging ORDER BY 1 LIMIT %s", PATIENTS)]
        self.target = self.run("SELECT embedding::text FROM staging WHERE id = 1").fetchone()[0]

    def size(self, table):
        return self.run("SELECT pg_table_size(%s), pg_indexes_size(%s)", table, table).fetchone()

    def rotate(self, table, how, rest=""):
        """Rows a second, and how the sizes of table and indexes changed."""
        self.run("SELECT pgseal.rotate_key('bench')")
        self.run("CHECKPOINT")
        before = self.size(table)
        seconds = timed(lambda: self.run(f"CALL pgseal.reencrypt('{table}', 'metadata', rotation => '{how}'{rest})"))
        return self.rows / seconds, self.growth(before, table)

    def growth(self, before, table):
        return ", ".join(f"{name} {100 * (b / a - 1):+.1f} %" for name, a, b in zip(("table", "indexes"), before, self.size(table)))

    def update(self, statement, table, rows):
        """The same for one UPDATE of the first rows; what it does is rolled back, since the next one needs old rows."""
        self.run("CHECKPOINT")
        before = self.size(table)
        with self.db.transaction(force_rollback=True):
            rate = rows / timed(lambda: self.run(f"{statement} WHERE id <= {rows}"))
        return rate, self.growth(before, table)


class Reader(threading.Thread):
    """Asks as long as `more` says so, and keeps how long each answer took."""

    def __init__(self, bench, kind, more):
        super().__init__()
        self.bench, self.kind, self.more, self.times = bench, kind, more, []

    def run(self):
        with psycopg.connect("", autocommit=True, prepare_threshold=1) as db:
            number = 0
            while self.more():
                number += 1
                self.times.append(timed(lambda: self.ask(db, number)))
        del self.times[:20]  # the plan gets cached

    def ask(self, db, number):
        if self.kind == "read":
            row = 1 + number * 7919 % self.bench.rows
            db.execute("SELECT pgseal.decrypt(metadata) FROM hnsw WHERE id = %s", (row,)).fetchall()
            return
        patient = Jsonb({"patient_name": self.bench.patients[number % len(self.bench.patients)]})
        sql = "SELECT pgseal.decrypt(metadata) FROM hnsw WHERE metadata @> %s ORDER BY embedding <=> %s::vector LIMIT 10"
        db.execute(sql, (patient, self.bench.target)).fetchall()


def percentile(times, share):
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def reads(bench, kind, seconds, rotating):
    """Times of one reader, alone or while rotation in place goes on and on."""
    end = time.monotonic() + seconds
    reader = Reader(bench, kind, lambda: time.monotonic() < end)
    reader.start()
    while rotating and time.monotonic() < end:
        bench.run("SELECT pgseal.rotate_key('bench')")
        bench.run("CALL pgseal.reencrypt('hnsw', 'metadata', rotation => 'in_place')")
    reader.join()
    return reader.times


def main():
    rows, rounds = int(sys.argv[1]), int(sys.argv[2])
    bench = Rotation(rows, rounds)
    bench.run("SET client_min_messages = error")
    bench.load()
    slow = min(SLOW_ROWS, rows)

    say(f"\n{machine(bench.db)}, load {os.getloadavg()[0]:.1f}")
    say(f"{rows} documents with vector(384); best of {rounds} for what is in place; UPDATE with HNSW on {slow} rows\n")
    in_place = max(bench.rotate("hnsw", "in_place") for _ in range(rounds))
    bench.run("SELECT pgseal.rotate_key('bench')")
    resealed = "SET metadata = pgseal.reseal(metadata)"
    by_update = bench.update(f"UPDATE hnsw {resealed}", "hnsw", slow)
    plain = bench.update("""UPDATE plain SET metadata = metadata || '{"v": 2}'""", "plain", slow)
    without = bench.rotate("fast", "update")
    results = {
        "rotation in place, with HNSW": in_place,
        "rotation by UPDATE, with HNSW": by_update,
        "plain jsonb, UPDATE, with HNSW": plain,
        "rotation by UPDATE, no HNSW": without,
    }
    for name, (rate, growth) in results.items():
        say(f"{name:32}{rate:>12,.0f} rows/s   {growth}")
    ratio = in_place[0] / by_update[0]
    say(f"in place / by UPDATE, with HNSW: {ratio:.0f}, target 300: {'met' if ratio >= 300 else 'missed'}\n")

    bench.run("CALL pgseal.reencrypt('hnsw', 'metadata', rotation => 'in_place')")
    for kind, what in KINDS.items():
        # By turns, so that what disturbs the machine disturbs both alike.
        alone, beside = [], []
        for _ in range(rounds):
            alone += reads(bench, kind, 2, rotating=False)
            beside += reads(bench, kind, 2, rotating=True)
        a, b = percentile(alone, 0.99), percentile(beside, 0.99)
        verdict = "met" if b <= 1.5 * a else "missed"
        say(f"{what}: p99 {1e3 * a:.2f} ms, while rotating in place without a pause {1e3 * b:.2f} ms, {b / a:.2f} times, target 1.5: {verdict}")


if __name__ == "__main__":
    main()
