#!/bin/sh
# Set this VM's password and SSH keys as its config drive says, each once per change. For templates of extdhcp;
# needs a POSIX shell (dash, busybox, bash), chpasswd and sha256sum.
# SPDX-License-Identifier: Apache-2.0
#
# Run it at each boot: by the systemd unit extdhcp-config-drive.service, or linked into /etc/init.d:
#
### BEGIN INIT INFO
# Provides:          cloud-set-vm-password
# Required-Start:    $local_fs
# Required-Stop:
# Should-Start:      udev
# X-Start-Before:    ssh sshd
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: VM's password and SSH keys from the config drive
# Description:       Sets the VM's password and SSH keys as its config drive says, each once per change.
### END INIT INFO
# chkconfig: 2345 08 98
# description: Sets the VM's password and SSH keys as its config drive says, each once per change.
#
# What it leaves in /var/lib/extdhcp, which is root's alone: `status`, what the last run found and did (no secrets);
# `password.USER`, a salted digest of the password that was set last; `keys.USER`, the keys that it installed.

set -u
umask 077
LC_ALL=C PATH=$PATH:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL PATH

label='@LABEL@'
directory='' wait=3
state=/var/lib/extdhcp
password='' keys='' instance_id='' user_data_bytes=''

# not in the boothook {
boothook='' user=root want_keys=yes

usage() {
    cat <<END
Usage: ${0##*/} [-u USER] [-K] [-l LABEL | -d DIRECTORY] [-w SECONDS] [start|stop|status]
Set this VM's password and SSH keys as its config drive says, each once per change.

  -u USER       whose password and keys (default: $user)
  -K            leave SSH keys alone
  -l LABEL      the drive's volume label (default: $label)
  -d DIRECTORY  the drive is mounted here already
  -w SECONDS    how long to wait for the drive to appear (default: $wait)
  -h            this text
  start, restart, force-reload   as without a word; stop does nothing; status prints what the last run did

Exit status: 0 done or nothing to do, 1 out of the ordinary, 2 wrong usage, 3 not root, 4 no drive with this label,
5 drive cannot be read, 7 password or keys could not be set.
END
}

wrong_usage() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    usage >&2
    exit 2
}

while [ $# -gt 0 ]; do
    case $1 in
        -u | -l | -d | -w)
            [ -n "${2-}" ] || wrong_usage "$1 needs a value."
            case $1 in
                -u) user=$2 ;;
                -l) label=$2 ;;
                -d) directory=$2 ;;
                -w) wait=$2 ;;
            esac
            shift
            ;;
        -K) want_keys='' ;;
        -h | --help)
            usage
            exit 0
            ;;
        start | restart | force-reload) ;;
        stop) exit 0 ;;
        status)
            cat "$state/status"
            exit
            ;;
        *) wrong_usage "What is '$1'?" ;;
    esac
    shift
done
case $wait in *[!0-9]*) wrong_usage "-w takes whole seconds." ;; esac
case $label in *[!A-Za-z0-9_-]*) wrong_usage "A label has only letters, digits, '_' and '-'." ;; esac
case $user in [!A-Za-z0-9_]* | *[!A-Za-z0-9._-]*) wrong_usage "A user's name has only letters, digits, '.', '_' and '-'." ;; esac
# not in the boothook }

say() { printf '%s: %s\n' "${boothook:-${0##*/}}" "$1" >&2; }

# Its reader: configdrive/guest_scripts.py, parse_status.
write_status() {
    {
        echo "version=1"
        echo "script=${boothook:-script}"
        echo "ran_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
        echo "label=$label"
        echo "drive=$(printf %s "$device" | tr -cd 'A-Za-z0-9/._-' | cut -c 1-100)"
        echo "instance_id=$instance_id"
        echo "user=$user"
        echo "password=$password"
        echo "keys=$keys"
        echo "user_data_bytes=$user_data_bytes"
    } >"$state/status.new" && mv "$state/status.new" "$state/status"
}

fail() {
    [ -d "$state" ] && [ "$(id -u)" -eq 0 ] && write_status
    say "$2"
    # cloud-init takes a hook that fails for a boot that failed.
    [ -z "$boothook" ] || exit 0
    exit "$1"
}

# include: drive.sh

# The password goes from the drive's file through pipes: it is in no variable, argument, environment or trace.
secret() { head -n 1 "$tree/cloudstack/password/vm_password.txt" | tr -d '\r\n'; }

has_password() {
    [ -f "$tree/cloudstack/password/vm_password.txt" ] || return 1
    [ "$(secret | wc -c)" -gt 0 ] || return 1
    # CloudStack's word for "it did not change".
    ! secret | grep -qxF saved_password
}

digest() { # salt
    { printf %s "$1" && secret; } | sha256sum | cut -d ' ' -f 1
}

is_known() {
    [ -s "$state/password.$user" ] || return 1
    read -r salt known <"$state/password.$user"
    [ -n "$known" ] && [ "$(digest "$salt")" = "$known" ]
}

remember() {
    salt=$(dd if=/dev/urandom bs=32 count=1 2>/dev/null | sha256sum | cut -c 1-32)
    echo "$salt $(digest "$salt")" >"$state/password.$user.new" && mv "$state/password.$user.new" "$state/password.$user"
}

