#!/bin/sh
# The clients and frameworks of pgvector-compat/clients, under .deps/clients and .deps/node.
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" clients llama-index-vector-stores-postgres==0.9.0 langchain-postgres==0.0.19 'psycopg[binary]==3.3.9'
# Without Node.js its test says that it does not run.
have npm || exit 0
package=pg@8.23.1
if [ "$(cat "$deps/node/package" 2> /dev/null)" != "$package" ]; then
    say "Installing from npm under .deps/node: $package"
    mkdir -p "$deps/node"
    quietly node npm install --prefix "$deps/node" --no-audit --no-fund --silent "$package"
    echo "$package" > "$deps/node/package"
fi
