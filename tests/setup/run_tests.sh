#!/bin/sh
# Runs the core tests and the server tests, and sums up.
. "$(dirname -- "$0")/common.sh"
cd "$root"
tests/setup/released.sh

out=$deps/test.log
: > "$out"
failed=0

# run TITLE CARGO-ARGUMENTS...
run() {
    say "== $1"
    shift
    {
        cargo test --no-fail-fast --no-default-features "$@" 2>&1 || echo "cargo test failed"
    } | tee -a "$out"
}

export PGSEAL_BAO="$deps/openbao/bin/bao" PGSEAL_MOTO="$deps/moto/bin/moto_server" PGSEAL_CLOUDS="$deps/clouds/bin/python"
export PGSEAL_CLIENTS="$deps/clients/bin/python" PGSEAL_NODE="$deps/node/node_modules"
run "Core tests, without PostgreSQL"
run "Tests on real servers" --features server-tests --test kms --test kms_aws --test kms_clouds --test server

! grep -qx 'cargo test failed' "$out" || failed=1
grep -E '^(test .* FAILED|cargo test failed)$' "$out" | sort -u || true
awk '/^test result: / { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$out"
exit $failed
