"""Storage repositories, where hosts are plugged into them, and virtual disks.

ISO repositories lie in real directories, so that tests can look at what was written: a host's own directories under
`ROOT/dom0/HOST`, what a server exports under `ROOT/exports/SERVER`. A disk of another repository is a file, of the
bytes that were imported, under `ROOT/disks`; a clone or copy shares nothing with its source. The rules are those of
drivers/ISOSR.py (https://github.com/xapi-project/sm).

Not modelled: snapshots, chains of VHD files and their sizes, SMB's credentials, probing, and SRs with several devices.
"""

import re
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from . import devices
from .calls import Call, Steps, Work, from_record, message
from .classes import NULL
from .database import Database, Row, new_uuid
from .errors import XenError, backend_failure

if TYPE_CHECKING:
    from .simulator import XenServer

GIB = 1024**3
# Matched at the beginning, as the driver does: what follows the extension is not looked at.
_ISO_NAME = re.compile(r"[a-z0-9.-]+\.(iso|img)", re.IGNORECASE)
_DISK_TYPES = ("ext", "lvm", "nfs", "lvmoiscsi", "lvmohba", "smb", "largeblock", "zfs", "xfs")


class Disks:
    """Where the simulated disks lie on this machine."""

    def __init__(self, root: Path, xen: "XenServer") -> None:
        self._root = root
        self._xen = xen
        (root / "disks").mkdir(parents=True, exist_ok=True)

    def in_dom0(self, hostname: str, path: str) -> Path:
        return self._root / "dom0" / hostname / path.lstrip("/")

    def exported(self, location: str) -> Path:
        """`location` is SERVER:/PATH, or //SERVER/SHARE."""
        server, _, path = location.lstrip("/").replace(":", "/").partition("/")
        return self._root / "exports" / server / path.lstrip("/")

    def directory(self, sr: Row) -> Path:
        """Where an ISO repository's files lie."""
        db = self._xen.db
        pbd = db.get("PBD", sr.refs("PBDs")[0])
        return self.of_config(pbd.mapping("device_config"), db.get("host", pbd["host"]).text("hostname"))

    def of_config(self, config: Mapping[str, str], hostname: str) -> Path:
        if "legacy_mode" in config:
            return self.in_dom0(hostname, config["location"])
        return self.exported(config["location"])

    def file(self, vdi: Row) -> Path:
        sr = self._xen.db.get("SR", vdi["SR"])
        if sr["type"] == "iso":
            return self.directory(sr) / vdi.text("location")
        return self._root / "disks" / f"{vdi['uuid']}.raw"


# Repositories ---------------------------------------------------------------------------------------------


_SR_PARAMETERS = ("host", "map", "int", "string", "string", "string", "string", "bool", "map")


@message("SR.create", *_SR_PARAMETERS, optional=1)
def create(
    call: Call,
    host: str,
    device_config: Mapping[str, str],
    physical_size: int,
    name_label: str,
    name_description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Mapping[str, str] | None = None,
) -> Steps:
    if kind == "iso":
        _assert_mountable(call, device_config, call.db.get("host", host).text("hostname"))
    elif kind not in _DISK_TYPES:
        raise XenError("SR_UNKNOWN_DRIVER", kind)
    yield Work("host", host, "sr_create")
    return add_sr(
        call.xen, host, device_config, name_label, name_description, kind, content_type, shared, sm_config or {}
    )


def add_sr(
    xen: "XenServer",
    host: str,
    device_config: Mapping[str, str],
    name_label: str,
    name_description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Mapping[str, str],
    size: int = 500 * GIB,
) -> str:
    """The repository, plugged into `host`, or into all hosts when it is shared."""
    db = xen.db
    if kind == "iso" and "type" in device_config:
        sm_config = {**sm_config, "iso_type": device_config["type"]}
    sr = db.create(
        "SR",
        name_label=name_label,
        name_description=name_description,
        type=kind,
        content_type=content_type,
        shared=shared,
        sm_config=dict(sm_config),
        physical_size=size,
        allowed_operations=("scan", "destroy", "forget", "plug", "unplug", "update", "vdi_create", "vdi_destroy"),
    )
    for row in db.rows("host"):
        if shared or row.ref == host:
            # What is called shared but lies in one host's own directory is there on that host alone.
            is_there = kind != "iso" or xen.disks.of_config(device_config, row.text("hostname")).is_dir()
            db.create("PBD", host=row.ref, SR=sr, device_config=dict(device_config), currently_attached=is_there)
    return sr


