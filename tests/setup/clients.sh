#!/bin/sh
# The clients and frameworks of pgvector-compat/clients, under .deps/clients and .deps/node.
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" clients llama-index-vector-stores-postgres==0.9.0 langchain-postgres==0.0.19 'psycopg[binary]==3.3.9' \
    Django==5.2.19 langgraph==1.2.24 langgraph-checkpoint-postgres==3.2.0 pgvector-haystack==8.1.2 mem0ai==2.2.1 agno==3.1.10 alembic==1.20.1
# What checks the types of the Python package.
sh "$root/tests/setup/python.sh" types mypy==2.4.1
# Without Node.js its test says that it does not run.
have npm || exit 0
packages='pg@8.23.1 postgres@3.4.9 drizzle-orm@0.45.4 knex@3.3.0 typeorm@1.1.1 typescript@5.9.3 @types/pg@8.23.1 @types/node@26.6.7
    prisma@7.10.0 @prisma/client@7.10.0 @prisma/adapter-pg@7.10.0'
if [ "$(cat "$deps/node/package" 2> /dev/null)" != "$packages" ]; then
    say "Installing from npm under .deps/node: $packages"
    mkdir -p "$deps/node"
    # shellcheck disable=SC2086 # a list
    quietly node npm install --prefix "$deps/node" --no-audit --no-fund --ignore-scripts --silent $packages
    echo "$packages" > "$deps/node/package"
fi
