#!/bin/sh
# cargo-fuzz, for "make fuzz", and the C++ compiler that libFuzzer is built with.
. "$(dirname -- "$0")/common.sh"

version=0.13.2
have c++ || die "a C++ compiler is missing: install g++ or clang"
if [ "$(cargo fuzz --version 2> /dev/null)" != "cargo-fuzz $version" ]; then
    say "Installing cargo-fuzz $version under .deps/cargo (about a minute)"
    quietly cargo-fuzz install_tool "cargo-fuzz@$version"
fi
