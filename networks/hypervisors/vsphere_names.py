"""Names and paths as vSphere has them. Everything that goes there is checked first.

Sources: vSphere Web Services API, ManagedEntity.name (what is escaped in it) and Datastore (paths).
"""

import re
import uuid
from dataclasses import dataclass

from networks.hypervisors.base import Refused

MEDIA_DIRECTORY = "extdhcp-configdrive"
NAME_MAX_CHARACTERS = 80  # what an object in the inventory may be called
_ROOTS = uuid.UUID("5d0ac59c-6a1f-5c7e-9f1e-3a0c1f6f1d0e")  # the name space of our volumes

_VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_MEDIA_NAME = re.compile(r"[A-Za-z0-9-]{1,100}\.iso")
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # an odd first octet is a group address
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# In this order: the sign of an escape is escaped itself.
_ESCAPES = (("%", "%25"), ("/", "%2f"), ("\\", "%5c"))


def escaped(name: str) -> str:
    """A displayed name as it stands in the inventory."""
    for character, escape in _ESCAPES:
        name = name.replace(character, escape)
    return name


def displayed(name: str) -> str:
    """The name in the inventory as an administrator sees and writes it."""
    return re.sub("%(25|2f|5c)", lambda found: chr(int(found[1], 16)), name, flags=re.IGNORECASE)


def vm_name(name: str) -> str:
    return _checked(_VM_NAME, name, "The VM name")


def volume_name(name: str) -> str:
    return _checked(_VM_NAME, name, "The volume name")


def media_name(name: str) -> str:
    return _checked(_MEDIA_NAME, name, "The ISO name")


def is_media_name(name: str) -> bool:
    return _MEDIA_NAME.fullmatch(name) is not None


def mac_address(text: str) -> str:
    return _checked(_MAC, text, "The MAC address")


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise Refused(f"{what} {value[:100]!r} has a form that cannot be used in vSphere.")
    return value


def given_name(name: str, what: str) -> str:
    """The displayed name of something that an administrator made in vSphere: any character that can be seen."""
    if not name or len(name) > NAME_MAX_CHARACTERS or _CONTROL.search(name):
        raise Refused(f"{what} {name[:100]!r} cannot be a name in vSphere.")
    return name


def vm_uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused("The VM's UUID is none.") from None


def root_uuid(volume: str) -> str:
    """What the VM that is this ROOT volume is known by, whatever its name is and wherever its files are moved."""
    return str(uuid.uuid5(_ROOTS, volume))


@dataclass(frozen=True)
class DatastorePath:
    """`[datastore] path`, of a file or directory."""

    datastore: str
    path: str

    def __str__(self) -> str:
        return f"[{self.datastore}] {self.path}"


def media_path(storage: str, name: str = "") -> DatastorePath:
    """Of a config drive's ISO, or without a name of the directory that they lie in."""
    return DatastorePath(storage, f"{MEDIA_DIRECTORY}/{name}" if name else MEDIA_DIRECTORY)
