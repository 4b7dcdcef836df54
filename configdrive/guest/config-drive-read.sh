#!/bin/sh
# Print what this VM's config drive says. For templates of extdhcp; needs a POSIX shell (dash, busybox, bash).
# SPDX-License-Identifier: Apache-2.0

set -u
LC_ALL=C PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

label='@LABEL@'
directory='' wait=3 what='' key=''

usage() {
    cat <<END
Usage: ${0##*/} [-l LABEL | -d DIRECTORY] [-w SECONDS] WHAT
Print what this VM's config drive says.

WHAT is one of
  -m [KEY]   metadata: all of it, a key=value a line, or one key's value. Hyphen and underscore are the same:
             availability-zone, cloud-identifier, instance-id, local-hostname, local-ipv4, public-keys,
             service-offering, vm-id
  -u         user data, byte for byte
  -k         SSH public keys, one a line
  -a         the drive's device, metadata, keys and user data, each under a heading

  -l LABEL      the drive's volume label (default: $label)
  -d DIRECTORY  the drive is mounted here already; nothing is mounted, and you need not be root
  -w SECONDS    how long to wait for the drive to appear (default: $wait)
  -h            this text

Exit status: 0 printed, 1 out of the ordinary, 2 wrong usage, 3 not root, 4 no drive with this label,
5 drive cannot be read, 6 the drive does not have what you asked for.
END
}

fail() {
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}

wrong_usage() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    usage >&2
    exit 2
}

choose() {
    [ -z "$what" ] || wrong_usage "Ask for one thing at a time: -m, -u, -k or -a."
    what=$1
}

while [ $# -gt 0 ]; do
    case $1 in
        -m)
            choose metadata
            case ${2-} in
                '' | -*) ;;
                *)
                    key=$2
                    shift
                    ;;
            esac
            ;;
        -u) choose user_data ;;
        -k) choose keys ;;
        -a) choose everything ;;
        -l | -d | -w)
            [ -n "${2-}" ] || wrong_usage "$1 needs a value."
            case $1 in
                -l) label=$2 ;;
                -d) directory=$2 ;;
                -w) wait=$2 ;;
            esac
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *) wrong_usage "What is '$1'?" ;;
    esac
    shift
done
[ -n "$what" ] || wrong_usage "Say what to print: -m, -u, -k or -a."
case $wait in *[!0-9]*) wrong_usage "-w takes whole seconds." ;; esac
case $label in *[!A-Za-z0-9_-]*) wrong_usage "A label has only letters, digits, '_' and '-'." ;; esac
case $key in *[!A-Za-z0-9_-]*) wrong_usage "A key has only letters, digits, '_' and '-'." ;; esac

# include: drive.sh

metadata_file() {
    first_file "cloudstack/metadata/$(printf %s "$1" | tr - _).txt" "cloudstack/metadata/$(printf %s "$1" | tr _ -).txt"
}

# The drive has each name in two spellings, an older one in either; keys are shown with hyphens.
metadata_keys() {
    for name in "$tree"/cloudstack/metadata/*.txt; do
        name=${name##*/}
        printf '%s\n' "${name%.txt}"
    done | tr _ - | sort -u | grep -v '^[*]$' | grep -vx public-keys
}

metadata() {
    if [ -n "$key" ]; then
        file=$(metadata_file "$key") ||
            fail 6 "The drive has no metadata '$key'. It has: $(metadata_keys | tr '\n' ' ')"
        cat "$file"
        # The files have no newline at their end; a terminal wants one, and $(...) takes it off.
        [ -z "$(tail -c 1 "$file")" ] || echo
        return
    fi
    [ -n "$(metadata_keys)" ] || fail 6 "The drive has no metadata."
    metadata_keys | while read -r name; do
        printf '%s=%s\n' "$name" "$(cat "$(metadata_file "$name")")"
    done
}

keys() {
    file=$(metadata_file public-keys) || fail 6 "The drive has no SSH public keys."
    cat "$file"
}

user_data() {
    file=$(first_file cloudstack/userdata/user_data.txt cloudstack/userdata/userdata.txt openstack/latest/user_data) ||
        fail 6 "The drive has no user data."
    cat "$file"
}

everything() {
    printf '== drive\n%s\n\n' "$device"
    # Each part in a shell of its own: what the drive does not have ends only that part.
    for part in metadata keys user_data; do
        printf '== %s\n' "$part"
        (
            trap - EXIT
            "$part"
        ) 2>&1
        echo
    done
}

open_drive
"$what"
