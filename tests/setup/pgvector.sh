#!/bin/sh
# pgvector: the distribution's package where there is one, else Debian trixie's source package, built here.
. "$(dirname -- "$0")/common.sh"
. "$root/tests/setup/apt.sh"

[ ! -e "$("$PG_CONFIG" --sharedir)/extension/vector.control" ] || exit 0
have apt-get || die "pgvector is missing: install it for the PostgreSQL of $PG_CONFIG"

package=postgresql-$(pg_major)-pgvector
if apt-cache show "$package" > /dev/null 2>&1 && [ "$PG_CONFIG" = "/usr/lib/postgresql/$(pg_major)/bin/pg_config" ]; then
    say "Installing the Debian package $package"
    quietly pgvector as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$package"
    exit 0
fi

work=$deps/pgvector$(pg_major)
say "Building pgvector from Debian trixie's source package, under $work, and installing it"
use_trixie "$work" deb-src
quietly pgvector-source apt-get source -q --only-source pgvector
cd pgvector-*/
quietly pgvector-build make OPTFLAGS= PG_CONFIG="$PG_CONFIG" all
quietly pgvector-install as_owner make OPTFLAGS= PG_CONFIG="$PG_CONFIG" install
