#!/bin/sh
# moto, a stand-in for AWS that checks signatures, for the tests: .deps/moto/bin/moto_server
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" moto 'moto[server,kms,sts]==5.2.5'