def _assert_mountable(call: Call, config: Mapping[str, str], hostname: str) -> None:
    location = config.get("location")
    if location is None:
        raise backend_failure(94)
    legacy = "legacy_mode" in config
    if not legacy and config.get("type") != "cifs" and ":" not in location:
        raise backend_failure(225)
    if not call.xen.disks.of_config(config, hostname).is_dir():
        raise backend_failure(226) if legacy else backend_failure(73, "mount failed with return code 32")


@message("SR.scan", "SR")
def scan(call: Call, sr: str) -> Steps:
    """Of an ISO repository: files put there by other means are found, vanished ones forgotten."""
    row = _plugged(call.db, sr)
    if row["type"] == "iso" and not call.xen.disks.directory(row).is_dir():
        raise backend_failure(47, f"no such directory {call.xen.disks.directory(row).name}")
    yield Work("SR", sr, "scan")
    if row["type"] == "iso":
        _find_files(call, row)


def _find_files(call: Call, sr: Row) -> None:
    db = call.db
    directory = call.xen.disks.directory(sr)
    images = re.compile(r"\.(iso|img)$", re.IGNORECASE)
    present = {
        file.name: file.stat().st_size for file in directory.iterdir() if file.is_file() and images.search(file.name)
    }
    known = {row.text("location"): row for row in (db.get("VDI", ref) for ref in sr.refs("VDIs"))}
    for name, row in known.items():
        if name in present:
            db.set("VDI", row.ref, virtual_size=present[name], physical_utilisation=present[name])
        else:
            devices.let_go(call, row.ref)
            db.delete("VDI", row.ref)
    for name, size in present.items():
        if name not in known:
            values = {"virtual_size": size, "physical_utilisation": size, "read_only": True}
            db.create("VDI", SR=sr.ref, name_label=name, location=name, **values)


@message("SR.introduce", "string", "string", "string", "string", "string", "bool", "map")
def introduce(
    call: Call,
    uuid: str,
    name_label: str,
    name_description: str,
    kind: str,
    content_type: str,
    shared: bool,
    sm_config: Mapping[str, str],
) -> str:
    """Known to the pool, with the UUID that it is given, and plugged in nowhere; whether it can be is not looked."""
    if kind != "iso" and kind not in _DISK_TYPES:
        raise XenError("SR_UNKNOWN_DRIVER", kind)
    if call.db.where("SR", uuid=uuid):
        raise XenError("DB_UNIQUENESS_CONSTRAINT_VIOLATION", "SR", "uuid", uuid)
    return call.db.create(
        "SR",
        uuid=uuid,
        name_label=name_label,
        name_description=name_description,
        type=kind,
        content_type=content_type,
        shared=shared,
        sm_config=dict(sm_config),
        physical_size=500 * GIB,
        allowed_operations=("scan", "destroy", "forget", "plug", "unplug", "update", "vdi_create", "vdi_destroy"),
    )


@message("SR.forget", "SR")
def forget(call: Call, sr: str) -> Steps:
    """The files stay."""
    row = call.db.get("SR", sr)
    if any(call.db.get("PBD", ref)["currently_attached"] for ref in row.refs("PBDs")):
        raise XenError("SR_HAS_PBD", sr)
    yield Work("SR", sr, "forget")
    for class_name, field in (("VDI", "VDIs"), ("PBD", "PBDs")):
        for ref in row.refs(field):
            call.db.delete(class_name, ref)
    call.db.delete("SR", sr)


