"""dnsmasq's lease file."""

import io
import re
from collections.abc import Iterator
from datetime import UTC, datetime

from ipfetch.leases.lease import MAC, Lease, clean_hostname, ip4

LONGEST_LINE = 4096
# Expiry, MAC address, IP address, hostname, client id. The newline counts: without it the line is not yet whole.
_LINE = re.compile(rb"(\d{1,10}) (" + MAC + rb") ([0-9.]{7,15}) (\S+) \S+\r?\n")


def leases(content: bytes) -> Iterator[Lease]:
    """The IPv4 leases in a file of dnsmasq, in its order, expired ones too. A line that is not understood is left out.

    The expiry is in seconds since 1970, 0 for never. The IPv6 leases, which follow a line `duid ...`, name
    a machine by its DUID and not a NIC by its MAC address, so they say nothing here.
    Source: dnsmasq, src/lease.c, lease_update_file.
    """
    for line in io.BytesIO(content):
        found = _LINE.fullmatch(line) if len(line) <= LONGEST_LINE else None
        if found is None:
            continue
        expiry, mac, ip, hostname = found.groups()
        try:
            address = ip4(ip)
        except ValueError:
            continue
        expires = datetime.fromtimestamp(int(expiry), UTC) if int(expiry) else None
        yield Lease(mac.decode().lower(), address, None, expires, clean_hostname(hostname))
