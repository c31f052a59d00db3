#!/usr/bin/env python3
"""Nearest neighbours of sealed embeddings next to pgvector's HNSW on plain ones: bench.sh starts it.

vectors.py ROWS ROUNDS [DIM [OUT]]: as text, and as JSON into the file OUT. Each point (a table with its index, and settings)
has a connection of its own, so that plans and caches are warm, and the points take turns at every single query.
"""

import array
import json
import math
import os
import statistics
import sys
from pathlib import Path

import psycopg
from bench import ROOT, Bench, duration, machine, say, timed
from rotation import percentile

EMBEDDINGS = ROOT / ".deps" / "embeddings.f32"  # of embeddings.py
NATIVE = 384  # its dimensions
QUERIES = 200
NEAREST = 10
EXACT_QUERIES = 10
RECALL = 0.98  # at which latencies are compared

SETUP = """
CREATE EXTENSION vector;
CREATE EXTENSION pgseal;
DO $$ BEGIN PERFORM pgseal.create_keyring('bench', searchable => ARRAY['$.cohort']); END $$;
CREATE UNLOGGED TABLE staging (id int PRIMARY KEY, embedding vector({dim}));
CREATE UNLOGGED TABLE query (id int PRIMARY KEY, embedding vector({dim}))
"""

PLAIN = "embedding vector({dim}), metadata jsonb"
SEALED = "embedding encrypted_vector(bench, {dim}), metadata encrypted_jsonb(bench)"
HNSW = "hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)"
IVF = "sealed_ivf (embedding encrypted_vector_cosine_ops) WITH (lists = {lists})"
TABLES = {
    "hnsw": (PLAIN, "gin (metadata jsonb_path_ops)", HNSW),
    "flat": (SEALED, "gin (metadata)", IVF),
    "lists": (SEALED, "gin (metadata)", IVF),
}

NOTES = """\
Latency at the client and processor time of the backend (schedstat), medians and 95th percentiles of single queries; warm, one
client, no parallel query. HNSW: m = 16, ef_construction = 64. recall@10 against pgvector's exact scan of the same rows.
insert: INSERT ... SELECT of a 50th of the rows into the table with its vector index alone, and into one without it; processor
time and WAL of a row, no checkpoint before. Build: CREATE INDEX, time at the client.
"""

INDEX_ONLY, SORT_ONLY = ("enable_seqscan", "enable_bitmapscan", "enable_sort"), ("enable_indexscan", "enable_seqscan")
EXACT = ("enable_indexscan", "enable_bitmapscan")
WHERE = """ WHERE metadata @> '{"cohort": 3}'"""  # one row in ten


def processor_time(db):
    """Of its backend; unknown where the kernel does not tell."""
    schedstat = Path(f"/proc/{db.info.backend_pid}/schedstat")
    return int(schedstat.read_text().split()[0]) / 1e9 if schedstat.exists() else math.nan


class Point:
    """A table asked with some settings: its answers and how long they took."""

    def __init__(self, table, settings, off=INDEX_ONLY, where="", name=None):
        self.table, self.settings, self.where = table, settings, where
        self.name = name or " ".join(f"{key.split('.')[1]}={value}" for key, value in settings.items()) or "defaults"
        self.db = psycopg.connect("", autocommit=True, prepare_threshold=1)
        for key, value in {**settings, **dict.fromkeys(off, "off"), "plan_cache_mode": "force_generic_plan"}.items():
            self.db.execute(f"SET {key} = {value}")
        self.answers, self.times, self.cpu = {}, [], []

    def ask(self, number):
        target = "(SELECT embedding FROM query WHERE id = %s)"
        sql = f"SELECT id FROM {self.table}{self.where} ORDER BY embedding <=> {target} LIMIT {NEAREST}"
        before = processor_time(self.db)
        rows = []
        self.times.append(timed(lambda: rows.extend(self.db.execute(sql, (number,)).fetchall())))
        self.cpu.append(processor_time(self.db) - before)
        self.answers[number] = {id for (id,) in rows}

    def recall(self, truth):
        return statistics.mean(len(found & truth[number]) / NEAREST for number, found in self.answers.items())

    def summary(self, truth):
        return {
            "table": self.table,
            "settings": self.name,
            "recall": self.recall(truth),
            "median": statistics.median(self.times),
            "p95": percentile(self.times, 0.95),
            "cpu": statistics.median(self.cpu),
            "cpu_p95": percentile(self.cpu, 0.95),
        }