@message("SR.destroy", "SR")
def destroy(call: Call, sr: str) -> Steps:
    if call.db.get("SR", sr)["VDIs"]:
        raise XenError("SR_NOT_EMPTY")
    return (yield from forget(call, sr))


@message("SR.set_name_label", "SR", "string")
def set_sr_name(call: Call, sr: str, value: str) -> None:
    call.db.set("SR", sr, name_label=value)


@message("SR.set_name_description", "SR", "string")
def set_sr_description(call: Call, sr: str, value: str) -> None:
    call.db.set("SR", sr, name_description=value)


@message("PBD.create", "record")
def create_pbd(call: Call, record: Mapping[str, object]) -> str:
    values = from_record("PBD", record)
    host, sr = call.db.get("host", values["host"]), call.db.get("SR", values["SR"])
    for pbd in call.db.where("PBD", host=host.ref, SR=sr.ref):
        raise XenError("PBD_EXISTS", sr.ref, host.ref, pbd.ref)
    config = values["device_config"]
    return call.db.create("PBD", host=host.ref, SR=sr.ref, device_config=config, currently_attached=False)


@message("PBD.plug", "PBD")
def plug(call: Call, pbd: str) -> Steps:
    row = call.db.get("PBD", pbd)
    sr = call.db.get("SR", row["SR"])
    if sr["type"] == "iso":
        hostname = call.db.get("host", row["host"]).text("hostname")
        _assert_mountable(call, row.mapping("device_config"), hostname)
    yield Work("SR", sr.ref, "plug")
    call.db.set("PBD", pbd, currently_attached=True)


@message("PBD.unplug", "PBD")
def unplug(call: Call, pbd: str) -> Steps:
    row = call.db.get("PBD", pbd)
    for vdi in call.db.get("SR", row["SR"]).refs("VDIs"):
        if devices.used_vdi(call.db, vdi):
            raise XenError("VDI_IN_USE", vdi, "unplug")
    yield Work("SR", row.text("SR"), "unplug")
    call.db.set("PBD", pbd, currently_attached=False)


@message("PBD.destroy", "PBD")
def destroy_pbd(call: Call, pbd: str) -> None:
    if call.db.get("PBD", pbd)["currently_attached"]:
        raise XenError("OPERATION_NOT_ALLOWED", "PBD is currently attached")
    call.db.delete("PBD", pbd)


def reaches(db: Database, host: str, sr: str) -> bool:
    """Whether `host` is plugged into `sr`."""
    pbds = [db.get("PBD", ref) for ref in db.get("SR", sr).refs("PBDs")]
    return any(pbd["host"] == host and pbd["currently_attached"] for pbd in pbds)


def _plugged(db: Database, sr: str) -> Row:
    row = db.get("SR", sr)
    if not any(db.get("PBD", ref)["currently_attached"] for ref in row.refs("PBDs")):
        raise XenError("SR_HAS_NO_PBDS", sr)
    return row


# Virtual disks --------------------------------------------------------------------------------------------------


@message("VDI.create", "record")
def create_vdi(call: Call, record: Mapping[str, object]) -> Steps:
    """In an ISO repository, a file of zeros with the name `sm_config["path"]`; it is not looked whether they fit."""
    values = from_record("VDI", record)
    sr = _plugged(call.db, str(values["SR"]))
    size = int(str(values["virtual_size"]))
    name = _new_file(call, sr, values) if sr["type"] == "iso" else ""
    if sr["type"] != "iso":
        _assert_fits(sr, size)
    yield Work("SR", sr.ref, "vdi_create")
    names = ("name_label", "name_description", "type", "sharable", "read_only", "other_config", "xenstore_data", "tags")
    given = {field: values[field] for field in names if field in values}
    if name:
        _make_file(call, sr, name, size)
        given |= {"location": name, "sm_config": {**_map(values, "sm_config"), "created": _date()}}
    else:
        given |= {"sm_config": _map(values, "sm_config"), "physical_utilisation": size}
    return _add_vdi(call, sr.ref, size, given)


