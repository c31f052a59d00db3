#!/bin/sh
# python.sh NAME PACKAGE==VERSION...: those PyPI packages in an environment of their own, .deps/NAME or $python_at/NAME
. "$(dirname -- "$0")/common.sh"

name=$1
shift
have python3 || die "python3 is missing: install Python 3.9 or newer"
home=${python_at:-$deps}/$name
if [ "$(cat "$home/packages" 2> /dev/null)" != "$*" ]; then
    say "Installing from PyPI under $home: $*"
    rm -rf "$home"
    quietly "$name-venv" python3 -m venv "$home"
    quietly "$name-pip" "$home/bin/pip" install --quiet "$@"
    echo "$*" > "$home/packages"
fi
