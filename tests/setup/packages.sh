#!/bin/sh
# Debian packages: PostgreSQL and its headers, libclang for pgrx, and what unpacks and verifies a source package.
. "$(dirname -- "$0")/common.sh"

need="age clang libclang-dev pkg-config dpkg-dev xz-utils debian-archive-keyring"
# Where Debian's own server is asked for, 15 on Debian 12, 17 on 13.
major=$(expr "$PG_CONFIG" : '/usr/lib/postgresql/\([0-9]*\)/bin/pg_config$' || true)
[ -z "$major" ] || need="$need postgresql-$major postgresql-server-dev-$major"
python3 -c 'import ensurepip, venv' 2> /dev/null || need="$need python3-venv"

if ! have apt-get; then
    for tool in "$PG_CONFIG" clang python3; do
        have "$tool" || die "$tool is missing, and this system has no apt-get to install it with." \
            "Install PostgreSQL with its server headers, pgvector, clang with libclang, and Python 3 with venv;" \
            "then run make again with PG_CONFIG=/path/to/pg_config"
    done
    exit 0
fi

missing=
for package in $need; do
    dpkg-query -W -f '${db:Status-Status}\n' "$package" 2> /dev/null | grep -qx installed || missing="$missing $package"
done
if [ -n "$missing" ]; then
    say "Installing Debian packages:$missing"
    quietly apt-update as_root apt-get update -q
    # shellcheck disable=SC2086 # one word for each package
    quietly apt-install as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $missing
fi
have "$PG_CONFIG" || die "$PG_CONFIG is missing: name yours with make PG_CONFIG=/path/to/pg_config"
