#!/bin/sh
# Stops what demo.sh started and removes what it made.
. "$(dirname -- "$0")/../setup/common.sh"

state=$root/.demo
[ -d "$state" ] || exit 0
. "$root/tests/demo/cluster.sh"
. "$root/tests/demo/bao.sh"
stop_bao
remove_cluster "$state"
rm -rf "$state"
say "Stopped the demo's servers and removed its data."
