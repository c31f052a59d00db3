#!/usr/bin/env python3
"""How long new connections take to decrypt for the first time, and how often they call the KMS: connections.sh starts it."""

import statistics
import sys
import time

import psycopg

preloaded, connections = sys.argv[1], int(sys.argv[2])
times, calls = [], 0
for _ in range(connections):
    with psycopg.connect() as connection:
        start = time.perf_counter()
        connection.execute("SELECT pgseal.decrypt(metadata) FROM docs").fetchone()
        times.append(1000 * (time.perf_counter() - start))
        calls += connection.execute("SELECT kms_calls FROM pgseal.stat").fetchone()[0]
times.sort()
print(
    f"preloaded: {preloaded:7} {connections} connections: median {statistics.median(times):.1f} ms, "
    f"p99 {times[int(0.99 * connections)]:.1f} ms, KMS calls per 1,000 connections: {1000 * calls / connections:.0f}"
)
