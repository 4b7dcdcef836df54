# Finding and mounting the drive. Wants: label, directory, wait, fail CODE TEXT. Gives: tree, where its files
# are, and device, what it was mounted from.

device='' tree='' work='' refused=''

leave() {
    if [ -n "$work" ]; then
        umount "$work/drive" 2>/dev/null || umount -l "$work/drive" 2>/dev/null
        rmdir "$work/drive" "$work" 2>/dev/null
    fi
}
trap leave EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The label in an ISO 9660 volume: sector 16 has it in 32 bytes at 40, filled up with spaces (ECMA-119, 8.4).
iso_label() {
    dd if="$1" bs=2048 skip=16 count=1 2>/dev/null | dd bs=1 skip=40 count=32 2>/dev/null | tr -d '\000' | sed 's/ *$//'
}

# Mount device $1 if it is a config drive. Another volume may have the same label: the tree decides.
try_device() {
    [ -b "$1" ] || return 1
    # With its type named, the kernel loads the file system's module; a drive need not be ISO 9660 though.
    if ! mount -t iso9660 -o ro,nosuid,nodev,noexec "$1" "$tree" 2>/dev/null &&
        ! mount -o ro,nosuid,nodev,noexec "$1" "$tree" 2>/dev/null; then
        refused="$1 has the label '$label' but cannot be mounted. Does the kernel have iso9660 (module isofs)?"
        return 1
    fi
    if [ -d "$tree/cloudstack" ]; then
        device=$(readlink -f "$1")
        return 0
    fi
    umount "$tree"
    refused="$1 has the label '$label' but no directory 'cloudstack': it is another volume of that name."
    return 1
}

find_device() {
    try_device "/dev/disk/by-label/$label" && return 0
    # busybox has a blkid that ignores -t and -o and prints nothing here.
    for found in $(blkid -c /dev/null -t "LABEL=$label" -o device 2>/dev/null); do
        try_device "$found" && return 0
    done
    for found in /dev/sr* /dev/hd* /dev/xvd* /dev/vd* /dev/sd*; do
        [ -b "$found" ] && [ "$(iso_label "$found")" = "$label" ] && try_device "$found" && return 0
    done
    return 1
}

open_drive() {
    if [ -n "$directory" ]; then
        [ -d "$directory/cloudstack" ] || fail 4 "$directory has no directory 'cloudstack': no config drive is mounted there."
        tree=$directory device=$directory
        return 0
    fi
    [ "$(id -u)" -eq 0 ] || fail 3 "Only root can mount the drive. Run this as root, or mount it and name the directory with -d."
    # The mount point is inside a directory that is root's alone: what is on the drive is for nobody else to see.
    work=$(mktemp -d /run/extdhcp.XXXXXX 2>/dev/null || mktemp -d) || fail 1 "No temporary directory can be made."
    tree=$work/drive
    mkdir "$tree" || fail 1 "No temporary directory can be made."
    if command -v udevadm >/dev/null 2>&1; then udevadm settle --timeout=10 2>/dev/null; fi
    # A disc that was just put in takes a moment to be ready.
    until find_device; do
        if [ "$wait" -le 0 ]; then
            [ -z "$refused" ] || fail 5 "$refused"
            fail 4 "No drive with the label '$label' was found, by udev, by blkid, or on sr, hd, xvd, vd and sd. Is it attached? If its label is another, name it with -l."
        fi
        wait=$((wait - 1))
        sleep 1
    done
}

# The first of the named files that the drive has.
first_file() {
    for name in "$@"; do
        if [ -f "$tree/$name" ]; then
            printf '%s\n' "$tree/$name"
            return 0
        fi
    done
    return 1
}
