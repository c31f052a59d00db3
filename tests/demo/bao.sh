# shellcheck shell=sh disable=SC2154 # variables of the script that sources this
# The OpenBao server of "make demo KMS=openbao": sourced, not run. It keeps everything in memory.

bao=$deps/openbao/bin/bao

bao_runs() {
    [ -e "$state/bao.pid" ] && grep -qa bao "/proc/$(cat "$state/bao.pid")/cmdline" 2> /dev/null
}

start_bao() {
    BAO_TOKEN=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    BAO_ADDR=http://127.0.0.1:$(free_port)
    export BAO_TOKEN BAO_ADDR
    printf 'export BAO_ADDR=%s BAO_TOKEN=%s\n' "$BAO_ADDR" "$BAO_TOKEN" > "$state/bao.env"
    BAO_DEV_ROOT_TOKEN_ID=$BAO_TOKEN setsid "$bao" server -dev -dev-no-store-token \
        -dev-listen-address="${BAO_ADDR#http://}" > "$state/bao.log" 2>&1 < /dev/null &
    echo $! > "$state/bao.pid"
    tries=100
    until "$bao" status > /dev/null 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || die "OpenBao does not start: see $state/bao.log"
        sleep 0.2
    done
    "$bao" secrets enable transit > /dev/null
    "$bao" write -f transit/keys/pgseal-demo type=aes256-gcm96 derived=true > /dev/null
    allow_key
    "$bao" token create -policy=pgseal-demo -orphan -field=token | write_private "$cluster/token"
}

# What pgseal needs at the KMS, and no more.
allow_key() {
    for what in encrypt decrypt rewrap; do
        echo "path \"transit/$what/pgseal-demo\" { capabilities = [\"update\"] }"
    done | "$bao" policy write pgseal-demo - > /dev/null
}

deny_key() { "$bao" policy delete pgseal-demo > /dev/null; }

stop_bao() {
    ! bao_runs || kill "$(cat "$state/bao.pid")"
}
