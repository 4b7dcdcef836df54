"""A pool's storage repositories as one of its hosts sees them, and the ROOT volumes on them.

Sources: XenAPI reference, classes SR, PBD and VDI. A PBD is a host's connection to an SR; a VDI is a disk on one.
"""

import contextlib
import time
from dataclasses import dataclass

from networks.hypervisors import xenserver_records as records
from networks.hypervisors.base import (
    Busy,
    HypervisorError,
    ImageRoot,
    NotFound,
    Refused,
    StorageProblem,
    StorageRoom,
    beat,
)
from networks.hypervisors.bounded_xmlrpc import RECORDS, keeping
from networks.hypervisors.xenserver_session import Session

POLL_SECONDS = 0.5

_SR = frozenset({"uuid", "name_label", "shared", "content_type", "type"})
_VDI = frozenset({"name_label", "virtual_size", "other_config"})


@dataclass(frozen=True)
class Store:
    """A storage repository that a host is connected to by `pbd`; `plugged` when it can be used."""

    ref: str
    uuid: str
    name: str
    shared: bool
    isos: bool
    pbd: str
    plugged: bool


def stores(session: Session, host: str) -> list[Store]:
    """A host's, sorted so that each who looks for one of a name takes the same."""
    pbds = session.where("PBD", "host", host)
    with keeping(_SR, depth=RECORDS):
        repositories = records.records(session.call("SR.get_all_records"))
    found = [
        _store(repositories[sr], sr, pbd, record)
        for pbd, record in pbds.items()
        if (sr := records.ref(record, "SR")) in repositories
    ]
    return sorted(found, key=lambda store: store.uuid)


def _store(repository: records.Record, ref: str, pbd: str, connection: records.Record) -> Store:
    return Store(
        ref=ref,
        uuid=records.text(repository, "uuid"),
        name=records.text(repository, "name_label"),
        shared=records.flag(repository, "shared"),
        isos=records.text(repository, "content_type") == "iso",
        pbd=pbd,
        plugged=records.flag(connection, "currently_attached"),
    )


def primary(session: Session, host: str, name: str) -> Store:
    """The repository of this name that holds disks. Raises StorageProblem."""
    label = records.label(name, "The storage's name")
    for store in stores(session, host):
        if store.name == label and not store.isos:
            return in_use(store)
    raise StorageProblem(f"The host has no storage repository {name}: create or connect it there.")


def in_use(store: Store) -> Store:
    if not store.plugged:
        raise StorageProblem(f"Storage repository {store.name} is not plugged on the host: plug it there.")
    return store


def room(session: Session, store: Store) -> StorageRoom:
    """As the pool's own scan found it last."""
    sizes = {name: session.call(f"SR.get_{name}", store.ref) for name in ("physical_size", "physical_utilisation")}
    total, taken = (records.number(sizes, name) for name in sizes)
    return StorageRoom(total, max(total - taken, 0))


def disks(session: Session, store: Store) -> dict[str, records.Record]:
    """All that lie in a repository; of each only its name, its size and our marks."""
    with keeping(_VDI, depth=RECORDS):
        return session.where("VDI", "SR", store.ref)


def disks_named(session: Session, store: Store, name: str) -> dict[str, records.Record]:
    found = session.named("VDI", name)
    return {ref: vdi for ref, vdi in found.items() if records.ref(vdi, "SR") == store.ref}


def destroy(session: Session, vdi: str) -> None:
    """Gone already is success. Raises Busy while a VM has it."""
    with contextlib.suppress(NotFound):
        session.run("VDI.destroy", vdi)


# ROOT volumes -----------------------------------------------------------------------------------


def root(session: Session, host: str, volume: str) -> str | None:
    """Our ROOT volume of this name. Raises Refused when it lies where the host does not see it.

    It is looked for in the whole pool: to make one that is there already would hide what a user has on it.
    """
    found = _roots(session, volume)
    # An administrator's copy has the name and the mark as well. One that he moved is a copy without its original.
    roots = {ref: vdi for ref, vdi in found.items() if _is_itself(vdi)} or found
    if len(roots) > 1:
        raise Refused(f"The pool has {len(roots)} volumes {volume}: rename all but the one that is the VM's.")
    for ref, vdi in roots.items():
        _check_seen(session, host, volume, records.ref(vdi, "SR"))
        if not _is_itself(vdi):
            _mark(session, ref, vdi)
        return ref
    return None


def _roots(session: Session, volume: str) -> dict[str, records.Record]:
    named = session.named("VDI", records.label(volume, "The volume's name"))
    return {
        ref: vdi
        for ref, vdi in named.items()
        if records.strings(vdi, "other_config").get(records.OURS) == records.ROOT and not vdi.get("is_a_snapshot")
    }


def _is_itself(vdi: records.Record) -> bool:
    """Whether it is what we made, and no copy of that."""
    own = records.text(vdi, "uuid")
    return records.strings(vdi, "other_config").get(records.OUR_SELF, own) == own


def _mark(session: Session, ref: str, vdi: records.Record) -> None:
    marks = {records.OURS: records.ROOT, records.OUR_SELF: records.text(vdi, "uuid")}
    session.call("VDI.set_other_config", ref, marks)


