#!/bin/sh
# PostgreSQL's own tests, for the tests of a server that has pgseal preloaded, from the source package of this system's
# PostgreSQL and that of pgvector. Prints their folder, or nothing where there is no such source.
. "$(dirname -- "$0")/common.sh"
. "$root/tests/setup/apt.sh"

suite=$(servers)/suite
have apt-get || exit 0
version=$(dpkg-query -W -f '${Version}' "postgresql-$(pg_major)" 2> /dev/null) || exit 0
[ "$(pg_major)" = 15 ] || exit 0
if [ "$(cat "$suite/version" 2> /dev/null)" != "$version" ]; then
    say "Building the tests of PostgreSQL and pgvector from Debian's source packages, under $suite" >&2
    (
        use_own "$deps/suite-source" deb-src
        # A mirror may know a version that it does not hold: the next older one differs in few tests.
        for each in $(apt-cache showsrc postgresql-15 | sed -n 's/^Version: //p'); do
            ! apt-get source -q --only-source "postgresql-15=$each" > "$deps/suite-source.log" 2>&1 || break
        done
        [ -d postgresql-15-*/src ] || die "no source package of postgresql-15" "All of apt's output is in $deps/suite-source.log"
        cd postgresql-15-*/src/test/regress
        printf 'MODULES = regress\nPGXS = %s\ninclude $(PGXS)\n' "$("$PG_CONFIG" --pgxs)" > suite.mk
        quietly suite-build make -f suite.mk with_llvm=no PG_CONFIG="$PG_CONFIG"
    )
    (
        use_trixie "$deps/suite-pgvector" deb-src
        quietly suite-pgvector apt-get source -q --only-source pgvector
    )
    as_root rm -rf "$suite"
    as_root mkdir -p "$suite"
    as_root cp -R "$deps"/suite-source/postgresql-15-*/src/test/regress "$deps"/suite-source/postgresql-15-*/src/test/isolation "$suite"
    as_root cp -R "$deps"/suite-pgvector/pgvector-*/test "$suite/pgvector"
    say "$version" | as_root tee "$suite/version" > /dev/null
    as_root chmod -R go+rX "$suite"
    rm -rf "$deps/suite-source" "$deps/suite-pgvector"
fi
say "$suite"
