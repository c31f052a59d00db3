#!/bin/sh
# PgBouncer, for the tests, unpacked from Debian's package: installing it would start a service. Prints the program.
. "$(dirname -- "$0")/common.sh"
. "$root/tests/setup/apt.sh"

place=$(servers)/pgbouncer
if [ ! -x "$place/pgbouncer" ]; then
    have apt-get || exit 0
    say "Unpacking PgBouncer from Debian's packages, under $place" >&2
    (
        use_own "$deps/pgbouncer-packages" deb
        # shellcheck disable=SC2046 # one word for each package, whose names differ between releases
        quietly pgbouncer apt-get download -q pgbouncer $(apt-cache depends pgbouncer | sed -n 's/.*Depends: \(libevent\|libc-ares\)/\1/p')
        as_root mkdir -p "$place"
        for package in *.deb; do as_root dpkg-deb -x "$package" "$place"; done
    )
    rm -rf "$deps/pgbouncer-packages"
    # shellcheck disable=SC2016 # of the script that is written
    printf '#!/bin/sh\nLD_LIBRARY_PATH=$(echo "%s"/usr/lib/*-linux-gnu) exec "%s/usr/sbin/pgbouncer" "$@"\n' "$place" "$place" |
        as_root tee "$place/pgbouncer" > /dev/null
    as_root chmod +x "$place/pgbouncer"
    readable "$place"
fi
say "$place/pgbouncer"
