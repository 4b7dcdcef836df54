"""What a config drive says: a VM's facts in, paths and bytes out. No database, no disk, no clock.

One layout serves every guest: the names of the config drive spec, the hyphenated names that CloudStack
uses today, and the OpenStack tree that cloud-init, cloudbase-init, Ignition and Afterburn read. Only
the volume's label differs from guest to guest, and that is not decided here.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from uuid import UUID

METADATA_DIR = "cloudstack/metadata"
PASSWORD_FILE = "cloudstack/password/vm_password.txt"  # noqa: S105
# CloudStack's Windows script asks for the first name, its drive writes the second.
PASSWORD_CHECKSUM_FILES = (
    "cloudstack/password/vm_password_md5checksum.txt",
    "cloudstack/password/vm-password-md5checksum.txt",
)
# The same bytes under three names: CloudStack's and Ignition's, the external DHCP/DNS spec's, OpenStack's.
USER_DATA_FILES = (
    "cloudstack/userdata/user_data.txt",
    "cloudstack/userdata/userdata.txt",
    "openstack/latest/user_data",
)
META_DATA_FILE = "openstack/latest/meta_data.json"
VENDOR_DATA_FILE = "openstack/latest/vendor_data.json"
NETWORK_DATA_FILE = "openstack/latest/network_data.json"

# To CloudStack's guest scripts this word means "your password did not change".
PASSWORD_UNCHANGED = "saved_password"  # noqa: S105

# What ends a line for some reader (Python, a shell, YAML), and what UTF-8 or YAML cannot carry.
_NOT_IN_A_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class DriveError(ValueError):
    """A config drive cannot be made from this input; trying again without changing it is of no use."""


class InvalidValue(DriveError):
    """A fact that does not fit on the drive. The text names the fact and never shows a secret."""


@dataclass(frozen=True)
class DriveFacts:
    """All that one VM's drive is made of. An empty or absent value leaves its file or key out.

    `uuid` is the SMBIOS UUID that the guest sees: cloud-init takes a new one for a new machine.
    `cloud_identifier` is the cloud's bare UUID, `user_data` the decoded bytes, `password` clear text,
    there only while it waits to be set. `windows` adds the checksums that CloudStack's Windows script needs.
    `macs` are those of all NICs, lower case, the default one first; `per_boot_script` is a boothook for
    cloud-init, which by itself sets a password at an instance's first boot only. With
    `always_keys_file`, a VM without keys has an empty file of them: to Afterburn a missing one is an error.
    """

    uuid: str
    instance_name: str
    vm_number: int
    hostname: str
    availability_zone: str
    service_offering: str
    cloud_identifier: str
    local_ipv4: str | None = None
    public_keys: tuple[str, ...] = ()
    user_data: bytes | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    windows: bool = False
    macs: tuple[str, ...] = ()
    always_keys_file: bool = False
    per_boot_script: str = ""


def drive_files(facts: DriveFacts) -> dict[str, bytes]:
    """The files of the VM's drive: path from the root, with slashes, to content.

    Raises InvalidValue. Sources: config drive spec, "Config drive contents"; external DHCP/DNS spec,
    "UserData, metadata, ssh key"; OpenStack's metadata format, version "latest".
    """
    _check(facts)
    return {
        **_metadata_files(facts),
        **_password_files(facts),
        **(dict.fromkeys(USER_DATA_FILES, facts.user_data) if facts.user_data else {}),
        META_DATA_FILE: _json(_meta_data(facts)),
        # Without this file guests ask by DHCP on their first NIC, which is what the spec wants; an empty one
        # makes cloud-init leave every NIC down.
        **({NETWORK_DATA_FILE: _json(_network_data(facts))} if len(facts.macs) > 1 else {}),
        VENDOR_DATA_FILE: _json(_vendor_data(facts)),
    }


def _check(facts: DriveFacts) -> None:
    for name in ("instance_name", "hostname", "cloud_identifier"):
        _check_line(name, getattr(facts, name))
    _check_line("local_ipv4", facts.local_ipv4 or "")
    _check_line("password", facts.password or "")
    for number, key in enumerate(facts.public_keys, start=1):
        _check_line(f"public key {number}", key)
    try:
        UUID(facts.uuid)
    except ValueError as error:
        raise InvalidValue(f"uuid: {facts.uuid[:64]!r} is not a UUID; give the VM's SMBIOS UUID.") from error
    if facts.password == PASSWORD_UNCHANGED:
        raise InvalidValue(f"password: guests take {PASSWORD_UNCHANGED!r} for no change; choose another one.")


def _check_line(name: str, value: str) -> None:
    if _NOT_IN_A_LINE.search(value):
        raise InvalidValue(f"{name}: must be one line of text; take out line breaks and control characters.")


def _one_line(name: str) -> str:
    """An operator's name for something: not worth a drive if it has a line break in it."""
    return _NOT_IN_A_LINE.sub(" ", name)


