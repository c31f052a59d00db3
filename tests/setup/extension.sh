#!/bin/sh
# Builds pgseal in release mode and installs it into the PostgreSQL of PG_CONFIG.
. "$(dirname -- "$0")/common.sh"

sudo=
[ -w "$("$PG_CONFIG" --pkglibdir)" ] || sudo=--sudo
say "Building pgseal for PostgreSQL $(pg_major) in release mode (several minutes the first time) and installing it"
cd "$root"
cargo pgrx install --release $sudo --pg-config "$PG_CONFIG" --no-default-features --features "pg$(pg_major)"
