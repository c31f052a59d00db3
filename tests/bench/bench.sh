#!/bin/sh
# bench.sh SCRIPT ROWS ROUNDS: starts a throwaway cluster, runs that script on it, and removes it.
. "$(dirname -- "$0")/../setup/common.sh"
. "$root/tests/demo/cluster.sh"

script=$1
shift
state=$deps/bench-state
remove_cluster "$state" # of a run that was broken off
rm -rf "$state"
trap 'remove_cluster "$state"; rm -rf "$state"' EXIT
trap 'exit 130' INT TERM

say "Starting a throwaway PostgreSQL cluster"
# All variants get the same: no parallel query, no JIT, no autovacuum, no checkpoint but between the runs.
new_cluster "$state" "shared_buffers = '2GB'" "maintenance_work_mem = '512MB'" "max_wal_size = '32GB'" \
    "checkpoint_timeout = '1h'" "autovacuum = off" "jit = off" "max_parallel_workers_per_gather = 0" \
    "max_parallel_maintenance_workers = 1"
PGSERVICEFILE=$state/service PGSERVICE=demo PGDATABASE=postgres "$deps/bench/bin/python" "$root/tests/bench/$script" "$@"