def _map(values: Mapping[str, object], name: str) -> dict[str, str]:
    value = values.get(name, {})
    assert isinstance(value, Mapping), name
    return dict(value)


def _date() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H:%M:%SZ}"


def _new_file(call: Call, sr: Row, values: Mapping[str, object]) -> str:
    name = _map(values, "sm_config").get("path", "")
    if name and not _ISO_NAME.match(name):
        raise backend_failure(78, f'Invalid path "{name}"')
    return name or f"{new_uuid()}.img"


def _make_file(call: Call, sr: Row, name: str, size: int) -> None:
    file = call.xen.disks.directory(sr) / name
    if file.exists():
        raise backend_failure(43)
    try:
        with file.open("xb") as new:
            new.truncate(size)
    except OSError as error:
        raise backend_failure(78, f'could not create file: "{name}"') from error


def _assert_fits(sr: Row, size: int) -> None:
    if size > free_space(sr):
        raise backend_failure(44)


def free_space(sr: Row) -> int:
    return sr.number("physical_size") - sr.number("physical_utilisation")


def _add_vdi(call: Call, sr: str, size: int, values: Mapping[str, object]) -> str:
    uuid = new_uuid()
    values = {"location": uuid, "allowed_operations": ("clone", "copy", "destroy", "resize", "snapshot"), **values}
    vdi = call.db.create("VDI", uuid=uuid, SR=sr, virtual_size=size, **values)
    _count(call.db, sr)
    return vdi


def _count(db: Database, sr: str) -> None:
    """What the disks of a repository take up."""
    row = db.get("SR", sr)
    disks = [db.get("VDI", ref) for ref in row.refs("VDIs")]
    taken = sum(disk.number("physical_utilisation") for disk in disks)
    db.set("SR", sr, physical_utilisation=taken, virtual_allocation=sum(d.number("virtual_size") for d in disks))


@message("VDI.clone", "VDI", "map", optional=1)
def clone(call: Call, vdi: str, driver_params: Mapping[str, str] | None = None) -> Steps:
    """Copy-on-write: takes up nothing yet, but a full repository refuses it too."""
    clonable(call.db, vdi)
    yield Work("VDI", vdi, "clone")
    return clone_vdi(call, vdi)


def clone_vdi(call: Call, vdi: str) -> str:
    row = clonable(call.db, vdi)
    return _copy_values(call, row, row.text("SR"), 0)


