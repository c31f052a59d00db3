#!/bin/sh
# image.sh FOLDER: the pgseal that is installed in the PostgreSQL of PG_CONFIG as an extension image has it, for
# extension_control_path (PostgreSQL 18): lib, share/extension, licenses, and a Containerfile that makes an image of them.
. "$(dirname -- "$0")/../setup/common.sh"

folder=$1
from=$("$PG_CONFIG" --sharedir)/extension
version=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "$from/pgseal.control")
rm -rf "$folder"
mkdir -p "$folder/lib" "$folder/share/extension" "$folder/licenses"
cp "$("$PG_CONFIG" --pkglibdir)/pgseal.so" "$folder/lib"
cp "$from/pgseal.control" "$from/pgseal--$version.sql" "$root"/sql/pgseal--*--*.sql "$folder/share/extension"
cp "$root/LICENSE" "$folder/licenses/pgseal"
printf 'FROM scratch\nCOPY lib /lib\nCOPY share /share\nCOPY licenses /licenses\n' > "$folder/Containerfile"
chmod -R u=rwX,go=rX "$folder"