def default_lists(rows):
    """What the index chooses by itself from 50,000 rows on; below, it would be flat."""
    return "-1" if rows >= 50_000 else str(min(max(2 * int(rows**0.5), rows // 500), rows // 140))


def points():
    for ef in (20, 40, 60, 80, 100, 150, 200):
        yield Point("hnsw", {"hnsw.ef_search": ef})
    yield Point("lists", {})
    for patience in (2, 4, 8, 16, 48, 96):
        yield Point("lists", {"pgseal.ivf_patience": patience})
    for patience in (4, 8, 24):
        for epsilon in (1.0, 1.4, 2.5):
            yield Point("lists", {"pgseal.ivf_patience": patience, "pgseal.ivf_epsilon": epsilon})
    yield Point("flat", {})
    for epsilon in (0.6, 1.0, 1.4, 2.5):
        yield Point("flat", {"pgseal.ivf_epsilon": epsilon})


def filters():
    for ef in (40, 100):
        settings = {"hnsw.ef_search": ef, "hnsw.iterative_scan": "strict_order"}
        yield Point("hnsw", settings, where=WHERE, name=f"iterative, ef_search={ef}")
    for table in ("lists", "flat"):
        yield Point(table, {}, where=WHERE, name="sealed_ivf, defaults")
    for table in ("hnsw", "lists"):
        yield Point(table, {}, SORT_ONLY, WHERE, "GIN, then sort")


def at_recall(found, field, recall=RECALL):
    """The least time that gives this recall, with a line between each two points."""
    better = [p for p in found if p["recall"] >= recall]
    worse = [p for p in found if p["recall"] < recall]
    reached = [p[field] for p in better]
    for a in worse:
        for b in better:
            share = (recall - a["recall"]) / (b["recall"] - a["recall"])
            reached.append(a[field] + share * (b[field] - a[field]))
    return min(reached, default=None)


class Vectors(Bench):
    def __init__(self, rows, rounds, dim):
        super().__init__(rows, rounds)
        self.dim, self.setup = dim, SETUP.format(dim=dim)
        self.new = max(1, rows // 50)  # rows that come when the index is there

    def load(self):
        for statement in filter(str.strip, self.setup.split(";\n")):
            self.run(statement)
        with EMBEDDINGS.open("rb") as source:
            self.copy("query", source, QUERIES)
            self.copy("staging", source, self.rows + self.new)
        self.run("VACUUM ANALYZE staging, query")
        return [self.build(table, *parts) for table, parts in TABLES.items()]

    def copy(self, table, source, rows):
        """More dimensions than there are: the embedding again and again, which leaves all angles as they are."""
        with self.db.cursor().copy(f"COPY {table} FROM STDIN") as copy:
            for number in range(rows):
                row = array.array("f", source.read(4 * NATIVE))
                if len(row) < NATIVE:
                    sys.exit(f"{EMBEDDINGS} has too few rows: remove it, and give embeddings.py more")
                row *= -(-self.dim // NATIVE)
                copy.write_row((number, "[" + ",".join(f"{x:.9g}" for x in row[: self.dim]) + "]"))

    def build(self, table, columns, gin, index):
        say(f"loading: {table}")
        lists = {"flat": "0", "lists": default_lists(self.rows)}.get(table)
        self.run(f"CREATE TABLE {table} (id int, {columns.format(dim=self.dim)})")
        self.run(self.insertion(table, 0, self.rows))
        self.run(f"CREATE INDEX {table}_gin ON {table} USING {gin}")
        seconds = timed(lambda: self.run(f"CREATE INDEX {table}_index ON {table} USING {index.format(lists=lists)}"))
        self.run(f"VACUUM ANALYZE {table}")
        size = self.run(f"SELECT pg_relation_size('{table}_index')").fetchone()[0]
        return {"table": table, "build": seconds, "bytes": size}

    def insertion(self, table, start, end):
        metadata = """jsonb_build_object('cohort', id % 10)"""
        return f"INSERT INTO {table} SELECT id, embedding, {metadata} FROM staging WHERE id >= {start} AND id < {end} ORDER BY id"

    def truth(self, where=""):
        exact = Point("hnsw", {}, EXACT, where, "exact scan")
        for number in range(QUERIES):
            exact.ask(number)
        return exact.answers

    def measure(self, points, truth, queries=QUERIES):
        """Every point takes its turn at every query; the first round only warms the caches."""
        points = list(points)
        for number in range(self.rounds + 1):
            for point in points:
                if number <= 1:
                    point.times, point.cpu = [], []
            for query in range(queries):
                for point in points:
                    point.ask(query)
            print(".", end="", flush=True)
        print(" done")
        return [point.summary(truth) for point in points]

    def insert_costs(self):
        """Processor time and WAL of a row, in all and beyond the table's own; no checkpoint comes between."""
        sums = {}
        for table, (columns, _, _) in TABLES.items():
            self.run(f"DROP INDEX {table}_gin")
            self.run(f"CREATE TABLE {table}_bare (id int, {columns.format(dim=self.dim)})")
            sums[table] = tuple(a for name in (table, f"{table}_bare") for a in self.insert_cost(name))
        return [dict(zip(("table", "insert", "wal", "bare", "bare_wal"), (table, *cost))) for table, cost in sums.items()]

    def insert_cost(self, table):
        lsn = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        start = self.run(lsn).fetchone()[0]
        before = processor_time(self.db)
        self.run(self.insertion(table, self.rows, self.rows + self.new))
        return (processor_time(self.db) - before) / self.new, float(self.run(lsn).fetchone()[0] - start) / self.new


def show_points(title, found):
    say(f"\n{title:44}{'recall':>8}{'median':>11}{'p95':>11}{'processor':>12}{'p95':>11}")
    for p in found:
        widths = {"median": 11, "p95": 11, "cpu": 12, "cpu_p95": 11}
        cells = "".join(f"{duration(p[key]):>{width}}" for key, width in widths.items())
        say(f"{p['table']:6}{p['settings']:38}{p['recall']:>8.3f}{cells}")


def verdict(name, value, target):
    if value is None:
        return say(f"{name:64}no point reaches it")
    against = f" <= {target}: {'met' if value <= target else 'missed'}" if target else ""
    say(f"{name:64}{value:>8.3f}{against}")


def ratio(a, b):
    return None if a is None or b is None else a / b


def show_verdicts(results):
    """As ratios to pgvector's HNSW, which a busy machine changes less than times."""
    of = lambda kind: {row["table"]: row for row in results[kind]}
    sizes, inserts = of("builds"), of("inserts")
    reached = {
        (table, field): at_recall([p for p in results["points"] if p["table"] == table], field)
        for table in TABLES
        for field in ("median", "cpu")
    }
    say("")
    for table, target in (("lists", 1.0), ("flat", 5.0)):
        for field, what in (("median", "latency"), ("cpu", "processor time")):
            value = ratio(reached[table, field], reached["hnsw", field])
            verdict(f"{table} / HNSW, {what} at recall {RECALL}", value, target)
    for table in ("lists", "flat"):
        verdict(f"{table} / HNSW, build", sizes[table]["build"] / sizes["hnsw"]["build"], 0.15)
        verdict(f"{table} / HNSW, size", sizes[table]["bytes"] / sizes["hnsw"]["bytes"], 0.06)
        verdict(f"{table} / HNSW, insert, processor time", inserts[table]["insert"] / inserts["hnsw"]["insert"], 0.1)
        verdict(f"{table} / HNSW, WAL of an insert", inserts[table]["wal"] / inserts["hnsw"]["wal"], None)
    plain, sealed = (p["cpu"] for p in results["exact"])
    verdict("exact scan, sealed / plain, processor time", sealed / plain, 1.2)


def main():
    rows, rounds = int(sys.argv[1]), int(sys.argv[2])
    dim = int(sys.argv[3]) if len(sys.argv) > 3 else NATIVE
    bench = Vectors(rows, rounds, dim)
    say(f"{rows} embeddings of {dim} dimensions, {rounds} rounds of {QUERIES} queries")
    results = {"rows": rows, "dimensions": dim, "builds": bench.load()}
    truth, filtered = bench.truth(), bench.truth(WHERE)
    results["points"] = bench.measure(points(), truth)
    results["filters"] = bench.measure(filters(), filtered, QUERIES // 4)
    exact = (Point(table, {}, EXACT, name="exact scan") for table in ("hnsw", "flat"))
    results["exact"] = bench.measure(exact, truth, EXACT_QUERIES)
    results["inserts"] = bench.insert_costs()
    results["machine"] = f"{machine(bench.db)}, load {os.getloadavg()[0]:.1f}"

    say(f"\n{results['machine']}\n{NOTES}")
    say(f"{'':8}{'build':>11}{'index':>12}{'of a row':>10}{'insert':>12}{'table alone':>13}{'WAL':>9}{'table alone':>13}")
    for size, cost in zip(results["builds"], results["inserts"]):
        say(
            f"{size['table']:8}{duration(size['build']):>11}{size['bytes'] / 2**20:>8.1f} MiB{size['bytes'] / rows:>8.0f} B"
            f"{duration(cost['insert']):>12}{duration(cost['bare']):>13}{cost['wal']:>7.0f} B{cost['bare_wal']:>11.0f} B"
        )
    show_points("nearest 10", results["points"])
    show_points("nearest 10 of a filter that 1 row in 10 passes", results["filters"])
    show_points("exact scans", results["exact"])
    show_verdicts(results)
    if len(sys.argv) > 4:
        Path(sys.argv[4]).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
