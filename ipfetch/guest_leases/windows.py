r"""Windows: the SYSTEM hive's text, as virt-win-reg exports it.

[HKEY_LOCAL_MACHINE\SYSTEM\Select]
"Current"=dword:00000001

[HKEY_LOCAL_MACHINE\SYSTEM\ControlSet001\Services\Tcpip\Parameters\Interfaces\{GUID}]
"EnableDHCP"=dword:00000001
"DhcpIPAddress"=hex(1):31,00,39,00,32,00,...
"LeaseObtainedTime"=dword:...            (seconds since 1970, UTC)

Which ControlSet is in use stands in Select; 001 is only the usual one. The card's own MAC address is not
in the hive. Sources: hivexregedit(1), virt-win-reg(1); [MS-DHCPM] has nothing on these values.
"""

import re

from ipfetch.guest_leases.values import FILE_MAX_BYTES, FileOnDisk, GuestLease, interface, ip4, moment, prefix, text

_HIVE = r"(?:HKEY_LOCAL_MACHINE|HKLM)\\SYSTEM\\"
_KEY = re.compile(r"\[(.{1,500})\]")
_SELECT = re.compile(_HIVE + r"Select", re.IGNORECASE)
_INTERFACE = re.compile(
    _HIVE + r"ControlSet([0-9]{3})\\Services\\Tcpip\\Parameters\\Interfaces\\(\{[0-9A-F-]{36}\})", re.IGNORECASE
)
_VALUE = re.compile(r'"([A-Za-z0-9]{1,40})"=(.{1,2000})')
_DWORD = re.compile(r"dword:([0-9a-fA-F]{1,8})")
_STRING = re.compile(r"(?:hex\((1|2|7)\):([0-9a-fA-F,]*)|str\([127]\):\"([^\"]*)\"|\"([^\"]*)\")")
_BYTES = re.compile(r"(?:[0-9a-fA-F]{2}(?:,[0-9a-fA-F]{2})*)?")
MOST_LINES = 50_000

Values = dict[str, str]


def leases(file: FileOnDisk) -> list[GuestLease]:
    """One for each interface of the ControlSet in use that has its address by DHCP."""
    keys = _keys(text(file.content[:FILE_MAX_BYTES]))
    selected = next((values for key, values in keys if _SELECT.fullmatch(key)), {})
    current = _dword(selected.get("current", ""))
    found = []
    for key, values in keys:
        match = _INTERFACE.fullmatch(key)
        if match and current is not None and int(match[1]) == current and (lease := _lease(match[2], values)):
            found.append(lease)
    return found


def _keys(content: str) -> list[tuple[str, Values]]:
    """Keys in their order, each with its values by their names in lower case. A line that is neither is left out."""
    found: list[tuple[str, Values]] = []
    # The last line has no end only if the text was cut off in it.
    for line, _ in zip(content.split("\n")[:-1], range(MOST_LINES), strict=False):
        if key := _KEY.fullmatch(line.strip()):
            found.append((key[1], {}))
        elif found and (value := _VALUE.fullmatch(line.strip())):
            found[-1][1][value[1].lower()] = value[2]
    return found


def _lease(guid: str, values: Values) -> GuestLease | None:
    ip = ip4(_string(values.get("dhcpipaddress", "")))
    if ip is None or _dword(values.get("enabledhcp", "")) != 1:
        return None
    return GuestLease(
        ip=ip,
        prefix=prefix(_string(values.get("dhcpsubnetmask", ""))),
        mac=None,
        interface=interface(guid),
        renewed=moment(_dword(values.get("leaseobtainedtime", ""))),
        expires=moment(_dword(values.get("leaseterminatestime", ""))),
    )


def _dword(value: str) -> int | None:
    match = _DWORD.fullmatch(value)
    return int(match[1], 16) if match else None


def _string(value: str) -> str:
    """A REG_SZ, or the first of a REG_MULTI_SZ; nothing for what is neither."""
    match = _STRING.fullmatch(value)
    if match is None:
        return ""
    if match[1] is None:
        return match[3] if match[3] is not None else match[4]
    if not _BYTES.fullmatch(match[2]):
        return ""
    try:
        decoded = bytes.fromhex(match[2].replace(",", "")).decode("utf-16-le")
    except UnicodeDecodeError:
        return ""
    return decoded.split("\0", 1)[0]
