# shellcheck shell=sh disable=SC2154 # variables of the script that sources this
# Debian packages of other releases, and source packages, whatever the system's own lists have: sourced, not run.

keys=/usr/share/keyrings/debian-archive-keyring.gpg

# debian FORMAT: what the system's apt knows of the Debian archives that it uses, a line for each.
debian() {
    lists() { apt-get indextargets --format "$1" 'Created-By: Packages' 'Origin: Debian'; }
    [ -n "$(lists "$1")" ] || quietly apt-update as_root apt-get update -q # a machine whose lists were never fetched
    lists "$1"
}

# use_sources FOLDER: goes to that new folder, where apt-get download or source takes packages from the sources on the
# standard input. An apt of its own, so that the system's lists and sources stay as they are. It asks the mirror that the
# system uses, and checks signatures with the same keys.
use_sources() {
    [ -r "$keys" ] || die "$keys is missing: apt-get install debian-archive-keyring"
    rm -rf "$1"
    mkdir -p "$1/lists/partial" "$1/cache/archives/partial"
    cd "$1"
    cat > sources.list
    [ -s sources.list ] || die "apt knows no Debian mirror to take packages from: run apt-get update"
    cat > apt.conf << END
Dir::Etc::SourceList "$1/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$1/lists";
Dir::Cache "$1/cache";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
END
    export APT_CONFIG="$1/apt.conf"
    quietly private-apt-update apt-get update -q
}

# use_trixie FOLDER deb|deb-src: the packages of Debian trixie.
use_trixie() {
    # shellcheck disable=SC2016 # apt expands it
    debian '$(LABEL) $(REPO_URI)' | sed -n "s|^Debian \(.*\)|$2 [signed-by=$keys] \1 trixie main|p" | head -n 1 > "$deps/sources"
    use_sources "$1" < "$deps/sources"
}

# use_own FOLDER deb|deb-src: the packages of the Debian archives that this system uses, security among them.
use_own() {
    # shellcheck disable=SC2016 # apt expands it
    debian '$(REPO_URI) $(RELEASE)' | sort -u | sed "s|.*|$2 [signed-by=$keys] & main|" > "$deps/sources"
    use_sources "$1" < "$deps/sources"
}
