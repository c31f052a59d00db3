#!/bin/sh
# inside.sh MAJOR: in the bare Debian, installs what lies beside it, runs the README's SQL and removes it all again.
set -eu

major=$1
apt-get update -q
apt-get install -qy --no-install-recommends /packages/*.deb
dpkg -V "postgresql-$major-pgseal"
bin=/usr/lib/postgresql/$major/bin
place=$(mktemp -d /tmp/pgseal-XXXXXX)
chown postgres "$place"
as_server() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }
cd "$place"
as_server "$bin/initdb" -D "$place/data" --auth=trust --encoding=UTF8 --locale=C.UTF-8 > initdb.log
cat >> "$place/data/postgresql.conf" << END
session_preload_libraries = 'pgseal'
pgseal.kms_endpoint = 'file://$place/keys'
unix_socket_directories = '$place'
listen_addresses = ''
END
as_server "$bin/pg_ctl" -D "$place/data" -l "$place/data/log" -w start
psql() { as_server "$bin/psql" -h "$place" -X -v ON_ERROR_STOP=1 "$@"; }
if ! psql -d postgres -f /packages/readme.sql > readme.log 2>&1; then
    tail -n 20 readme.log
    exit 1
fi
found=$(psql -d postgres -Atc "SELECT count(*) FROM docs WHERE metadata @> '{\"patient_name\": \"John Smith\"}'")
plain=$(as_server sh -c "cat data/base/*/* data/pg_wal/* 2> /dev/null" | grep -ac "John Smith" || true)
versions=$(psql -d postgres -Atc "SELECT string_agg(extname || ' ' || extversion, ', ' ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'")
as_server "$bin/pg_ctl" -D "$place/data" -w -m fast stop
[ "$found" = 1 ] && [ "$plain" = 0 ] || { echo "rows found: $found, plaintext on disk: $plain"; exit 1; }
apt-get purge -qy "postgresql-$major-pgseal"
left=$(find / -xdev -name '*pgseal*' -not -path '/proc/*' -not -path '/packages*' -not -path '/tmp/*' -not -path '/pgseal-base' -not -path '/var/lib/apt/*' -not -path '/var/cache/*' -not -path '/var/log/*')
[ -z "$left" ] || { echo "left after the purge: $left"; exit 1; }
echo "PostgreSQL $major in Debian $(cat /etc/debian_version): $versions installed from packages"
echo "the README's SQL ran, John Smith is found once and stands in no file; the purge left nothing"
