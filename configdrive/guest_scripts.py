"""Scripts for templates, and what they leave behind in a guest. No database, no hypervisor.

`guest/` holds their sources; what is handed out is complete: the label is filled in and shared parts are
included, so that each is one file to copy into an image.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from networks.volume_label import check_label

# What the last run of a script found and did, in the guest: lines of key=value, in UTF-8, no secrets.
#   version=1                  of this format
#   script=script              or cloud-boothook, or windows
#   ran_at=2026-01-31T23:59:59Z
#   label=config               that was looked for
#   drive=/dev/sr1             where it was found (a directory, a Windows root); empty: not found
#   instance_id=i-2-21-VM      that the drive states
#   user=root                  whose password and keys
#   password=set               or unchanged, absent, deferred (cloud-init's turn), failed; empty: did not get to it
#   keys=set                   likewise; empty also: told to leave them alone
#   user_data_bytes=1024       on the drive; empty: did not get to it
# Unknown keys are for later versions. Writers: write_status in guest/cloud-set-vm-password.sh, Write-Report in the
# .ps1 of the same name.
STATUS_FILE = "/var/lib/extdhcp/status"
WINDOWS_STATUS_FILE = r"C:\ProgramData\extdhcp\status"
MAX_STATUS_BYTES = 4096
_MAX_STATUS_LINES = 40

BOOTHOOK = "cloud-boothook.sh"

_SOURCES = Path(__file__).with_name("guest")
# Source to what it is for.
_SCRIPTS = {
    "config-drive-read.sh": "Linux: print metadata, user data and SSH keys",
    "cloud-set-vm-password.sh": "Linux: set the password and SSH keys, each once per change",
    "extdhcp-config-drive.service": "Linux: systemd unit that runs cloud-set-vm-password.sh at each boot",
    "cloud-set-vm-password.ps1": "Windows: the same in one script, and printing; untried on Windows",
    BOOTHOOK: "cloud-init: the boothook that drives carry for stock images, to be read or tried alone",
}
_MARKS = re.compile(r"^# not in the boothook [{}]\n", re.MULTILINE)
_INCLUDE = re.compile(r"^# include: (\w+\.sh)\n", re.MULTILINE)
_NOT_IN_THE_BOOTHOOK = re.compile(
    r"^# not in the boothook \{\n.*?^# not in the boothook \}\n", re.MULTILINE | re.DOTALL
)


class NoSuchScript(KeyError):
    """There is no guest script of this name."""


class InvalidStatus(ValueError):
    """What a guest gave for its status is not in the format. The text never quotes more than a few words of it."""


def scripts() -> Mapping[str, str]:
    """Each script's file name, and one line that says what it is for."""
    return dict(_SCRIPTS)


def render(name: str, label: str) -> str:
    """The script `name` as it goes into a template that looks for drives with `label`.

    Raises NoSuchScript, and InvalidLabel.
    """
    # A label goes into program text: nothing but what this allows.
    check_label(label)
    if name not in _SCRIPTS:
        raise NoSuchScript(name)
    return boothook(label) if name == BOOTHOOK else _MARKS.sub("", _read(name)).replace("@LABEL@", label)


def boothook(label: str) -> str:
    """A part for cloud-init: cloud-set-vm-password.sh, run at every boot for the user whom cloud-init would give a
    password, and silent at an instance's first boot until cloud-init has set its own.

    Begins with the line "#cloud-boothook". Comments, indentation and options are left out: a drive carries it.
    Raises InvalidLabel. Source: cloud-init, handlers/boot_hook.py.
    """
    check_label(label)
    body = _NOT_IN_THE_BOOTHOOK.sub("", _read("cloud-set-vm-password.sh")).replace("@LABEL@", label)
    lines = [line.strip() for line in body.splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    return "\n".join(["#cloud-boothook", "#!/bin/sh", "boothook=cloud-boothook", *code, ""])


def _read(name: str) -> str:
    source = (_SOURCES / name).read_text(encoding="ascii")
    return _INCLUDE.sub(lambda include: (_SOURCES / include[1]).read_text(encoding="ascii"), source)


class Act(StrEnum):
    """What a script did about a password, or about SSH keys."""

    SET = "set"
    UNCHANGED = "unchanged"
    ABSENT = "absent"  # none on the drive
    DEFERRED = "deferred"  # cloud-init sets an instance's first one
    FAILED = "failed"


@dataclass(frozen=True)
class GuestStatus:
    """What the last run of our script in a guest says of itself. A hostile guest may say anything of this form."""

    script: str
    ran_at: datetime  # by the guest's clock
    label: str
    drive: str | None
    instance_id: str | None
    user: str | None
    password: Act | None
    keys: Act | None
    user_data_bytes: int | None


_FORMS = {
    "version": re.compile(r"1"),
    "script": re.compile(r"script|cloud-boothook|windows"),
    "ran_at": re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"),
    "label": re.compile(r"[A-Za-z0-9_-]{1,32}"),
    "drive": re.compile(r"[A-Za-z0-9/\\:._-]{0,100}"),
    "instance_id": re.compile(r"[A-Za-z0-9._-]{0,64}"),
    # Windows has names of 20 characters in any script of the world.
    "user": re.compile(r"[\w.@ -]{0,64}"),
    "password": re.compile("|".join(Act) + "|"),
    "keys": re.compile("|".join(Act) + "|"),
    "user_data_bytes": re.compile(r"[0-9]{0,9}"),
}


def parse_status(content: bytes) -> GuestStatus:
    """Read the content of STATUS_FILE, which a guest handed over. Raises InvalidStatus."""
    values = _status_values(content)
    for key, form in _FORMS.items():
        if key not in values:
            raise InvalidStatus(f"Line {key}= is missing.")
        if not form.fullmatch(values[key]):
            raise InvalidStatus(f"Line {key}= has a value that no script writes.")
    try:
        ran_at = datetime.strptime(values["ran_at"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise InvalidStatus("Line ran_at= is no point in time.") from error
    return GuestStatus(
        script=values["script"],
        ran_at=ran_at,
        label=values["label"],
        drive=values["drive"] or None,
        instance_id=values["instance_id"] or None,
        user=values["user"] or None,
        password=Act(values["password"]) if values["password"] else None,
        keys=Act(values["keys"]) if values["keys"] else None,
        user_data_bytes=int(values["user_data_bytes"]) if values["user_data_bytes"] else None,
    )


def _status_values(content: bytes) -> dict[str, str]:
    if len(content) > MAX_STATUS_BYTES:
        raise InvalidStatus(f"The file has {len(content)} bytes; no script writes more than {MAX_STATUS_BYTES}.")
    try:
        lines = content.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise InvalidStatus("The file is not UTF-8.") from error
    if len(lines) > _MAX_STATUS_LINES:
        raise InvalidStatus(f"The file has {len(lines)} lines; no script writes more than {_MAX_STATUS_LINES}.")
    values: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        key, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]{1,30}", key) or key in values:
            raise InvalidStatus(f"Line {number} is not a new key and its value.")
        values[key] = value
    return values
