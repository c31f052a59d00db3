#!/bin/sh
# Puts the install scripts of released versions beside that of this one, for the tests of updates.
. "$(dirname -- "$0")/common.sh"

extensions=$("$PG_CONFIG" --sharedir)/extension
if [ -w "$extensions" ]; then cp "$root"/tests/upgrade/*/pgseal--*.sql "$extensions"
else as_root cp "$root"/tests/upgrade/*/pgseal--*.sql "$extensions"; fi
