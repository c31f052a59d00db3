#!/bin/sh
# run_tests.sh [MAJOR...]: runs all tests, the server tests on PostgreSQL 18 as well, or only those on these versions; sums up.
. "$(dirname -- "$0")/common.sh"
cd "$root"

out=$deps/test.log
: > "$out"
failed=0

# run TITLE CARGO-ARGUMENTS...
run() {
    say "== $1" | tee -a "$out"
    shift
    {
        cargo test --no-fail-fast --no-default-features "$@" 2>&1 || echo "cargo test failed"
    } | tee -a "$out"
}

export PGSEAL_BAO="$deps/openbao/bin/bao" PGSEAL_MOTO="$deps/moto/bin/moto_server" PGSEAL_CLOUDS="$deps/clouds/bin/python"
export PGSEAL_CLIENTS="$deps/clients/bin/python" PGSEAL_IMPORTS="$deps/imports/bin/python" PGSEAL_NODE="$deps/node/node_modules"
PGSEAL_PGBOUNCER=$(tests/setup/pgbouncer.sh)
export PGSEAL_PGBOUNCER

# on_version MAJOR: the server tests on that PostgreSQL, one of the tests' own where it is not the one installed.
on_version() {
    [ "$(pg_major)" = "$1" ] || PG_CONFIG=$("tests/setup/postgresql$1.sh")
    export PG_CONFIG
    tests/setup/released.sh
    run "Server tests on PostgreSQL $1" --features server-tests --test server
}

if [ $# -gt 0 ]; then
    for major in "$@"; do on_version "$major"; done
else
    tests/setup/released.sh
    PGSEAL_CORE_COUNTS=$(tests/setup/core_counts.sh)
    export PGSEAL_CORE_COUNTS
    run "Core tests, without PostgreSQL"
    [ "$(pg_major)" -ge 18 ] || PGSEAL_PG18=$(tests/setup/postgresql18.sh)
    PGSEAL_SUITE=$(tests/setup/postgresql_suite.sh)
    export PGSEAL_PG18 PGSEAL_SUITE
    run "Tests on real servers, PostgreSQL $(pg_major)" --features server-tests --test kms --test kms_aws --test kms_clouds --test server
    [ "$(pg_major)" -ge 18 ] || on_version 18
fi

! grep -qx 'cargo test failed' "$out" || failed=1
[ $failed = 0 ] || grep -E '^(== .*|test .* FAILED|cargo test failed)$' "$out"
awk '/^test result: / { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$out"
exit $failed
