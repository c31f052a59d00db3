#!/bin/sh
# connections.sh CONNECTIONS: the first decryption of new connections, with a real OpenBao behind, with and without preloading.
. "$(dirname -- "$0")/../setup/common.sh"
. "$root/tests/demo/cluster.sh"
. "$root/tests/demo/bao.sh"

state=$deps/bench-connections
clean() {
    stop_bao
    remove_cluster "$state"
    rm -rf "$state"
}
clean # of a run that was broken off
trap clean EXIT
trap 'exit 130' INT TERM

say "First decryption of a new connection: the KMS is a real OpenBao on this machine, one keyring, one document"
say
for preloaded in '' pgseal; do
    new_cluster "$state" "shared_preload_libraries = '$preloaded'"
    start_bao
    sql -d postgres -c "CREATE EXTENSION pgseal CASCADE" -o /dev/null \
        -c "SELECT pgseal.create_keyring('k', kms_key => 'pgseal-demo', kms_endpoint => 'vault+$BAO_ADDR/transit')" \
        -c "CREATE TABLE docs (metadata encrypted_jsonb(k))" -c "INSERT INTO docs VALUES ('{\"a\": 1}'::jsonb)"
    PGSERVICEFILE=$state/service PGSERVICE=demo PGDATABASE=postgres \
        "$deps/bench/bin/python" "$root/tests/bench/connections.py" "${preloaded:-no}" "$1"
    clean
done
