"""A pool's storage repositories as one of its hosts sees them, and the ROOT volumes on them.

Sources: XenAPI reference, classes SR, PBD and VDI. A PBD is a host's connection to an SR; a VDI is a disk on one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from networks.hypervisors import xenserver_records as records
from networks.hypervisors.base import HypervisorError, ImageRoot, NotFound, Refused, StorageProblem
from networks.hypervisors.bounded_xmlrpc import RECORDS, keeping
from networks.hypervisors.xenserver_session import Session

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


def root(session: Session, store: Store, volume: str) -> str | None:
    """Our ROOT volume of this name."""
    for ref, vdi in disks_named(session, store, records.label(volume, "The volume's name")).items():
        if records.strings(vdi, "other_config").get(records.OURS) == records.ROOT:
            return ref
    return None


def ensure_root(session: Session, host: str, wanted: ImageRoot) -> None:
    """A clone of the template's first disk where it lies on the same repository, else a copy."""
    store = primary(session, host, wanted.pool)
    if root(session, store, wanted.volume) is not None:
        return
    image, disk = template_disk(session, wanted.image)
    size = records.number(disk, "virtual_size")
    if wanted.size and wanted.size < size:
        raise Refused(f"Template {wanted.image} is larger than the ROOT volume asked for.")
    if records.ref(disk, "SR") == store.ref:
        made = records.reference(session.call("VDI.clone", image, {}))
    else:
        made = records.reference(session.run("VDI.copy", image, store.ref))
    try:
        if wanted.size > size:
            session.run("VDI.resize", made, str(wanted.size))
        session.call("VDI.set_other_config", made, {records.OURS: records.ROOT})
        # Last: it is by this name that it counts as made.
        session.call("VDI.set_name_label", made, wanted.volume)
    except HypervisorError:
        with contextlib.suppress(HypervisorError):
            destroy(session, made)
        raise


def delete_root(session: Session, host: str, unwanted: ImageRoot) -> None:
    store = primary(session, host, unwanted.pool)
    while (ref := root(session, store, unwanted.volume)) is not None:
        destroy(session, ref)


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
    _ref, vm = template(session, name)
    vbds = [session.record("VBD", vbd) for vbd in records.references(vm.get("VBDs"))]
    for vbd in sorted(_of_disks(vbds), key=lambda one: records.number(one, "userdevice")):
        vdi = records.ref(vbd, "VDI")
        return vdi, session.record("VDI", vdi)
    raise Refused(f"Template {name} has no disk: install one and make it a template.")


def _of_disks(vbds: list[records.Record]) -> Iterator[records.Record]:
    for vbd in vbds:
        if records.text(vbd, "type") == "Disk" and records.ref(vbd, "VDI") != records.NULL:
            yield vbd
