"""Config drives: ISO images in a repository for such, and the CD-ROM of our own that a VM reads them through.

An image comes to a repository over HTTPS, without a shell on the host: a VDI whose `sm_config` names its file is
created and then filled. Sources: xapi-project/sm, ISOSR.py; xen-api, import_raw_vdi.ml and xapi_vbd.ml.
"""

import contextlib
import uuid
from collections.abc import Iterator

from networks.hypervisors import xenserver_records as records
from networks.hypervisors import xenserver_storage as storage
from networks.hypervisors.base import (
    Busy,
    DoNotTryAgain,
    EndpointUnreachable,
    HypervisorError,
    Media,
    MediaFile,
    NotFound,
    PowerState,
    Refused,
    StorageProblem,
)
from networks.hypervisors.bounded import FILE_MAX, StatusRefused
from networks.hypervisors.xenserver_records import NULL, Vm
from networks.hypervisors.xenserver_session import Session
from networks.hypervisors.xenserver_storage import Store

STORE = "ConfigDriveISOs"
DIRECTORY = "/opt/xensource/packages/iso/configdrive_iso"
MEDIA_MAX_BYTES = FILE_MAX
_OWN_UUIDS = uuid.UUID("6a1f2c0e-9a43-4c53-8a55-0d0f5a7c3b16")

# An HVM guest sees CD-ROMs at these places alone, of which 0 is the ROOT disk's, and 3 the usual one for a disc of
# the user's own.
PLACES = ("2", "1", "3")

# Where images lie -------------------------------------------------------------------------------


def store(session: Session, host: str, name: str) -> Store | None:
    """The repository for config drives: the pool's shared one beside primary storage `name`, or the host's own for "".

    Raises StorageProblem (no such primary storage), Refused (one that only one host sees).
    """
    if name and not storage.primary(session, host, name).shared:
        raise Refused(f"Storage repository {name} is not shared: its config drives lie on the hosts.")
    return next((one for one in stores(session, host) if one.shared == bool(name)), None)


def stores(session: Session, host: str) -> list[Store]:
    """All repositories for config drives that the host has."""
    return [one for one in storage.stores(session, host) if one.name == STORE and one.isos]


def store_to_fill(session: Session, host: str, name: str) -> Store:
    """As `store`; the host's own is made when it lacks. Raises Refused for a pool without a shared one."""
    found = store(session, host, name)
    if found is None and name:
        raise Refused(f"The pool has no shared ISO repository {STORE}: its config drives lie on the hosts.")
    if found is None:
        found = _make_local(session, host)
    if not found.plugged:
        with contextlib.nullcontext() if found.shared else _directory_named():
            session.run("PBD.plug", found.pbd)
    return found


def _make_local(session: Session, host: str) -> Store:
    """The host's own repository, to be plugged. Each step may have been done, or be done just now, by another."""
    # Its UUID follows from the host's, so that there is one, however many make it: two over one directory would each
    # know of its own files alone.
    own = str(uuid.uuid5(_OWN_UUIDS, records.text(session.record("host", host), "uuid")))
    about = "Config drives of the VMs on this host. Made by extdhcp."
    try:
        made = records.reference(session.call("SR.introduce", own, STORE, about, "iso", "iso", False, {}))
    except HypervisorError as error:
        try:
            made = records.reference(session.call("SR.get_by_uuid", own))
        except NotFound:
            raise error from None
    place = {"location": DIRECTORY, "legacy_mode": "true"}
    try:
        session.call("PBD.create", {"host": host, "SR": made, "device_config": place, "other_config": {}})
    except HypervisorError:
        if not _connections(session, host, made):
            raise
    for found in _connections(session, host, made):
        return found
    raise Busy(f"The ISO repository {STORE} was just taken away.")


def _connections(session: Session, host: str, repository: str) -> list[Store]:
    return [one for one in stores(session, host) if one.ref == repository]


@contextlib.contextmanager
def _directory_named() -> Iterator[None]:
    """Whoever has to mend the host is told what."""
    try:
        yield
    except StorageProblem as error:
        raise StorageProblem(
            f"No config drive can be kept on the host: make the directory {DIRECTORY} in its dom0, once (mkdir -p)."
        ) from error


