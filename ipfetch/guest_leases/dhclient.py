"""ISC dhclient: blocks of statements, appended to the file at each renewal. Source: dhclient.leases(5).

lease {
  interface "eth0";
  fixed-address 192.0.2.7;
  option subnet-mask 255.255.255.0;
  option dhcp-lease-time 3600;
  renew 6 2026/11/21 17:04:13;
  expire 6 2026/11/21 17:36:54;
}
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ipfetch.guest_leases.values import FOREVER, FileOnDisk, GuestLease, interface, ip4, moment, number, prefix, text

# A string may hold braces and semicolons of the server's; a comment is what follows a time as an epoch.
# A quotation without its end is taken whole, and never looked at again: else each quote in it begins anew.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\[^\n])*+"?|#[^\n]*|[{};]|[^\s{};"#]+')
_DATE = re.compile(r"([0-9]{4})/([0-9]{1,2})/([0-9]{1,2}) ([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})")
_WEEKDAY = re.compile(r"[0-6]")
MOST_STATEMENTS = 20_000
STATEMENT_MAX_TOKENS = 64
_NEVER = "never"

Statement = list[str]


def leases(file: FileOnDisk) -> list[GuestLease]:
    """The last complete block of each interface: dhclient writes the new one behind the old."""
    by_interface: dict[str, GuestLease | None] = {}
    for block in _blocks(text(file.content)):
        name, lease = _lease(block)
        by_interface[name] = lease
    return [
        replace(lease, renewed=lease.renewed or file.modified) for lease in by_interface.values() if lease is not None
    ]


def _blocks(content: str) -> Iterator[list[Statement]]:
    """The statements of each `lease { ... }`; `lease6` and a block that the file's end cuts off are left out."""
    block: list[Statement] | None = None
    statement: Statement = []
    depth, statements = 0, 0
    for match in _TOKEN.finditer(content):
        word = match[0]
        if word.startswith("#"):
            continue
        if word == "{":
            depth += 1
            if depth == 1 and statement == ["lease"]:
                block = []
            statement = []
        elif word == "}":
            depth = max(0, depth - 1)
            if depth == 0 and block is not None:
                yield block
                block = None
            statement = []
        elif word == ";":
            if depth == 1 and block is not None:
                block.append(statement)
            statement = []
            statements += 1
            if statements >= MOST_STATEMENTS:
                return
        elif len(statement) < STATEMENT_MAX_TOKENS:
            statement.append(word)


def _lease(block: list[Statement]) -> tuple[str, GuestLease | None]:
    """The block's interface, and its lease unless it is none."""
    values = {_key(statement): _value(statement) for statement in block if statement}
    name = interface(values.get("interface", "").strip('"'))
    ip = ip4(values.get("fixed-address", ""))
    expires = _time(values.get("expire", ""))
    if ip is None or "bootp" in values or (expires is None and values.get("expire") != _NEVER):
        return name, None
    length = number(values.get("option dhcp-lease-time", ""))
    return name, GuestLease(
        ip=ip,
        prefix=prefix(values.get("option subnet-mask", "")),
        mac=None,
        interface=name,
        renewed=_given_at(expires, length),
        expires=expires,
    )


def _key(statement: Statement) -> str:
    return " ".join(statement[:2]) if statement[0] == "option" else statement[0]


def _value(statement: Statement) -> str:
    return " ".join(statement[2:] if statement[0] == "option" else statement[1:])


def _given_at(expires: datetime | None, length: int | None) -> datetime | None:
    """`renew` is when the client means to ask again; when it was given follows from the lease's end."""
    if expires is None or length is None or length == FOREVER:
        return None
    try:
        return expires - timedelta(seconds=length)
    except OverflowError:
        return None


def _time(value: str) -> datetime | None:
    """`6 2026/11/21 17:36:54`, in UTC, or `epoch 1795282614`; None for `never` and for what is no time."""
    kind, _, rest = value.partition(" ")
    if kind == "epoch":
        return moment(number(rest))
    match = _DATE.fullmatch(rest) if _WEEKDAY.fullmatch(kind) else None
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
