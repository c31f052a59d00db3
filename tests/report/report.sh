#!/bin/sh
# report.sh FILE: audit and evidence of a database as one HTML page. The database is the one that PGHOST, PGDATABASE,
# PGSERVICE and the like name, else the demo's. CANARIES=one,two searches the tables' files for them, after a CHECKPOINT.
. "$(dirname -- "$0")/../setup/common.sh"

file=$1
psql=$("$PG_CONFIG" --bindir)/psql
have python3 || die "python3 is missing: install Python 3.9 or newer"
if [ -z "${PGHOST:-}${PGSERVICE:-}${PGDATABASE:-}" ] && [ -f "$root/.demo/service" ]; then
    export PGSERVICEFILE="$root/.demo/service" PGSERVICE=demo PGDATABASE=demo
fi
collected=$(mktemp)
trap 'rm -f "$collected"' EXIT
"$psql" -XqAt -v ON_ERROR_STOP=1 -v "canaries=${CANARIES:-}" -f "$root/tests/report/collect.sql" > "$collected"
python3 "$root/tests/report/render.py" < "$collected" > "$file"
say "$file"
