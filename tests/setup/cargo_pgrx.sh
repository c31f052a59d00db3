#!/bin/sh
# cargo-pgrx, of exactly the pgrx crate's version, told where PostgreSQL is.
. "$(dirname -- "$0")/common.sh"

have cargo || die "cargo is missing: install Rust 1.95 or newer, for example with rustup"
version=$(sed -n 's/^pgrx = .*"=\([0-9.]*\)".*/\1/p' "$root/Cargo.toml")
if [ "$(cargo pgrx --version 2> /dev/null)" != "cargo-pgrx $version" ]; then
    say "Installing cargo-pgrx $version under .deps/cargo (about 3 minutes)"
    quietly cargo-pgrx install_tool "cargo-pgrx@$version"
fi

# What "cargo pgrx init" writes, without the cluster that it would make. A newer file would mean building anew.
config=$(printf '[configs]\npg%s = "%s"' "$(pg_major)" "$PG_CONFIG")
[ "$(cat "$PGRX_HOME/config.toml" 2> /dev/null)" = "$config" ] || printf '%s\n' "$config" > "$PGRX_HOME/config.toml"
