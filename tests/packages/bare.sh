#!/bin/sh
# bare.sh SUITE MAJOR: installs the packages in target/packages into a bare Debian of that suite (bookworm, trixie), made by
# debootstrap, and runs the README's SQL there. Needs root.
. "$(dirname -- "$0")/../setup/common.sh"
. "$root/tests/setup/apt.sh"

suite=$1
major=$2
[ "$(id -u)" = 0 ] || die "a bare Debian is made by root: sudo tests/packages/bare.sh $suite $major"
bare=/var/tmp/pgseal-bare-$suite
mirror=$(debian '$(REPO_URI)' | head -n 1)
packages=$(echo "$root"/target/packages/postgresql-"$major"-*.deb)
[ -e "${packages%% *}" ] || die "there are no packages for PostgreSQL $major: make packages"

if [ ! -e "$bare/pgseal-base" ]; then
    say "Making a bare Debian $suite in $bare (1 minute)"
    use_own "$deps/debootstrap" deb
    quietly debootstrap-download apt-get download -q debootstrap
    for package in *.deb; do dpkg-deb -x "$package" .; done
    rm -rf "$bare"
    DEBOOTSTRAP_DIR=$PWD/usr/share/debootstrap quietly debootstrap usr/sbin/debootstrap --variant=minbase "$suite" "$bare" "$mirror"
    unset APT_CONFIG
    # What apt needs to know on this machine, a proxy for one.
    apt-config dump | grep -E '^Acquire::(https?|Check)' > "$bare/etc/apt/apt.conf.d/99host" || true
    mkdir -p "$bare/dev/shm" && chmod 1777 "$bare/dev/shm"
    cp /etc/resolv.conf "$bare/etc/" 2> /dev/null || true
    printf '#!/bin/sh\nexit 101\n' > "$bare/usr/sbin/policy-rc.d"
    chmod +x "$bare/usr/sbin/policy-rc.d"
    touch "$bare/pgseal-base"
fi
in_bare() { chroot "$bare" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

mkdir -p "$bare/packages"
rm -f "$bare"/packages/*
sed -n '/^```sql/,/^```$/p' "$root/README.md" | sed 's/^```sql.*//; s/^```$//' > "$bare/packages/readme.sql"
cp "$root/tests/packages/inside.sh" "$bare/packages"
for package in $packages; do
    # The distribution's own goes first.
    case $package in
    *-pgvector_*) ! in_bare apt-cache show "postgresql-$major-pgvector" > /dev/null 2>&1 || continue ;;
    esac
    cp "$package" "$bare/packages"
done
say "Installing $(cd "$bare/packages" && echo ./*.deb) in the bare Debian $suite"
quietly "bare-$suite" in_bare sh /packages/inside.sh "$major"
tail -n 4 "$deps/bare-$suite.log"
rm -rf "$bare"
