#!/bin/sh
# cargo-pgrx, of exactly the pgrx crate's version, told where PostgreSQL is.
. "$(dirname -- "$0")/common.sh"

have cargo || die "cargo is missing: install Rust 1.95 or newer, for example with rustup"
version=$(sed -n 's/^pgrx = .*"=\([0-9.]*\)".*/\1/p' "$root/Cargo.toml")
if [ "$(cargo pgrx --version 2> /dev/null)" != "cargo-pgrx $version" ]; then
    say "Installing cargo-pgrx $version under .deps/cargo (about 3 minutes)"
    quietly cargo-pgrx install_tool "cargo-pgrx@$version"
fi

# What "cargo pgrx init" writes, without the clusters that it would make. A newer file would mean building anew, hence the
# lines of other major versions stay.
config=$PGRX_HOME/config.toml
line="pg$(pg_major) = \"$PG_CONFIG\""
if ! grep -qxF "$line" "$config" 2> /dev/null; then
    others=$(grep '^pg' "$config" 2> /dev/null | grep -v "^pg$(pg_major) = " || true)
    printf '[configs]\n%s\n' "$line" > "$config"
    [ -z "$others" ] || printf '%s\n' "$others" >> "$config"
fi
