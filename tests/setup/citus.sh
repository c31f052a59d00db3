#!/bin/sh
# Citus 13.2.2 in a copy of this system's PostgreSQL 15, for the tests of distributed tables. Prints the copy's pg_config, or
# nothing where it cannot be built. CITUS_SOURCE: another git repository to take it from.
. "$(dirname -- "$0")/common.sh"
. "$root/tests/setup/apt.sh"

source=${CITUS_SOURCE:-https://github.com/citusdata/citus}
place=$(servers)/citus
copy=$place/lib/postgresql/15/bin/pg_config
if [ ! -e "$place/share/postgresql/15/extension/citus.control" ]; then
    if [ "$PG_CONFIG" != /usr/lib/postgresql/15/bin/pg_config ] || ! have apt-get; then
        say "Citus is not built: it is for Debian's PostgreSQL 15" >&2
        exit 0
    fi
    rm -rf "$deps/citus-source"
    if ! git clone -q --depth 1 --branch v13.2.2 "$source" "$deps/citus-source" 2> "$deps/citus-clone.log"; then
        say "Citus is not built: its source cannot be had from $source" >&2
        exit 0
    fi
    say "Building Citus from its source into a copy of PostgreSQL 15, under $place (1 minute)" >&2
    as_root rm -rf "$place"
    as_root mkdir -p "$place/lib/postgresql" "$place/share/postgresql" "$place/include/postgresql"
    for part in lib share; do as_root cp -R "/usr/$part/postgresql/15" "$place/$part/postgresql"; done
    as_root cp -R /usr/include/postgresql/* "$place/include/postgresql"
    [ "$(id -u)" = 0 ] || as_root chown -R "$(id -u)" "$place"
    # The server was linked with these, so that their headers are asked for.
    (
        use_own "$deps/citus-headers" deb
        quietly citus-headers apt-get download -q libkrb5-dev krb5-multidev comerr-dev libpam0g-dev libselinux1-dev
        for package in *.deb; do dpkg-deb -x "$package" .; done
    )
    headers=$deps/citus-headers/usr
    cd "$deps/citus-source"
    # Since 15.20 the server has a function of this name.
    sed -i 's/^have_createdb_privilege(void)/citus_&/' src/include/pg_version_compat.h
    sed -i 's/!have_createdb_privilege()/!citus_have_createdb_privilege()/' src/backend/distributed/commands/serialize_distributed_ddls.c
    library=$(dpkg-architecture -qDEB_HOST_MULTIARCH)
    quietly citus-configure ./configure --without-libcurl --without-lz4 --without-zstd PG_CONFIG="$copy" CPPFLAGS="-I$headers/include" LDFLAGS="-L$headers/lib/$library"
    quietly citus-build make -j "$(nproc)" with_llvm=no
    quietly citus-install make install-all with_llvm=no
    readable "$place"
    cd "$root"
    rm -rf "$deps/citus-source" "$deps/citus-headers"
fi
say "$copy"
