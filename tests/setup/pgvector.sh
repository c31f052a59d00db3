#!/bin/sh
# pgvector: the distribution's package where there is one, else Debian trixie's source package, built here.
. "$(dirname -- "$0")/common.sh"

[ ! -e "$("$PG_CONFIG" --sharedir)/extension/vector.control" ] || exit 0
have apt-get || die "pgvector is missing: install it for the PostgreSQL of $PG_CONFIG"

package=postgresql-$(pg_major)-pgvector
if apt-cache show "$package" > /dev/null 2>&1 && [ "$PG_CONFIG" = "/usr/lib/postgresql/$(pg_major)/bin/pg_config" ]; then
    say "Installing the Debian package $package"
    quietly pgvector as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$package"
    exit 0
fi

say "Building pgvector from Debian trixie's source package, under .deps/pgvector, and installing it"

# An apt of its own, so that the system's lists and sources stay as they are. It asks the mirror that the
# system uses, and checks signatures with the same keys.
# shellcheck disable=SC2016 # apt expands it
mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1; }
[ -n "$(mirror)" ] || quietly apt-update as_root apt-get update -q # a machine whose lists were never fetched
mirror=$(mirror)
[ -n "$mirror" ] || die "apt knows no Debian mirror to take pgvector's source from: run apt-get update, or install pgvector by hand"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keys" ] || die "$keys is missing: apt-get install debian-archive-keyring"

work=$deps/pgvector
rm -rf "$work"
mkdir -p "$work/lists/partial" "$work/cache/partial"
cd "$work"
echo "deb-src [signed-by=$keys] $mirror trixie main" > sources.list
cat > apt.conf << END
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$work/lists";
Dir::Cache "$work/cache";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
END
export APT_CONFIG="$work/apt.conf"
quietly pgvector-apt apt-get update -q
quietly pgvector-source apt-get source -q --only-source pgvector
cd pgvector-*/
quietly pgvector-build make OPTFLAGS= PG_CONFIG="$PG_CONFIG" all
quietly pgvector-install as_root make OPTFLAGS= PG_CONFIG="$PG_CONFIG" install