def clonable(db: Database, vdi: str) -> Row:
    """Raises SR_OPERATION_NOT_SUPPORTED, SR_HAS_NO_PBDS, and SR_BACKEND_FAILURE_44 for a full repository."""
    row = db.get("VDI", vdi)
    sr = _plugged(db, row.text("SR"))
    if sr["type"] == "iso":
        raise XenError("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    _assert_fits(sr, 4096)
    return row


@message("VDI.copy", "VDI", "SR", "string", "string", optional=2)
def copy(call: Call, vdi: str, sr: str, base: str = NULL, into: str = NULL) -> Steps:
    row = call.db.get("VDI", vdi)
    target = _plugged(call.db, sr)
    if target["type"] == "iso":
        raise XenError("SR_OPERATION_NOT_SUPPORTED", sr)
    if devices.used_vdi(call.db, vdi) and any(call.db.get("VBD", ref)["mode"] == "RW" for ref in row.refs("VBDs")):
        raise XenError("VDI_IN_USE", vdi, "copy")
    if into != NULL:
        return (yield from _copy_into(call, row, into))
    _assert_fits(target, row.number("virtual_size"))
    yield Work("VDI", vdi, "copy")
    return _copy_values(call, row, sr, row.number("virtual_size"))


def _copy_into(call: Call, row: Row, into: str) -> Steps:
    """Only what is on the disk: the other's name and settings stay."""
    if call.db.get("VDI", into).number("virtual_size") < row.number("virtual_size"):
        raise XenError("VDI_TOO_SMALL", into, row["virtual_size"])
    yield Work("VDI", into, "copy")
    _copy_file(call, row, into)
    return into


def _copy_values(call: Call, row: Row, sr: str, utilisation: int) -> str:
    names = ("name_label", "name_description", "type", "sharable", "read_only", "other_config", "sm_config", "tags")
    values = {name: row[name] for name in names}
    vdi = _add_vdi(call, sr, row.number("virtual_size"), {**values, "physical_utilisation": utilisation})
    _copy_file(call, row, vdi)
    return vdi


def _copy_file(call: Call, row: Row, vdi: str) -> None:
    source = call.xen.disks.file(row)
    if source.exists():
        shutil.copyfile(source, call.xen.disks.file(call.db.get("VDI", vdi)))


@message("VDI.resize", "VDI", "int")
def resize(call: Call, vdi: str, size: int) -> Steps:
    row = call.db.get("VDI", vdi)
    sr = _plugged(call.db, row.text("SR"))
    if sr["type"] == "iso":
        raise XenError("SR_OPERATION_NOT_SUPPORTED", sr.ref)
    if devices.used_vdi(call.db, vdi):
        raise XenError("VDI_IN_USE", vdi, "resize")
    if size < row.number("virtual_size"):
        raise backend_failure(79)
    yield Work("VDI", vdi, "resize")
    call.db.set("VDI", vdi, virtual_size=size)
    _count(call.db, sr.ref)


@message("VDI.destroy", "VDI")
def destroy_vdi(call: Call, vdi: str) -> Steps:
    """The record and the file."""
    row = call.db.get("VDI", vdi)
    _plugged(call.db, row.text("SR"))
    if devices.used_vdi(call.db, vdi):
        raise XenError("VDI_IN_USE", vdi, "destroy")
    yield Work("VDI", vdi, "destroy")
    file = call.xen.disks.file(row)
    devices.let_go(call, vdi)
    call.db.delete("VDI", vdi)
    file.unlink(missing_ok=True)
    _count(call.db, row.text("SR"))


@message("VDI.forget", "VDI")
def forget_vdi(call: Call, vdi: str) -> Steps:
    yield Work("VDI", vdi, "forget")
    devices.let_go(call, vdi)
    call.db.delete("VDI", vdi)


@message("VDI.set_name_label", "VDI", "string")
def set_name_label(call: Call, vdi: str, value: str) -> None:
    call.db.set("VDI", vdi, name_label=value)


@message("VDI.set_name_description", "VDI", "string")
def set_name_description(call: Call, vdi: str, value: str) -> None:
    call.db.set("VDI", vdi, name_description=value)


@message("VDI.set_read_only", "VDI", "bool")
def set_read_only(call: Call, vdi: str, value: bool) -> None:
    call.db.set("VDI", vdi, read_only=value)


@message("VDI.set_sharable", "VDI", "bool")
def set_sharable(call: Call, vdi: str, value: bool) -> None:
    call.db.set("VDI", vdi, sharable=value)


def assert_is_iso(db: Database, vdi: str) -> None:
    """A CD drive takes discs of ISO repositories only."""
    sr = db.get("SR", db.get("VDI", vdi)["SR"])
    if sr["content_type"] != "iso":
        raise XenError("VDI_IS_NOT_ISO", vdi, sr["type"])


def assert_present(call: Call, vdi: str) -> None:
    """Raises SR_BACKEND_FAILURE_144 when the file behind a disc has vanished."""
    row = call.db.get("VDI", vdi)
    if call.db.get("SR", row["SR"])["type"] == "iso" and not call.xen.disks.file(row).exists():
        raise backend_failure(144)


def took(db: Database, vdi: str, size: int) -> None:
    """A file of holes has been written to."""
    with db.lock:
        db.set("VDI", vdi, physical_utilisation=size)
        _count(db, db.get("VDI", vdi).text("SR"))