def path(name: str) -> str:
    """What a drive is said to hold. The same in each repository, so that it stays while a VM moves between hosts."""
    return f"{STORE}/{name}"


# Images -----------------------------------------------------------------------------------------


def place(session: Session, host: str, where: Store, name: str, content: bytes) -> None:
    """Store an image. What a former attempt left under the name is replaced, unless a VM reads it (Busy)."""
    remove(session, where, name)
    vdi = _create(session, where, name, len(content))
    try:
        _fill(session, host, where, vdi, content)
        session.call("VDI.add_to_other_config", vdi, records.OUR_BYTES, str(len(content)))
    except BaseException:
        with contextlib.suppress(HypervisorError):
            storage.destroy(session, vdi)
        raise


def _create(session: Session, where: Store, name: str, size: int) -> str:
    description = {
        "name_label": name,
        "name_description": "",
        "SR": where.ref,
        "virtual_size": str(size),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {records.OURS: records.CONFIG_DRIVE},
        "xenstore_data": {},
        "sm_config": {"path": name},
        "tags": [],
    }
    try:
        return records.reference(session.call("VDI.create", description))
    except StorageProblem:
        # A file that the pool has not heard of may be in the way.
        session.run("SR.scan", where.ref)
        if not storage.disks_named(session, where, name):
            raise
        remove(session, where, name)
    return records.reference(session.call("VDI.create", description))


def _fill(session: Session, host: str, where: Store, vdi: str, content: bytes) -> None:
    # The answer to a PUT comes before the data is stored: what came of it, the task says.
    task = records.reference(session.call("task.create", "extdhcp: a config drive", ""))
    try:
        with contextlib.closing(session.door(_door(session, host, where))) as door:
            query = {"session_id": session.credential, "task_id": task, "vdi": vdi, "format": "raw"}
            door.put("/import_raw_vdi", content, session.deadline, query=query)
    except BaseException:
        session.forget(task)
        raise
    session.wait_for(task)


def read(session: Session, host: str, where: Store, name: str) -> bytes:
    """An image's bytes. Raises NotFound."""
    for vdi, disk in storage.disks_named(session, where, name).items():
        size = _size(disk) or records.number(disk, "virtual_size")
        if size > MEDIA_MAX_BYTES:
            raise Refused("The image is larger than any config drive.")
        try:
            content = _content(session, host, where, vdi)
        except StatusRefused:
            # Somebody may have deleted its file, which the pool finds out when it looks.
            session.run("SR.scan", where.ref)
            if session.find("VDI", vdi) is not None:
                raise
            break
        if len(content) < size:  # the answer has no length of its own
            raise EndpointUnreachable("The pool broke off in the middle of the image.")
        return content[:size]
    raise NotFound(f"Repository {where.name} has no ISO {name}.")


def _content(session: Session, host: str, where: Store, vdi: str) -> bytes:
    with contextlib.closing(session.door(_door(session, host, where))) as door:
        query = {"session_id": session.credential, "vdi": vdi, "format": "raw"}
        return door.get("/export_raw_vdi", session.deadline, query=query, most=MEDIA_MAX_BYTES)


def _door(session: Session, host: str, where: Store) -> str:
    """The host through which a repository's files go: others would only send us on to it."""
    coordinator = records.ref(session.pool()[1], "master")
    if coordinator == host or not where.shared:
        return host
    plugged = [
        records.ref(pbd, "host")
        for pbd in session.where("PBD", "SR", where.ref).values()
        if records.flag(pbd, "currently_attached")
    ]
    return coordinator if coordinator in plugged else host


def remove(session: Session, where: Store, name: str) -> None:
    for vdi in storage.disks_named(session, where, name):
        storage.destroy(session, vdi)


def files(session: Session, where: Store, name: str = "") -> list[MediaFile]:
    """Images whose names have the form of ours, or the one of this name: that costs no look at the others.

    The size of one that was not filled to its end is 0.
    As the pool knows them: while it looks for itself, no image can be made or removed.
    """
    found = storage.disks_named(session, where, name) if name else storage.disks(session, where)
    listed = [
        MediaFile(label, _size(disk))
        for disk in found.values()
        if records.is_media_name(label := records.text(disk, "name_label"))
    ]
    return sorted(listed, key=lambda file: file.name)


