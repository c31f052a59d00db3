#!/bin/sh
# The program whose instructions tests/core_counts counts, compiled as the extension is, and valgrind. Prints the program, or
# nothing where there is no valgrind.
. "$(dirname -- "$0")/common.sh"

if ! have valgrind && have apt-get; then
    say "Installing valgrind" >&2
    (
        quietly apt-update as_root apt-get update -q
        quietly apt-install as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends valgrind
    ) || true # without it nothing but this is not tested
fi
if ! have valgrind; then
    say "valgrind is missing: the instructions of the core are not counted" >&2
    exit 0
fi
cd "$root"
say "Building the operations whose instructions are counted (a minute or two the first time)" >&2
quietly core-counts cargo build --profile core-counts --no-default-features --features server-tests --bin core-counts
say "${CARGO_TARGET_DIR:-$root/target}/core-counts/core-counts"
