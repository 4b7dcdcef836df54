"""NetworkManager's own DHCP client: internal-UUID-INTERFACE.lease, lines as of a shell.

Its makers call the form private. Since 1.20 a file holds the address alone; before, it was
systemd's form, with the netmask and the lease's length as well. The times are the file's own.
Sources: NetworkManager 1.42, nm-dhcp-nettools.c, lease_save(); systemd, sd-dhcp-lease.c.
"""

import re

from ipfetch.guest_leases.values import FileOnDisk, GuestLease, interface, ip4, later, moment, number, prefix, text

# With its line end: of a file cut in the middle, the last line may hold the beginning of an address.
_LINE = re.compile(r"^([A-Z0-9_]{1,40})=([^\n]{0,255})\n", re.MULTILINE)
_NAME = re.compile(r"internal-[0-9a-fA-F-]{36}-(.+)\.lease")
MOST_LINES = 1000


def leases(file: FileOnDisk) -> list[GuestLease]:
    name = _NAME.fullmatch(file.name)
    if file.name and not name:
        return []
    values: dict[str, str] = {}
    for match, _ in zip(_LINE.finditer(text(file.content)), range(MOST_LINES), strict=False):
        values[match[1]] = match[2].strip().strip("'\"")
    ip = ip4(values.get("ADDRESS", ""))
    if ip is None:
        return []
    # Where a version writes EXPIRY, it is in seconds since 1970.
    expires = moment(number(values.get("EXPIRY", ""))) or later(file.modified, number(values.get("LIFETIME", "")))
    return [
        GuestLease(
            ip=ip,
            prefix=prefix(values.get("NETMASK", "")),
            mac=None,
            interface=interface(name[1]) if name else "",
            renewed=file.modified,
            expires=expires,
        )
    ]