def _metadata_files(facts: DriveFacts) -> dict[str, bytes]:
    values = {
        "availability_zone": _one_line(facts.availability_zone),
        "cloud_identifier": f"CloudStack-{{{facts.cloud_identifier}}}" if facts.cloud_identifier else "",
        "instance_id": facts.instance_name,
        "local_hostname": facts.hostname,
        "local_ipv4": facts.local_ipv4,
        # Scripts append this file to authorized_keys, so it alone ends with a newline: Afterburn
        # takes the others whole.
        "public_keys": "".join(f"{key}\n" for key in facts.public_keys if key),
        "service_offering": _one_line(facts.service_offering),
        "vm_id": str(facts.vm_number),
    }
    wanted = {name: value for name, value in values.items() if value}
    if facts.always_keys_file:
        wanted.setdefault("public_keys", "")
    return {
        f"{METADATA_DIR}/{spelling}.txt": value.encode()
        for name, value in wanted.items()
        for spelling in (name, name.replace("_", "-"))
    }


def _password_files(facts: DriveFacts) -> dict[str, bytes]:
    if not facts.password:
        return {}
    content = facts.password.encode()
    files = {PASSWORD_FILE: content}
    if facts.windows:
        # Not a protection: the script compares it with the last one to see whether to act.
        checksum = hashlib.md5(content, usedforsecurity=False).hexdigest().encode()
        files |= dict.fromkeys(PASSWORD_CHECKSUM_FILES, checksum)
    return files


def _meta_data(facts: DriveFacts) -> dict[str, object]:
    # One key a value: Afterburn parses each. cloudbase-init also reads `keys`, and `admin_pass`.
    keys = {f"key-{number}": key for number, key in enumerate(filter(None, facts.public_keys), start=1)}
    values: dict[str, object] = {
        "uuid": str(UUID(facts.uuid)),
        "name": facts.hostname,
        "hostname": facts.hostname,
        "availability_zone": _one_line(facts.availability_zone),
        "public_keys": keys,
        "keys": [{"name": name, "type": "ssh", "data": key} for name, key in keys.items()],
        "admin_pass": facts.password,
    }
    return {name: value for name, value in values.items() if value}


def _network_data(facts: DriveFacts) -> dict[str, list[dict[str, str]]]:
    """DHCP on every NIC: of several, cloud-init would else configure the first alone.

    It finds NICs by MAC, and one that the guest lacks ends its first stage: the drive follows every change of NICs.
    """
    names = {f"nic{number}": mac for number, mac in enumerate(facts.macs)}
    return {
        "links": [{"id": name, "type": "phy", "ethernet_mac_address": mac} for name, mac in names.items()],
        "networks": [{"id": name, "link": name, "type": "ipv4_dhcp"} for name in names],
        "services": [],
    }


def _vendor_data(facts: DriveFacts) -> dict[str, str | list[str]]:
    """What cloud-init needs to set a password: it reads neither `admin_pass` nor CloudStack's file."""
    parts = [part for part in (_password_config(facts), facts.per_boot_script) if part]
    return {"cloud-init": parts[0] if len(parts) == 1 else parts} if parts else {}


def _password_config(facts: DriveFacts) -> str:
    if not facts.password:
        return ""
    # Clear text and not a crypt hash: the drive holds it in clear for the other readers anyway, and
    # Python 3.13 has no crypt module. A JSON string is a YAML scalar, but only unescaped beyond
    # ASCII: JSON writes an emoji as two surrogates, which YAML does not put together again.
    scalar = json.dumps(facts.password, ensure_ascii=False)
    return f"#cloud-config\npassword: {scalar}\nchpasswd: {{expire: false}}\nssh_pwauth: true\n"


def _json(value: object) -> bytes:
    return json.dumps(value).encode()
