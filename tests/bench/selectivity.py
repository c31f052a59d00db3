#!/usr/bin/env python3
"""Filtered nearest-neighbour queries at six selectivities, next to plain jsonb: bench.sh starts it.

One table holds each document twice, as jsonb and encrypted, beside one vector: both are asked with the same
rows in the same order and the same graph of one HNSW index, and differ in their GIN index alone.  The planner
chooses.  The two take turns in every round, as in bench.py.
"""

import json
import statistics
import sys

from bench import Bench, duration, interval, machine, say, timed

SHARES = (0.00001, 0.0001, 0.001, 0.01, 0.1, 0.5)
QUERIES = 10  # in a round, for each selectivity


class Plain:
    column = "plain"
    opened = "plain"


class Pgseal:
    column = "sealed"
    opened = "pgseal.decrypt(sealed)"


VARIANTS = (Plain, Pgseal)

# Each row belongs to one cohort at most; which, has nothing to do with its embedding.
SETUP = """
CREATE EXTENSION vector;
CREATE EXTENSION pgseal;
CREATE UNLOGGED TABLE staging (id int GENERATED ALWAYS AS IDENTITY, embedding vector(384), metadata jsonb);
DO $$ BEGIN PERFORM pgseal.create_keyring('bench', searchable => ARRAY['$.patient_name', '$.diagnosis', '$.cohort']); END $$;
"""

TABLE = """
CREATE TABLE docs (id serial, embedding vector(384), plain jsonb, sealed encrypted_jsonb(bench));
INSERT INTO docs (embedding, plain, sealed) SELECT embedding, metadata, metadata FROM staging;
CREATE INDEX plain_idx ON docs USING gin (plain jsonb_path_ops);
CREATE INDEX sealed_idx ON docs USING gin (sealed);
CREATE INDEX embedding_idx ON docs USING hnsw (embedding vector_cosine_ops);
VACUUM ANALYZE docs;
SET plan_cache_mode = force_custom_plan;
SET hnsw.iterative_scan = strict_order;
"""

NOTES = """\
Latency at the client of: column @> one cohort, ORDER BY embedding <=> q LIMIT 10, the documents decrypted. Each query is planned
anew with its constants. hnsw.iterative_scan = strict_order for both. "other plan": pgseal's best time where the plan that
it takes is forbidden. Planning: EXPLAIN's own figure.
"""


class Selectivity(Bench):
    setup = SETUP

    def cohorts(self):
        bounds, start = [], 0
        for share in SHARES:
            count = max(1, round(self.rows * share))
            bounds.append(f"WHEN place > {start} AND place <= {start + count} THEN 'c{share}'")
            start += count
        self.run(
            f"UPDATE staging SET metadata = metadata || jsonb_build_object('cohort', CASE {' '.join(bounds)} ELSE 'rest ' || place END)"
            " FROM (SELECT id AS i, row_number() OVER (ORDER BY md5(id::text)) AS place FROM staging) p WHERE i = id"
        )

    def load(self):
        self.prepare_staging()
        self.cohorts()
        say("loading, with an HNSW index")
        for statement in filter(str.strip, TABLE.split(";\n")):
            self.run(statement)
        sample = "SELECT embedding::text FROM staging ORDER BY md5(id::text || 'query') LIMIT %s"
        self.targets = [target for (target,) in self.run(sample, QUERIES).fetchall()]

    def query(self, variant, share, target):
        cohort = json.dumps({"cohort": f"c{share}"})
        return (
            f"SELECT id, {variant.opened} FROM docs WHERE {variant.column} @> '{cohort}'"
            f" ORDER BY embedding <=> '{target}' LIMIT 10"
        )

    def latency(self, variant, share):
        def ask():
            for target in self.targets:
                self.db.execute(self.query(variant, share, target), prepare=False).fetchall()

        return timed(ask) / len(self.targets)

    def explain(self, variant, share, options=""):
        sql = f"EXPLAIN (FORMAT JSON, SUMMARY{options}) {self.query(variant, share, self.targets[0])}"
        return self.db.execute(sql, prepare=False).fetchone()[0][0]

    def plan(self, variant, share):
        text = json.dumps(self.explain(variant, share))
        if "Bitmap Index Scan" in text:
            return "GIN"
        return "HNSW" if "embedding_idx" in text else "scan"

    def planning(self, variant, share):
        return statistics.median(self.explain(variant, share)["Planning Time"] for _ in range(20)) / 1e3

    def other_plan(self, share):
        forbidden = {"GIN": "enable_bitmapscan", "HNSW": "enable_indexscan"}.get(self.plan(Pgseal, share), "enable_seqscan")
        self.run(f"SET {forbidden} = off")
        found = self.plan(Pgseal, share), min(self.latency(Pgseal, share) for _ in range(3))
        self.run(f"RESET {forbidden}")
        return found

    def estimate(self, share):
        sql = f"""EXPLAIN (FORMAT JSON) SELECT FROM docs WHERE sealed @> '{{"cohort": "c{share}"}}'"""
        return self.db.execute(sql, prepare=False).fetchone()[0][0]["Plan"]["Plan Rows"]


def main():
    bench = Selectivity(int(sys.argv[1]), int(sys.argv[2]))
    say(f"{bench.rows} documents with vector(384), {bench.rounds} rounds, six selectivities")
    bench.load()
    say(f"\n{machine(bench.db)}\n{NOTES}")
    say(f"{'share':>9}{'estimate':>10}{'plan':>12}{'plain':>11}{'pgseal':>11}   {'pgseal/plain':21}{'other plan':>17}  {'planning, ratio':}")
    ratios = []
    for share in SHARES:
        times = {variant: [] for variant in VARIANTS}
        for number in range(bench.rounds + 1):
            for variant in VARIANTS:
                time = bench.latency(variant, share)
                if number:  # the first round only warms the caches
                    times[variant].append(time)
        middle, low, high = interval([a / b for a, b in zip(times[Pgseal], times[Plain])])
        ratios.append(middle)
        plans = "/".join(bench.plan(variant, share) for variant in VARIANTS)
        cells = "".join(f"{duration(statistics.median(times[variant])):>11}" for variant in VARIANTS)
        other, other_time = bench.other_plan(share)
        planning = {variant: bench.planning(variant, share) for variant in VARIANTS}
        ratio = planning[Pgseal] / planning[Plain]
        say(
            f"{share:>9.3%}{bench.estimate(share):>10}{plans:>12}{cells}   {f'{middle:.2f} [{low:.2f}, {high:.2f}]':21}"
            f"{f'{other} {duration(other_time)}':>17}  {duration(planning[Plain])}, {ratio:.2f}"
        )
    mean = statistics.geometric_mean(ratios)
    say(f"geometric mean of the ratios {mean:.2f}, target 1.0: {'met' if mean <= 1 else 'missed'}")
    say(f"largest ratio {max(ratios):.2f}, target 1.1: {'met' if max(ratios) <= 1.1 else 'missed'}")


if __name__ == "__main__":
    main()
