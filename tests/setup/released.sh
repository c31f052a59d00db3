#!/bin/sh
# Puts the install scripts of released versions beside that of this one, for the tests of updates.
. "$(dirname -- "$0")/common.sh"

as_owner cp "$root"/tests/upgrade/*/pgseal--*.sql "$("$PG_CONFIG" --sharedir)/extension"