def _check_seen(session: Session, host: str, volume: str, repository: str) -> None:
    for store in stores(session, host):
        if store.ref == repository:
            in_use(store)
            return
    homes = [records.ref(pbd, "host") for pbd in session.where("PBD", "SR", repository).values()]
    names = ", ".join(sorted(records.plain(records.text(session.record("host", home), "name_label")) for home in homes))
    raise Refused(
        f"Volume {volume} lies on storage that the host does not see, of {names or 'no host'}: start the VM there, or "
        "move the volume; a primary storage that each host has its own of is to be marked as not shared."
    )


def ensure_root(session: Session, host: str, wanted: ImageRoot) -> None:
    """A clone of the template's first disk where it lies on the same repository, else a copy."""
    store = primary(session, host, wanted.pool)
    if root(session, host, wanted.volume) is not None:
        return
    _destroy_unfinished(session, wanted.volume)
    image, disk = template_disk(session, wanted.image)
    size = records.number(disk, "virtual_size")
    if wanted.size and wanted.size < size:
        raise Refused(f"Template {wanted.image} is larger than the ROOT volume asked for.")
    try:
        if records.ref(disk, "SR") == store.ref:
            made = _clone(session, wanted)
            if wanted.size > size:
                session.run("VDI.resize", made, str(wanted.size))
        else:
            made = _copy(session, image, store, wanted, max(size, wanted.size))
        _mark(session, made, session.record("VDI", made))
        # Last: it is by this name that it counts as made.
        session.call("VDI.set_name_label", made, wanted.volume)
    except HypervisorError:
        with contextlib.suppress(HypervisorError):
            _destroy_unfinished(session, wanted.volume)
        raise


def _clone(session: Session, wanted: ImageRoot) -> str:
    """A clone of the template's first disk.

    Of the whole template, of which all but the disk goes again: it has its name from its first moment, while the
    clone of a disk is called as the original, and would be nobody's when its worker died.
    """
    name = _unfinished(wanted.volume)
    clone = records.reference(session.run("VM.clone", template(session, wanted.image)[0], name))
    made, *others = _disks(session, session.record("VM", clone))
    session.call("VDI.set_name_label", made, name)
    for other in others:
        destroy(session, other)
    session.run("VM.destroy", clone)
    return made


def _copy(session: Session, image: str, store: Store, wanted: ImageRoot, size: int) -> str:
    made = records.reference(session.call("VDI.create", _description(_unfinished(wanted.volume), store, size)))
    session.run("VDI.copy", image, store.ref, records.NULL, made)
    return made


def delete_root(session: Session, host: str, unwanted: ImageRoot) -> None:
    """On whichever repository of the pool it lies."""
    _destroy_unfinished(session, unwanted.volume)
    found = [ref for ref, vdi in _roots(session, unwanted.volume).items() if _is_itself(vdi)]
    if not found:
        primary(session, host, unwanted.pool)  # a pool that lacks it does not know what is on it
    for ref in found:
        destroy(session, ref)


def _unfinished(volume: str) -> str:
    """The name of one that is being made, or was when its worker died."""
    return records.label(f"{volume} (unfinished)", "The volume's name")


def _destroy_unfinished(session: Session, volume: str) -> None:
    """A copy goes on in the pool when its worker has died: it is waited for. Raises Busy."""
    clones = session.named("VM", _unfinished(volume))
    disks_ = [disk for clone in clones.values() for disk in _disks(session, clone)]
    for ref in [*disks_, *session.named_refs("VDI", _unfinished(volume))]:
        _destroy_in_time(session, ref)
    # Last: it is through them that their disks are found.
    for clone in clones:
        with contextlib.suppress(NotFound):
            session.run("VM.destroy", clone)


def _destroy_in_time(session: Session, vdi: str) -> None:
    while True:
        try:
            return destroy(session, vdi)
        except Busy:
            if time.monotonic() + POLL_SECONDS > session.deadline:
                raise
            time.sleep(POLL_SECONDS)
            beat()


def _description(name: str, store: Store, size: int) -> dict[str, object]:
    return {
        "name_label": name,
        "name_description": "",
        "SR": store.ref,
        "virtual_size": str(size),
        "type": "user",
        "sharable": False,
        "read_only": False,
        "other_config": {},
        "xenstore_data": {},
        "sm_config": {},
        "tags": [],
    }


def template(session: Session, name: str) -> tuple[str, records.Record]:
    """The template of this name. Raises NotFound, Refused when there are several."""
    label = records.label(name, "The template's name")
    found = [
        (ref, vm)
        for ref, vm in session.named("VM", label).items()
        if records.flag(vm, "is_a_template") and not vm.get("is_a_snapshot")
    ]
    if not found:
        raise NotFound(f"The pool has no template {name}.")
    if len(found) > 1:
        raise Refused(f"The pool has {len(found)} templates of the name {name}: give each its own.")
    return found[0]


def template_disk(session: Session, name: str) -> tuple[str, records.Record]:
    """A template's first disk."""
    for vdi in _disks(session, template(session, name)[1]):
        return vdi, session.record("VDI", vdi)
    raise Refused(f"Template {name} has no disk: install one and make it a template.")


def _disks(session: Session, vm: records.Record) -> list[str]:
    """Of a VM or template, in the order of their places."""
    found = (session.find("VBD", vbd) for vbd in records.references(vm.get("VBDs")))
    vbds = [vbd for vbd in found if vbd is not None and records.text(vbd, "type") == "Disk"]
    vdis = [records.ref(vbd, "VDI") for vbd in sorted(vbds, key=lambda one: records.number(one, "userdevice"))]
    return [vdi for vdi in vdis if vdi != records.NULL]
