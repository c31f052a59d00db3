#!/bin/sh
# moto, a stand-in for AWS that checks signatures, for the tests: .deps/moto/bin/moto_server
. "$(dirname -- "$0")/common.sh"

# Its extra "server" would bring every service's needs; these are the server's own.
sh "$root/tests/setup/python.sh" moto 'moto[kms,sts]==5.2.5' flask==3.1.3 flask-cors==6.0.5
