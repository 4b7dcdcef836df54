"""XenAPI's records as values: only the fields that are used, each of the type that it must have.

A pool's answer is not trusted: a field that is missing or of another type is an AnswerRefused, not a TypeError.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from networks.hypervisors.base import PowerState, Refused
from networks.hypervisors.bounded import AnswerRefused

NULL = "OpaqueRef:NULL"

# Of our VMs' `other_config`. XenServer chooses a VM's UUID: ours is kept beside it, together with the one that it
# belongs to, because a copy that somebody makes of the VM has the same `other_config`.
OUR_UUID = "extdhcp-uuid"
OUR_SELF = "extdhcp-self"
# Of what else is ours: one of the values below.
OURS = "extdhcp"
CONFIG_DRIVE = "config-drive"
ROOT = "root"
VLAN = "vlan"
# Of a config drive's VDI: how many bytes it holds, written when it holds them all.
OUR_BYTES = "extdhcp-bytes"

Record = Mapping[str, Any]

_REFERENCE = re.compile(r"OpaqueRef:[A-Za-z0-9-]{1,64}")
_NUMBER = re.compile(r"-?[0-9]{1,18}")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")

_POWER = {
    "running": PowerState.RUNNING,
    "paused": PowerState.PAUSED,
    "suspended": PowerState.PAUSED,
    "halted": PowerState.OFF,
}


def record(value: object) -> Record:
    if not isinstance(value, Mapping):
        raise _odd("a record")
    return value


def records(value: object) -> dict[str, Record]:
    """The answer of get_all_records: {reference: record}."""
    return {reference(key): record(one) for key, one in record(value).items()}


def reference(value: object) -> str:
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise _odd("a reference")
    return value


def references(value: object) -> list[str]:
    if not isinstance(value, list | tuple):
        raise _odd("a list")
    return [reference(one) for one in value]


def text(of: Record, name: str) -> str:
    value = of.get(name)
    if not isinstance(value, str):
        raise _odd(name)
    return value


def flag(of: Record, name: str) -> bool:
    value = of.get(name)
    if not isinstance(value, bool):
        raise _odd(name)
    return value


def number(of: Record, name: str) -> int:
    """XenAPI writes its 64-bit numbers as strings."""
    value = of.get(name)
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise _odd(name)
    return int(value)


def ref(of: Record, name: str) -> str:
    return reference(of.get(name))


def strings(of: Record, name: str) -> dict[str, str]:
    """A map; what in it is no string is left out: guests write into some of them."""
    value = record(of.get(name))
    return {key: one for key, one in value.items() if isinstance(key, str) and isinstance(one, str)}


def mac(of: Record) -> str:
    """A VIF's MAC address, lower case; empty when it is none."""
    value = text(of, "MAC").lower()
    return value if _MAC.fullmatch(value) else ""


def _odd(what: str) -> AnswerRefused:
    return AnswerRefused(f"The pool's answer has not the form of XenAPI's: {what[:40]!r} is not what it must be.")


# VMs --------------------------------------------------------------------------------------------


VM_FIELDS = frozenset(
    {"uuid", "name_label", "power_state", "resident_on", "affinity", "guest_metrics", "other_config"}
    | {"is_a_template", "is_control_domain", "VIFs", "VBDs"}
)


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM, neither template nor snapshot nor a control domain. `uuid` is the one that we know it by.

    `host` is where it runs, or where it was last meant to when it is off; empty for nowhere.
    """

    ref: str
    uuid: str
    own_uuid: str
    name: str
    power: PowerState
    host: str
    ours: bool
    metrics: str
    vifs: tuple[str, ...]
    vbds: tuple[str, ...]
    suspended: bool = False


def vm(ref_: str, of: Record) -> Vm | None:
    """None for what only looks like a VM."""
    if flag(of, "is_a_template") or flag(of, "is_control_domain"):
        return None
    state = text(of, "power_state").lower()
    power = _POWER.get(state, PowerState.RUNNING)
    own, config = text(of, "uuid").lower(), strings(of, "other_config")
    ours = OUR_UUID in config and config.get(OUR_SELF, own) == own
    resident = ref(of, "resident_on")
    home = resident if resident != NULL else ref(of, "affinity")
    return Vm(
        ref=ref_,
        uuid=config[OUR_UUID].lower() if ours else own,
        own_uuid=own,
        name=text(of, "name_label"),
        power=power,
        host="" if home == NULL else home,
        ours=ours,
        metrics=ref(of, "guest_metrics"),
        vifs=tuple(references(of.get("VIFs"))),
        vbds=tuple(references(of.get("VBDs"))),
        suspended=state == "suspended",
    )


# What we write ----------------------------------------------------------------------------------


_VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LABEL = re.compile(r"[^\x00-\x1f\x7f]{1,200}")
_MEDIA_NAME = re.compile(r"[A-Za-z0-9-]{1,100}\.iso")
_OUR_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # an odd first octet is a group address


def vm_name(name: str) -> str:
    return _checked(_VM_NAME, name, "The VM name")


def vm_uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise Refused("The VM's UUID is none.") from None


def label(name: str, what: str) -> str:
    """The name of something that an administrator named."""
    return _checked(_LABEL, name, what)


def media_name(name: str) -> str:
    return _checked(_MEDIA_NAME, name, "The ISO name")


def is_media_name(name: str) -> bool:
    return _MEDIA_NAME.fullmatch(name) is not None


def mac_address(value: str) -> str:
    return _checked(_OUR_MAC, value, "The MAC address")


def plain(value: str) -> str:
    """A text that XML-RPC can carry: the library would send a control character and the pool refuse the call."""
    return "".join(letter if letter.isprintable() else " " for letter in value)[:200]


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise Refused(f"{what} has characters that XenServer or its storage does not take, or is too long.")
    return value


# Expressions of get_all_records_where -----------------------------------------------------------


def where(field: str, *references_: str) -> str:
    """Records whose field is one of these references. Source: xen-api, db_filter_parse.mly."""
    return " or ".join(f'field "{field}" = "{reference(one)}"' for one in references_)
