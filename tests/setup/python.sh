#!/bin/sh
# python.sh NAME PACKAGE==VERSION...: those PyPI packages in an environment of their own, .deps/NAME
. "$(dirname -- "$0")/common.sh"

name=$1
shift
have python3 || die "python3 is missing: install Python 3.9 or newer"
if [ "$(cat "$deps/$name/packages" 2> /dev/null)" != "$*" ]; then
    say "Installing from PyPI under .deps/$name: $*"
    rm -rf "${deps:?}/$name"
    quietly "$name-venv" python3 -m venv "$deps/$name"
    quietly "$name-pip" "$deps/$name/bin/pip" install --quiet "$@"
    echo "$*" > "$deps/$name/packages"
fi
