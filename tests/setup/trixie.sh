# shellcheck shell=sh disable=SC2154 # variables of the script that sources this
# Packages of Debian trixie, whatever this system is: sourced, not run.

# use_trixie FOLDER deb|deb-src: goes to that new folder, where apt-get download or source takes packages of trixie from.
# An apt of its own, so that the system's lists and sources stay as they are. It asks the mirror that the
# system uses, and checks signatures with the same keys.
use_trixie() {
    # shellcheck disable=SC2016 # apt expands it
    mirror() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | head -n 1; }
    [ -n "$(mirror)" ] || quietly apt-update as_root apt-get update -q # a machine whose lists were never fetched
    mirror=$(mirror)
    [ -n "$mirror" ] || die "apt knows no Debian mirror to take packages from: run apt-get update"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keys" ] || die "$keys is missing: apt-get install debian-archive-keyring"

    rm -rf "$1"
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    cd "$1"
    echo "$2 [signed-by=$keys] $mirror trixie main" > sources.list
    cat > apt.conf << END
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$1/lists";
Dir::Cache "$1/cache";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
END
    export APT_CONFIG="$1/apt.conf"
    quietly trixie-update apt-get update -q
}
