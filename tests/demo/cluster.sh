# shellcheck shell=sh disable=SC2154 # variables of the script that sources this
# A throwaway PostgreSQL on a free loopback port, as the demo and the benchmark start it: sourced, not run.
# Its folder is a temporary one, since the user that runs it may not be able to read this one.

bin=$("$PG_CONFIG" --bindir)
PATH="$bin:$PATH"

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# write_private FILE: standard input goes to a file that only the server's user can read.
write_private() {
    # shellcheck disable=SC2016 # the inner shell expands it
    as_server sh -c 'umask 077; cat > "$1"' write "$1"
}

running() { as_server "$bin/pg_ctl" -D "$1/data" status > /dev/null 2>&1; }

# new_cluster STATE [SETTING...]: makes and starts a cluster. STATE/cluster records its folder, STATE/service how to
# connect to it.
new_cluster() {
    state=$1
    shift
    umask 077
    mkdir -p "$state"
    cluster=$(as_server mktemp -d /tmp/pgseal-XXXXXX)
    echo "$cluster" > "$state/cluster"
    port=$(free_port)
    password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    echo "$password" | write_private "$cluster/password"
    as_server mkdir -m 700 "$cluster/keys"
    as_server "$bin/initdb" --pgdata "$cluster/data" --username postgres --pwfile "$cluster/password" --auth scram-sha-256 \
        --encoding UTF8 --locale C.UTF-8 --data-checksums > "$state/initdb.log"
    {
        echo "listen_addresses = '127.0.0.1'"
        echo "port = $port"
        echo "unix_socket_directories = '$cluster'"
        echo "pgseal.kms_endpoint = 'file://$cluster/keys'"
        echo "pgseal.kms_token_file = '$cluster/token'" # for a KMS that wants one
        for setting; do echo "$setting"; done
    } | write_private "$cluster/data/postgresql.conf"
    printf '[demo]\nhost=127.0.0.1\nport=%s\nuser=postgres\npassword=%s\n' "$port" "$password" > "$state/service"
    start_cluster "$cluster"
}

start_cluster() {
    as_server "$bin/pg_ctl" -D "$1/data" -l "$1/log" -w start > /dev/null || die "PostgreSQL does not start: see $1/log"
}

# remove_cluster STATE: stops what STATE/cluster names and removes it.
remove_cluster() {
    [ -e "$1/cluster" ] || return 0
    cluster=$(cat "$1/cluster")
    as_server "$bin/pg_ctl" -D "$cluster/data" -m immediate -w stop > /dev/null 2>&1 || true
    case $cluster in /tmp/pgseal-*) rm -rf "$cluster" ;; esac
}

# psql on the cluster of STATE, without the user's own settings; stops at the first error.
sql() {
    PGSERVICEFILE="$state/service" PGSERVICE=demo PGOPTIONS='-c client_min_messages=warning' \
        psql -X -q -v ON_ERROR_STOP=1 "$@"
}
