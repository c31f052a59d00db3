#!/bin/sh
# cargo-deny, for "make deny".
. "$(dirname -- "$0")/common.sh"

version=0.20.2
if [ "$(cargo deny --version 2> /dev/null)" != "cargo-deny $version" ]; then
    say "Installing cargo-deny $version under .deps/cargo (about 2 minutes)"
    quietly cargo-deny install_tool "cargo-deny@$version"
fi