def _size(disk: records.Record) -> int:
    told = records.strings(disk, "other_config").get(records.OUR_BYTES, "")
    return int(told) if told.isdecimal() and len(told) < 12 else 0


# Our CD-ROM -------------------------------------------------------------------------------------


def add_drive(session: Session, vm: str) -> str:
    """Give a VM that is off an empty CD-ROM of our own. Raises Refused when it has no place for one."""
    free = session.call("VM.get_allowed_VBD_devices", vm)
    device = next((place for place in PLACES if isinstance(free, list) and place in free), None)
    if device is None:
        raise Refused("The VM has no place for the CD-ROM of its config drive: take one of its CD-ROMs away.")
    drive = {
        "VM": vm,
        "VDI": NULL,
        "userdevice": device,
        "bootable": False,
        "mode": "RO",
        "type": "CD",
        "unpluggable": True,
        "empty": True,
        "other_config": {records.OURS: records.CONFIG_DRIVE},
        "qos_algorithm_type": "",
        "qos_algorithm_params": {},
    }
    return records.reference(session.call("VBD.create", drive))


def drive(session: Session, vm: Vm) -> tuple[str, records.Record] | None:
    """Our CD-ROM of a VM."""
    for ref, vbd in session.where("VBD", "VM", vm.ref).items():
        config = records.strings(vbd, "other_config")
        if records.text(vbd, "type") == "CD" and config.get(records.OURS) == records.CONFIG_DRIVE:
            return ref, vbd
    return None


def insert(session: Session, host: str, vm: Vm, media: Media | None) -> None:
    """Put `media` into our CD-ROM, or take out what it holds."""
    found = drive(session, vm)
    off = vm.power is PowerState.OFF
    if not off and (found is None or not records.flag(found[1], "currently_attached")):
        raise Refused("The running VM has lost the CD-ROM of its config drive: it needs a stop and a start.")
    wanted = None if media is None else image(session, host, media)
    ref, holds = (add_drive(session, vm.ref), NULL) if found is None else (found[0], _holds(found[1]))
    if holds == (wanted or NULL):
        return
    if holds != NULL:
        eject(session, ref)
    if wanted is not None:
        session.run("VBD.insert", ref, wanted)


def eject(session: Session, drive_: str) -> None:
    """Raises Busy when the guest keeps the tray shut."""
    try:
        session.run("VBD.eject", drive_)
    except DoNotTryAgain:
        if _holds(session.record("VBD", drive_)) != NULL:
            raise


def image(session: Session, host: str, media: Media) -> str:
    """The VDI of an image that the host sees: its own before the pool's. Raises NotFound."""
    name = records.media_name(media.name)
    for where in sorted(stores(session, host), key=lambda one: one.shared):
        for vdi in storage.disks_named(session, where, name):
            return vdi
    raise NotFound(f"The host has no ISO {name}.")


def inserted(session: Session, vm: Vm) -> str | None:
    """What our CD-ROM is said to hold: see `path`."""
    found = drive(session, vm)
    if found is None or (holds := _holds(found[1])) == NULL:
        return None
    disk = session.find("VDI", holds)
    if disk is None:
        return None
    repository = session.record("SR", records.ref(disk, "SR"))
    return f"{records.text(repository, 'name_label')}/{records.text(disk, 'name_label')}"


def _holds(vbd: records.Record) -> str:
    return NULL if records.flag(vbd, "empty") else records.ref(vbd, "VDI")


# While a VM moves -------------------------------------------------------------------------------


def local_disc(session: Session, vm: Vm) -> tuple[str, str] | None:
    """Our CD-ROM and the name of what it holds, when that lies where only this host sees it."""
    found = drive(session, vm)
    if found is None or (holds := _holds(found[1])) == NULL:
        return None
    disk = session.record("VDI", holds)
    if records.flag(session.record("SR", records.ref(disk, "SR")), "shared"):
        return None
    return found[0], records.text(disk, "name_label")


def put_back(session: Session, host: str, drive_: str, name: str) -> None:
    """The disc of this name into a CD-ROM that was emptied for the move. A host that lacks it leaves it empty."""
    with contextlib.suppress(NotFound):
        session.run("VBD.insert", drive_, image(session, host, Media(name, path(name))))
