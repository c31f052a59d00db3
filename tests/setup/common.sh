# shellcheck shell=sh
# Shared by the scripts in this folder and in ../demo: sourced, not run.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
deps=$root/.deps # everything that is downloaded; ignored by git
: "${PG_CONFIG:=/usr/lib/postgresql/15/bin/pg_config}"
export PATH="$deps/cargo/bin:$PATH" PGRX_HOME="$deps/pgrx"
mkdir -p "$deps" "$PGRX_HOME"

say() { printf '%s\n' "$*"; }

die() {
    printf 'pgseal: %s\n' "$@" >&2
    exit 1
}

have() { command -v "$1" > /dev/null 2>&1; }

pg_major() { "$PG_CONFIG" --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/'; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root, and sudo is not installed. Run as root:" "    $*"
    fi
}

# PostgreSQL refuses to run as root: then it is the user "postgres" that runs it.
as_server() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=-all -- "$@"
    else
        "$@"
    fi
}

# as_owner COMMAND...: as the user that may change the PostgreSQL of PG_CONFIG.
as_owner() {
    if [ -w "$("$PG_CONFIG" --pkglibdir)" ]; then
        "$@"
    else
        as_root "$@"
    fi
}

# Where servers for the tests are installed: outside of .deps where their user cannot read that.
servers() { if as_server test -x "$deps"; then say "$deps"; else say /usr/local/lib/pgseal-tests; fi; }

# readable FOLDER: lets the user of the servers read it, whatever the umask was.
readable() { chmod -R go+rX "$1"; }

# quietly NAME COMMAND...: keeps the output in .deps/NAME.log and shows its end if the command fails.
quietly() {
    log=$deps/$1.log
    shift
    if ("$@") > "$log" 2>&1; then
        return
    fi
    tail -n 20 "$log" >&2
    die "failed: $*" "All of its output is in $log"
}

# install_tool CRATE@VERSION: a program from crates.io into .deps/cargo, unoptimised since building it takes longer than running it.
install_tool() { CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "$deps/cargo" "$1"; }
