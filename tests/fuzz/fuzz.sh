#!/bin/sh
# fuzz.sh SECONDS [TARGET...]: runs each target, or these, for so long; what is found is kept under .deps/fuzz. Ends with a summary.
. "$(dirname -- "$0")/../setup/common.sh"
cd "$root/tests/fuzz"

seconds=$1
shift
[ $# -gt 0 ] || set -- $(cd targets && echo *.rs)
# The sanitizer is an option that a stable compiler has, but does not offer.
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}/fuzz"
quietly fuzz-build cargo fuzz build --fuzz-dir .

failed=0
for target; do
    target=${target%.rs}
    found=$deps/fuzz/$target
    mkdir -p "$found/corpus"
    # Inputs that reach something new go to the first folder, the second is only read.
    if cargo fuzz run --fuzz-dir . "$target" "$found/corpus" "corpus/$target" -- -max_total_time="$seconds" -max_len=4096 \
        -timeout=20 -rss_limit_mb=4096 -artifact_prefix="$found/" -print_final_stats=1 > "$found/log" 2>&1; then
        say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$found/log") inputs, none that fails"
    else
        failed=$((failed + 1))
        tail -n 40 "$found/log" >&2
        say "$target: FAILED, see $found"
    fi
done
say "$(($# - failed)) passed, $failed failed"
[ $failed = 0 ]
