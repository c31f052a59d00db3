#!/usr/bin/env python3
"""What rotation and migration cost: rows a second, bloat, and reads meanwhile.  bench.sh starts it.

All tables hold the same documents.  How much an HNSW index costs an UPDATE depends on its vectors, so that there are
two such tables: with those of the documents, which resemble each other, and with random ones.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psycopg
from bench import Bench, machine, say, timed
from psycopg.types.json import Jsonb

PATIENTS = 100
# So many rows are enough to tell what a row costs where it costs milliseconds.
SLOW_ROWS = 1000

SEALED = "encrypted_jsonb(bench)"
HNSW = "hnsw (embedding vector_cosine_ops)"
RANDOM = "(SELECT array_agg(random() - 0.5) FROM generate_series(1, 384 + 0 * id))::vector"
TABLES = {
    "fast": (SEALED, "embedding", ["gin (metadata)"]),
    "hnsw": (SEALED, "embedding", ["gin (metadata)", HNSW]),
    "plain": ("jsonb", "embedding", ["gin (metadata jsonb_path_ops)", HNSW]),
    "random": (SEALED, RANDOM, ["gin (metadata)", HNSW]),
}

CLIENTS = 8
# What they ask, and how many times as long as without rotation their p99 may take at a gentle pace.
SCRIPTS = {
    "read": "\\set id random(1, {rows})\nSELECT pgseal.decrypt(metadata) FROM hnsw WHERE id = :id;\n",
    "search": "SELECT pgseal.decrypt(metadata) FROM hnsw WHERE metadata @> '{filter}' ORDER BY embedding <=> '{target}' LIMIT 10;\n",
}
TARGETS = {"in_place": 1.2, "update": 1.5}

KINDS = {"read": "one row by its id, decrypted", "search": "metadata @> one patient, the 10 nearest, decrypted"}


def reencrypt(table, how, pace):
    return f"CALL pgseal.reencrypt('{table}', 'metadata', rotation => '{how}', pace => '{pace}')"


class Rotation(Bench):
    def load(self, tables):
        self.prepare_staging()
        for table in tables:
            column, embedding, indexes = TABLES[table]
            say(f"loading: {table}")
            self.run(f"CREATE TABLE {table} (id int PRIMARY KEY, embedding vector(384), metadata {column})")
            self.run(f"INSERT INTO {table} SELECT id, {embedding}, metadata FROM staging")
            for index in indexes:
                self.run(f"CREATE INDEX ON {table} USING {index}")
            self.run(f"VACUUM ANALYZE {table}")
        names = self.run("SELECT DISTINCT metadata ->> 'patient_name' FROM staging ORDER BY 1 LIMIT %s", PATIENTS)
        self.patients = [name for (name,) in names]
        self.target = self.run("SELECT embedding::text FROM staging WHERE id = 1").fetchone()[0]

    def size(self, table):
        return self.run("SELECT pg_table_size(%s), pg_indexes_size(%s)", table, table).fetchone()

    def rotate(self, table, how, pace="full"):
        """Rows a second, and how the sizes of table and indexes changed."""
        self.run("SELECT pgseal.rotate_key('bench')")
        self.run("CHECKPOINT")
        before = self.size(table)
        seconds = timed(lambda: self.run(reencrypt(table, how, pace)))
        return self.rows / seconds, self.growth(before, table)

    def growth(self, before, table):
        sizes = zip(("table", "indexes"), before, self.size(table))
        return ", ".join(f"{name} {100 * (b / a - 1):+.1f} %" for name, a, b in sizes)

    def update(self, table, change):
        """The same for an UPDATE of some rows, which is rolled back: the next one needs rows that are as they were."""
        some = min(SLOW_ROWS, self.rows)
        self.run("CHECKPOINT")
        before = self.size(table)
        with self.db.transaction(force_rollback=True):
            where = f"id % {self.rows // some} = 0"
            seconds = timed(lambda: self.run(f"UPDATE {table} SET metadata = {change} WHERE {where}"))
        return some / seconds, self.growth(before, table)


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


def reads(bench, kind, seconds, meanwhile):
    """Times of one reader while `meanwhile` is done again and again."""
    end = time.monotonic() + seconds
    reader = Reader(bench, kind, lambda: time.monotonic() < end)
    reader.start()
    while time.monotonic() < end:
        meanwhile(bench)
    reader.join()
    return reader.times


def rotate_in_place(bench):
    bench.run("SELECT pgseal.rotate_key('bench')")
    bench.run(reencrypt("hnsw", "in_place", "full"))


# What another busy session costs on this machine, whatever it does, is no cost of rotation.
MEANWHILE = {
    "nothing": lambda bench: time.sleep(0.1),
    "rotation in place without a pause": rotate_in_place,
    "a session decrypting another table": lambda bench: bench.run("SELECT count(pgseal.decrypt(metadata)) FROM fast"),
}


def report_rates(bench, rounds):
    reseal, change = "pgseal.reseal(metadata)", """metadata || '{"v": 2}'"""
    in_place = {table: max(bench.rotate(table, "in_place") for _ in range(rounds)) for table in ("hnsw", "random")}
    bench.run("SELECT pgseal.rotate_key('bench')")
    by_update = {table: bench.update(table, reseal) for table in ("hnsw", "random")}
    plain = bench.update("plain", change)
    results = {
        "rotation in place, HNSW": in_place["hnsw"],
        f"rotation by UPDATE, HNSW, {SLOW_ROWS} rows": by_update["hnsw"],
        "rotation in place, HNSW, random": in_place["random"],
        f"rotation by UPDATE, HNSW, random, {SLOW_ROWS} rows": by_update["random"],
        f"plain jsonb, UPDATE, HNSW, {SLOW_ROWS} rows": plain,
        "rotation by UPDATE, no HNSW": bench.rotate("fast", "update"),
    }
    for name, (rate, growth) in results.items():
        say(f"{name:48}{rate:>10,.0f} rows/s   {growth}")
    for table in in_place:
        ratio = in_place[table][0] / by_update[table][0]
        say(f"in place / by UPDATE, {table}: {ratio:.0f}, target 300: {'met' if ratio >= 300 else 'missed'}")


def report_idle(bench):
    """What a gentle pace costs where nobody else works."""
    for table, how in (("hnsw", "in_place"), ("fast", "update")):
        gentle, full = (bench.rotate(table, how, pace)[0] for pace in ("gentle", "full"))
        say(f"{f'{how}, gentle / full, nobody else works':48}{gentle:>10,.0f} / {full:,.0f} rows/s, {gentle / full:.2f}")


def report_migration(bench):
    """encrypt_column and decrypt_column, whose UPDATE an HNSW index makes slow, and verify."""
    some = min(5 * SLOW_ROWS, bench.rows)
    for name, rows, indexes in (("no HNSW", bench.rows, []), ("HNSW", some, [HNSW])):
        bench.run("DROP TABLE IF EXISTS moving")
        bench.run("CREATE TABLE moving (id int PRIMARY KEY, embedding vector(384), metadata jsonb)")
        bench.run(f"INSERT INTO moving SELECT id, embedding, metadata FROM staging LIMIT {rows}")
        for index in indexes:
            bench.run(f"CREATE INDEX ON moving USING {index}")
        bench.run("VACUUM ANALYZE moving")
        steps = {
            "plain jsonb, UPDATE": "UPDATE moving SET metadata = metadata || '{\"v\": 2}'",
            "encrypt_column": "CALL pgseal.encrypt_column('moving', 'metadata', keyring => 'bench')",
            "verify": "SELECT count(*) FROM pgseal.verify('moving', 'metadata')",
            "decrypt_column": "CALL pgseal.decrypt_column('moving', 'metadata')",
        }
        for step, sql in steps.items():
            rate = rows / timed(lambda: bench.run(sql))
            say(f"{f'{step}, {name}, {rows} rows':48}{rate:>10,.0f} rows/s")


def report_reads(bench, rounds):
    for kind, what in KINDS.items():
        times = {name: [] for name in MEANWHILE}
        # By turns, so that what disturbs the machine disturbs all alike.
        for _ in range(rounds):
            for name, meanwhile in MEANWHILE.items():
                times[name] += reads(bench, kind, 2, meanwhile)
        say(f"\n{what}; meanwhile:")
        alone = percentile(times["nothing"], 0.99)
        for name, taken in times.items():
            p99 = percentile(taken, 0.99)
            say(f"  {name:36} median {1e3 * percentile(taken, 0.5):.2f} ms, p99 {1e3 * p99:.2f} ms, {p99 / alone:.2f} times")
        ratio = percentile(times["rotation in place without a pause"], 0.99) / alone
        say(f"  target 1.5 times: {'met' if ratio <= 1.5 else 'missed'}")


class Rotating(threading.Thread):
    """Rotates again and again until told to stop; counts rows."""

    def __init__(self, bench, how, pace):
        super().__init__()
        self.bench, self.call, self.rows = bench, reencrypt("hnsw", how, pace), 0
        self.db = psycopg.connect("", autocommit=True)
        self.stopped = False

    def run(self):
        self.db.execute("SET client_min_messages = error")
        with contextlib.suppress(psycopg.errors.QueryCanceled):
            while not self.stopped:
                self.db.execute("SELECT pgseal.rotate_key('bench')")
                self.db.execute(self.call)
                self.rows += self.bench.rows

    def stop(self):
        self.stopped = True
        self.db.cancel()
        self.join()
        self.db.close()
        self.rows += self.bench.run("SELECT coalesce(sum(rows_done), 0)::int FROM pgseal.rotation_progress WHERE state = 'interrupted'").fetchone()[0]


def scripts(bench, kind, folder):
    """For pgbench, whose variables are numbers: a script for each patient."""
    for number, name in enumerate(bench.patients[:20] if kind == "search" else [""]):
        patient = json.dumps({"patient_name": name}).replace("'", "''")
        script = Path(folder, f"script{number}")
        script.write_text(SCRIPTS[kind].format(rows=bench.rows, filter=patient, target=bench.target))
        yield f"--file={script}"


def many_reads(bench, kind, seconds):
    """Times of what many clients ask all the time."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["pgbench", "-n", "-M", "prepared", "-c", f"{CLIENTS}", "-j", "2", "-T", f"{seconds}", *scripts(bench, kind, folder)]
        command += ["--log", f"--log-prefix={folder}/log"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = (line for log in Path(folder).glob("log*") for line in log.read_text().splitlines())
        return [int(line.split()[2]) / 1e6 for line in lines]


def reads_beside(bench, kind, seconds, how):
    """The same while a rotation goes on, and how many rows that renewed."""
    if how is None:
        return many_reads(bench, kind, seconds), 0
    rotating = Rotating(bench, *how)
    rotating.start()
    times = many_reads(bench, kind, seconds)
    rotating.stop()
    # What is left of the run, and of the row versions that it made, is nothing to what is measured next.
    bench.run(reencrypt("hnsw", "in_place", "full"))
    bench.run("VACUUM hnsw")
    return times, rotating.rows


def report_pace(bench, rounds):
    """What eight clients notice of a rotation, at either pace."""
    beside = [None, *((how, pace) for how in TARGETS for pace in ("gentle", "full"))]
    for kind in SCRIPTS:
        times, rows, seconds = {how: [] for how in beside}, dict.fromkeys(beside, 0), 8
        for _ in range(rounds):
            for how in beside:
                taken, renewed = reads_beside(bench, kind, seconds, how)
                times[how] += taken
                rows[how] += renewed
        say(f"\n{KINDS[kind]}; {CLIENTS} clients all the time; meanwhile:")
        alone = [percentile(times[None], share) for share in (0.5, 0.99)]
        for how, taken in times.items():
            p50, p99 = (percentile(taken, share) for share in (0.5, 0.99))
            name = "no rotation" if how is None else ", ".join(how)
            target = TARGETS[how[0]] if how and how[1] == "gentle" else None
            verdict = f", target {target}: {'met' if p99 <= target * alone[1] else 'missed'}" if target else ""
            say(f"  {name:20} median {1e3 * p50:.2f} ms ({p50 / alone[0]:.2f}), p99 {1e3 * p99:.2f} ms ({p99 / alone[1]:.2f})"
                f"   {rows[how] / rounds / seconds:>8,.0f} rows/s{verdict}")


def main():
    rows, rounds = int(sys.argv[1]), int(sys.argv[2])
    bench = Rotation(rows, rounds)
    bench.run("SET client_min_messages = error")
    only_pace = sys.argv[3:] == ["pace"]
    bench.load(["fast", "hnsw"] if only_pace else TABLES)
    say(f"\n{machine(bench.db)}, load {os.getloadavg()[0]:.1f}")
    say(f"{rows} documents with vector(384), best of {rounds} in place\n")
    if only_pace:
        report_idle(bench)
        report_pace(bench, rounds)
        return
    report_rates(bench, rounds)
    report_idle(bench)
    say("")
    report_migration(bench)
    bench.run(reencrypt("hnsw", "in_place", "full"))
    report_reads(bench, rounds)
    report_pace(bench, rounds)


if __name__ == "__main__":
    main()