change_password() {
    # Unless told otherwise, many a busybox makes a hash that only looks at eight characters.
    method=''
    case $(readlink -f "$(command -v chpasswd)") in *busybox*) method=sha512 ;; esac
    { printf '%s:' "$user" && secret && echo; } | chpasswd ${method:+-c "$method"}
}

set_password() {
    if ! has_password; then
        password=absent
    elif is_known; then
        password=unchanged
    elif [ -n "$others_turn" ]; then
        remember && password=deferred
    elif [ -z "$(passwd_field 1)" ]; then
        password=failed
        say "There is no user '$user'; the password was not set."
    elif change_password && remember; then
        password='set'
    else
        password=failed
        say "The password of '$user' could not be set: see what chpasswd says above."
    fi
}

passwd_field() { awk -F : -v user="$user" -v field="$1" '$1 == user { print $field; exit }' /etc/passwd; }

drive_keys() {
    file=$(first_file cloudstack/metadata/public_keys.txt cloudstack/metadata/public-keys.txt) || return 0
    tr -d '\r' <"$file" | grep '[^[:space:]]'
}

# Keys that this script installed earlier and that left the drive go; what the user put there stays.
write_keys() { # directory
    cat "$state/keys.$user" 2>/dev/null >"$state/keys.old"
    drive_keys >>"$state/keys.old"
    {
        if [ -f "$1/authorized_keys" ]; then grep -vxF -f "$state/keys.old" "$1/authorized_keys"; fi
        drive_keys
    } >"$state/keys.new"
    rm -f "$state/keys.old"
    chown "$(passwd_field 3):$(passwd_field 4)" "$state/keys.new" && mv "$state/keys.new" "$1/authorized_keys"
}

install_keys() {
    home=$(passwd_field 6)
    if [ -z "$home" ] || [ ! -d "$home" ]; then
        say "The user '$user' has no home directory; no keys were installed."
        return 1
    fi
    # The directory is the user's: root follows no link out of it.
    if [ -L "$home/.ssh" ] || [ -L "$home/.ssh/authorized_keys" ]; then
        say "$home/.ssh or authorized_keys in it is a symbolic link; no keys were installed."
        return 1
    fi
    if [ ! -d "$home/.ssh" ]; then
        mkdir "$home/.ssh" && chown "$(passwd_field 3):$(passwd_field 4)" "$home/.ssh" || return 1
    fi
    chmod 700 "$home/.ssh" && write_keys "$home/.ssh" || return 1
    if command -v restorecon >/dev/null 2>&1; then restorecon -R "$home/.ssh"; fi
}

set_keys() {
    if [ -z "$want_keys" ]; then
        keys=''
    elif [ -z "$(drive_keys)" ]; then
        keys=absent
    elif drive_keys | cmp -s - "$state/keys.$user"; then
        keys=unchanged
    elif [ -n "$others_turn" ]; then
        drive_keys >"$state/keys.$user" && keys=deferred
    elif install_keys && drive_keys >"$state/keys.$user"; then
        keys='set'
    else
        keys=failed
    fi
}

read_facts() {
    if file=$(first_file cloudstack/metadata/instance_id.txt cloudstack/metadata/instance-id.txt); then
        instance_id=$(tr -cd 'A-Za-z0-9._-' <"$file" | cut -c 1-64)
    fi
    user_data_bytes=0
    if file=$(first_file cloudstack/userdata/user_data.txt cloudstack/userdata/userdata.txt); then
        user_data_bytes=$(wc -c <"$file" | tr -d ' ')
    fi
}

# As a boothook, this acts for the user that cloud-init would, and leaves an instance's first password to cloud-init,
# whose module set_passwords runs later in the boot and leaves a mark of its own.
others_turn=''
if [ -n "$boothook" ]; then
    want_keys=yes
    user=$(cat /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg /var/lib/cloud/instance/cloud-config.txt 2>/dev/null |
        awk '/^ *default_user:/ || $0 == "user:" { inside = 1 }
            inside && $1 == "name:" { name = $2; inside = 0 }
            /^user: *[^ ]/ { name = $2 }
            END { print name }' | tr -cd 'A-Za-z0-9._-')
    user=${user:-root}
    set -- /var/lib/cloud/instance/sem/config_set_passwords* /var/lib/cloud/sem/config_set_passwords*
    [ -e "$1" ] || [ -e "${2-}" ] || others_turn=yes
fi

if [ "$(id -u)" -ne 0 ]; then fail 3 "Only root can set passwords. Run this as root."; fi
if ! { mkdir -p "$state" && chmod 700 "$state"; }; then fail 1 "$state cannot be made: nothing could be remembered."; fi
command -v sha256sum >/dev/null 2>&1 || fail 1 "There is no sha256sum: the password could not be remembered."
open_drive
read_facts
set_password
set_keys
write_status
say "password: $password, SSH keys: ${keys:-left alone}, user: $user, drive: $device"
case $password$keys in *failed*) [ -n "$boothook" ] || exit 7 ;; esac
