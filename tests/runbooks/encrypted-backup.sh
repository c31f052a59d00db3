#!/bin/sh
# A whole backup of a server, encrypted with a key of its own that the KMS wraps.
#
#   encrypted-backup take DIR           base backup of the server that PGHOST and so on name, into DIR
#   encrypted-backup restore DIR PGDATA from DIR into PGDATA, all of it or nothing
#   encrypted-backup archive FILE DIR   archive_command = 'encrypted-backup archive %p DIR'
#   encrypted-backup fetch NAME PATH DIR    restore_command = 'encrypted-backup fetch %f %p DIR'
#
# DIR/key is the key, wrapped by BACKUP_KEY (backups) of Transit at BAO_ADDR; it is in no file and no argument otherwise.
# age (age-encryption.org/v1) authenticates what it encrypts, in order and to the end.
set -eu
umask 077
kms_key=${BACKUP_KEY:-backups}

die() { printf 'encrypted-backup: %s\n' "$*" >&2; exit 1; }

new_key() {
    [ ! -e "$1/key" ] || return 0
    mkdir -p "$1"
    identity=$(age-keygen 2> /dev/null | grep '^AGE-SECRET-KEY-')
    printf '%s\n' "$identity" | age-keygen -y > "$1/recipient"
    printf '%s\n' "$identity" | base64 -w 0 |
        bao write -field=ciphertext "transit/encrypt/$kms_key" plaintext=- > "$1/key.part"
    unset identity
    [ -s "$1/key.part" ] || die "the KMS did not wrap the key"
    mv "$1/key.part" "$1/key"
}

identity() {
    identity=$(bao write -field=plaintext "transit/decrypt/$kms_key" ciphertext=@"$1/key") || die "the KMS did not unwrap the key"
    printf '%s' "$identity" | base64 -d
    unset identity
}

# A pipe's status is that of its last command only: the others leave theirs in a file.
take() {
    [ ! -e "$1/base.tar.age" ] || die "$1 has a backup already"
    new_key "$1"
    { pg_basebackup --pgdata=- --format=tar --wal-method=fetch --checkpoint=fast || echo failed > "$1/failed"; } |
        age --encrypt --recipients-file "$1/recipient" --output "$1/base.part"
    [ ! -e "$1/failed" ] || { rm -f "$1/base.part" "$1/failed"; die "pg_basebackup failed"; }
    mv "$1/base.part" "$1/base.tar.age"
}

restore() {
    [ ! -e "$2" ] || die "$2 exists"
    rm -rf "$2.part"
    mkdir "$2.part"
    failed=$2.part.failed
    rm -f "$failed"
    { identity "$1" | age --decrypt --identity - "$1/base.tar.age" || echo failed > "$failed"; } |
        tar --extract --file=- --directory="$2.part" || echo failed > "$failed"
    [ ! -e "$failed" ] || { rm -rf "$2.part" "$failed"; die "the backup cannot be decrypted, or is not what was written: nothing is restored"; }
    mv "$2.part" "$2"
}

archive() {
    new_key "$2"
    to=$2/$(basename "$1").age
    [ ! -e "$to" ] || die "$to exists"
    age --encrypt --recipients-file "$2/recipient" --output "$to.part" "$1"
    mv "$to.part" "$to"
}

fetch() {
    [ -e "$3/$1.age" ] || exit 1 # as restore_command says that there is no such file
    rm -f "$2.part"
    identity "$3" | age --decrypt --identity - --output "$2.part" "$3/$1.age" || { rm -f "$2.part"; die "$1 cannot be decrypted"; }
    mv "$2.part" "$2"
}

command=${1:-help}
case $command:$# in
    take:2 | restore:3 | archive:3 | fetch:4) shift && "$command" "$@" ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
