#!/bin/sh
# Vector stores that run inside Python, and pyarrow, for the tests of imports: .deps/imports/bin/python
. "$(dirname -- "$0")/common.sh"

sh "$root/tests/setup/python.sh" imports 'psycopg[binary]==3.3.9' pyarrow==26.0.1 qdrant-client==1.20.0 chromadb==1.5.9 vecs==0.4.5
