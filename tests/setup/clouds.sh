#!/bin/sh
# What the stand-in for Google Cloud KMS and Azure Key Vault needs, for the tests: .deps/clouds/bin/python
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" clouds cryptography==48.0.0
