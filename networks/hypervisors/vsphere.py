"""vSphere through pyVmomi: a vCenter and its hosts, or a lone ESXi.

Sessions are in `vsphere_session`, collectors in `vsphere_updates` and tasks in `vsphere_tasks`. What is read of all
VMs is in `vsphere_mirror` and `vsphere_machines`, and what is told by itself in `vsphere_events`. Hosts, datastores,
networks and templates are found in `vsphere_places`, one VM is handled in `vsphere_guests`, its devices in
`vsphere_devices`, and the files of config drives in `vsphere_media`. What a user may not do is in `vsphere_rights`.

Guest operations need a guest's own password, so there is no GuestAgent here.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeVar

from networks.hypervisors import vsphere_devices, vsphere_guests, vsphere_media, vsphere_places, vsphere_rights
from networks.hypervisors.base import (
    AgentAbsent,
    EndpointAddress,
    GuestEvent,
    HostFacts,
    ImageRoot,
    KernelRoot,
    Media,
    MediaFile,
    NetworkMissing,
    NetworkRef,
    NicSpec,
    NicState,
    NotFound,
    PowerState,
    Reading,
    Refused,
    StorageRoom,
    VmRecord,
    VmRef,
    VmSpec,
    beat,
)
from networks.hypervisors.tls import check_address
from networks.hypervisors.vsphere_events import VsphereWatch
from networks.hypervisors.vsphere_guests import DRIVE_MARK, Guest, configure
from networks.hypervisors.vsphere_machines import object_identifier, power_state, reading
from networks.hypervisors.vsphere_mirror import Inventory, mirror_of
from networks.hypervisors.vsphere_names import displayed, mac_address, media_name, vm_uuid
from networks.hypervisors.vsphere_places import Place
from networks.hypervisors.vsphere_session import SESSIONS, Session
from networks.hypervisors.vsphere_tasks import LockedDoor, finish, finish_or_cancel
from networks.hypervisors.vsphere_types import vim
from networks.hypervisors.vsphere_updates import Updates, Watched

RECORDS_PAGE = 100  # VMs an answer that tells of their devices
CLEAN_UP_SECONDS = 10.0  # of a deadline, kept for what must follow a wait
SHUTDOWN_WAIT_SECONDS = 5.0

T = TypeVar("T")


class VsphereHost:
    """One host of a vCenter or a lone ESXi; without a name of a host, all of them.

    Cheap to make and safe to share between threads: its session belongs to the process.
    """

    def __init__(self, address: EndpointAddress, host: str = "") -> None:
        """Raises Refused for an address that cannot be one; does not connect."""
        check_address(address)
        self.address = address
        self.host = host

    def __repr__(self) -> str:
        return f"<VsphereHost {self.host or 'all'} at {self.address.host}>"

    def _ask(self, deadline: float, operation: Callable[[Session], T]) -> T:
        return SESSIONS.run(self.address, deadline, operation)

    def _at(self, deadline: float, operation: Callable[[Session, Place], T]) -> T:
        return self._ask(deadline, lambda session: operation(session, self._place(session)))

    def _place(self, session: Session) -> Place:
        return vsphere_places.place(session, self.host)

    def _look(self, session: Session, deadline: float, question: Callable[[Inventory], T]) -> T:
        return mirror_of(session).ask(deadline, question)

    # Inventory ----------------------------------------------------------------------------------

    def host_facts(self, deadline: float) -> HostFacts:
        """Of all hosts together when none is named."""

        def ask(session: Session) -> HostFacts:
            if self.host:
                there = self._place(session)
                vsphere_places.check_usable(session, there)
                hosts = session.read_all([there.host], "summary.hardware")
            else:
                hosts = session.find_all(vim.HostSystem, "summary.hardware")
            hardware = [host.properties["summary.hardware"] for host in hosts if "summary.hardware" in host.properties]
            return HostFacts(
                hostname=self.host or self.address.host,
                version=session.content.about.fullName,
                cpus=sum(each.numCpuThreads for each in hardware),
                mhz=max((each.cpuMhz for each in hardware), default=0),
                memory=sum(each.memorySize for each in hardware),
            )

        return self._ask(deadline, ask)

    def list_vms(self, deadline: float) -> list[VmRecord]:
        """Without templates, ROOT volumes that no VM uses, and VMs whose files no host can reach."""

        def ask(session: Session) -> list[VmRecord]:
            identifiers = self._look(session, deadline, self._registered_here(session))
            refs = [session.object(vim.VirtualMachine, identifier) for identifier in identifiers]
            found = session.read_all(refs, *_RECORD, page=RECORDS_PAGE)
            return [record for each in found if (record := _record(each.properties))]

        return self._ask(deadline, ask)

    def _registered_here(self, session: Session) -> Callable[[Inventory], list[str]]:
        if not self.host:
            return lambda inventory: list(inventory.machines)
        here = self._place(session).identifier
        return lambda inventory: inventory.on_host(here)

    def running_vms(self, deadline: float) -> set[str]:
        def ask(session: Session) -> set[str]:
            here = self._place(session).identifier if self.host else None
            running = self._look(session, deadline, Inventory.running)
            return {machine.uuid for machine in running if here in (None, machine.host)}

        return self._ask(deadline, ask)

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        """None, too, for a VM that is on and on another host than this."""

        def ask(session: Session) -> PowerState | None:
            try:
                facts = session.read(vsphere_guests.find(session, vm), "runtime.powerState", "runtime.host")
            except NotFound:
                return None
            state = power_state(facts["runtime.powerState"])
            is_here = state is PowerState.OFF or self._is_here(session, object_identifier(facts["runtime.host"]))
            return state if is_here else None

        return self._ask(deadline, ask)

    def _is_here(self, session: Session, host: str) -> bool:
        return not self.host or self._place(session).identifier == host

    def missing_rights(self, deadline: float) -> tuple[str, ...]:
        def ask(session: Session) -> tuple[str, ...]:
            return vsphere_rights.missing(session, self._place(session).datacenter if self.host else None)

        return self._ask(deadline, ask)

    # Networks -----------------------------------------------------------------------------------

    def ensure_network(self, network: NetworkRef, deadline: float) -> None:
        """Look for the port group, which vSphere's admin makes, and compare its VLAN."""

        def look(session: Session, there: Place) -> None:
            found = vsphere_places.network(session, there, network)
            vsphere_places.check_vlan(session, there, network, found)

        self._at(deadline, look)

    def has_network(self, network: NetworkRef, deadline: float) -> bool:
        self.ensure_network(network, deadline)
        return True

    # Volumes ------------------------------------------------------------------------------------

    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        def ensure(session: Session, there: Place) -> None:
            found = vsphere_guests.find_root(session, root) or vsphere_guests.clone_root(session, there, root)
            if root.size:
                vsphere_guests.grow(session, found, root.size)

        self._at(deadline, ensure)

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        self._ask(deadline, lambda session: vsphere_guests.delete_root(session, root))

    def is_shared(self, storage: str, deadline: float) -> bool:
        def look(session: Session, there: Place) -> bool:
            return vsphere_places.datastore(session, there, storage).is_shared

        return self._at(deadline, look)

    def room(self, storage: str, deadline: float) -> StorageRoom:
        def look(session: Session, there: Place) -> StorageRoom:
            store = vsphere_places.datastore(session, there, storage)
            return StorageRoom(store.total, store.free)

        return self._at(deadline, look)

    # Life cycle ---------------------------------------------------------------------------------

    def define(self, spec: VmSpec, deadline: float) -> None:
        """Also gives a VM that is there its definition anew; then its CD-ROM is empty."""
        root = spec.root
        if isinstance(root, KernelRoot):
            raise Refused("vSphere boots VMs from disks: the template cannot be a kernel.")
        for nic in spec.nics:
            mac_address(nic.mac)
        self._at(deadline, lambda session, there: vsphere_guests.define(session, there, spec, root))

    def start(self, vm: VmRef, deadline: float) -> None:
        def start(session: Session, there: Place) -> None:
            guest = vsphere_guests.ours(session, vm)
            if not guest.is_off and guest.host != there.identifier:
                raise Refused(f"{vm.name} is {guest.power.value} on another host than {there.name}.")
            if guest.power is PowerState.RUNNING:
                return
            if guest.is_off:
                vsphere_guests.settle(session, there, guest)
            try:
                finish(session, session.do(guest.ref.PowerOnVM_Task, there.host), guest.ref)
            except Refused:
                if session.read(guest.ref, "runtime.powerState")["runtime.powerState"] != "poweredOn":
                    raise  # else somebody was faster

        self._at(deadline, start)

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        """Wherever in vSphere the VM runs: DRS may have moved it since.

        A guest without VMware Tools is cut off at once: there is no button that it could be asked by.
        """

        def stop(session: Session) -> None:
            guest = vsphere_guests.known(session, vm)
            if guest is None or guest.is_off:
                return
            if grace > 0 and guest.tools_run:
                _shut_down(session, guest, min(time.monotonic() + grace, deadline - CLEAN_UP_SECONDS))
            vsphere_guests.power_off(session, guest)

        self._ask(deadline, stop)

    def reboot(self, vm: VmRef, deadline: float) -> None:
        def reset(session: Session) -> None:
            guest = vsphere_guests.ours(session, vm)
            finish(session, session.do(guest.ref.ResetVM_Task), guest.ref)

        self._ask(deadline, reset)

    def undefine(self, vm: VmRef, deadline: float) -> None:
        """Wherever in vSphere the VM is."""

        def forget(session: Session) -> None:
            guest = vsphere_guests.known(session, vm)
            if guest is None:
                return
            if not guest.is_off:
                vsphere_guests.power_off(session, guest)
            vsphere_guests.park(session, guest)

        self._ask(deadline, forget)

    def migrate(self, vm: VmRef, target: Self, deadline: float) -> None:
        """vMotion, with the disc in its drive, to a host of the same vCenter that sees the VM's datastore.

        The vCenter has one definition of the VM: there is nothing that the source could forget.
        """
        if target.address != self.address:
            raise Refused("A VM can only be moved between hosts of one vCenter.")

        def move(session: Session, there: Place) -> None:
            guest = vsphere_guests.ours(session, vm)
            if guest.power is not PowerState.RUNNING:
                raise Refused(f"{vm.name} does not run, and only a running VM can be migrated live.")
            if guest.host == there.identifier:
                return
            vsphere_places.check_usable(session, there)
            vsphere_guests.check_storage_shared(session, there, guest)
            specification = vim.vm.RelocateSpec(host=there.host, pool=there.pool)
            task = session.do(guest.ref.RelocateVM_Task, specification)
            finish_or_cancel(session, task, guest.ref, deadline - CLEAN_UP_SECONDS)

        target._at(deadline, move)

    # Config drives ------------------------------------------------------------------------------

    def place(self, name: str, content: bytes, deadline: float, *, storage: str = "") -> Media:
        media_name(name)
        if len(content) > vsphere_media.MEDIA_MAX_BYTES:
            raise Refused(f"An ISO of more than {vsphere_media.MEDIA_MAX_BYTES} bytes is not a config drive.")
        _check_storage(storage)
        path = self._at(
            deadline, lambda session, there: vsphere_media.place(session, there, storage, name, content, deadline)
        )
        return Media(name, path)

    def read(self, name: str, deadline: float, *, storage: str = "") -> bytes:
        media_name(name)
        _check_storage(storage)
        return self._at(deadline, lambda session, there: vsphere_media.read(session, there, storage, name, deadline))

    def remove(self, name: str, deadline: float, *, storage: str = "") -> None:
        media_name(name)
        if storage:
            self._at(deadline, lambda session, there: vsphere_media.remove(session, there, storage, name))

    def list_media(self, deadline: float, *, storage: str = "", name: str = "") -> list[MediaFile]:
        if name:
            media_name(name)
        if not storage:
            return []
        return self._at(deadline, lambda session, there: vsphere_media.listed(session, there, storage, name))

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        path = None if media is None else media.path
        # A new disc can wait until the guest has let go of the old one; one that must go, goes.
        door = LockedDoor.OVERRIDE if path is None else LockedDoor.LEAVE

        def insert(session: Session) -> None:
            guest = vsphere_guests.ours(session, vm)
            drive = guest.drive
            if drive is not None:
                change = vsphere_devices.changed_drive(drive, path, running=not guest.is_off)
                configure(session, guest.ref, door, deviceChange=[change])
                return
            if not guest.is_off:
                raise Refused(
                    "The running VM has lost the CD-ROM drive of its config drive: it needs a stop and a start."
                )
            slot = vsphere_devices.free_slot(guest.devices)
            configure(
                session,
                guest.ref,
                deviceChange=[vsphere_devices.new_drive(slot, path)],
                extraConfig=[vim.option.OptionValue(key=DRIVE_MARK, value=str(slot))],
            )

        self._ask(deadline, insert)

    def inserted(self, vm: VmRef, deadline: float) -> str | None:
        def look(session: Session) -> str | None:
            drive = vsphere_guests.ours(session, vm).drive
            return None if drive is None else vsphere_devices.disc(drive)

        return self._ask(deadline, look)

    def bytes_read(self, vm: VmRef, deadline: float) -> int | None:
        """vSphere does not count what is read from a CD-ROM."""
        self._ask(deadline, lambda session: vsphere_guests.find(session, vm))
        return None

    # NICs ---------------------------------------------------------------------------------------

    def add_nic(self, vm: VmRef, nic: NicSpec, deadline: float) -> None:
        mac_address(nic.mac)

        def add(session: Session) -> None:
            guest = vsphere_guests.ours(session, vm)
            if nic.mac in vsphere_devices.cards(guest.devices):
                return
            there = vsphere_places.place_of(session, guest.host)
            backing = vsphere_places.backing(session, vsphere_places.network(session, there, nic.network))
            kind = vsphere_devices.card_kind(guest.devices)
            card = vsphere_devices.new_card(kind, nic.mac, backing, number=0)
            configure(session, guest.ref, deviceChange=[card])

        self._ask(deadline, add)

    def remove_nic(self, vm: VmRef, mac: str, deadline: float) -> None:
        mac_address(mac)

        def remove(session: Session) -> None:
            guest = vsphere_guests.ours(session, vm)
            card = vsphere_devices.cards(guest.devices).get(mac)
            if card is not None:
                configure(session, guest.ref, deviceChange=[vsphere_devices.change("remove", card)])

        self._ask(deadline, remove)

    def nic_state(self, vm: VmRef, nic: NicSpec, deadline: float) -> NicState:
        mac_address(nic.mac)

        def look(session: Session) -> NicState:
            guest = vsphere_guests.ours(session, vm)
            card = vsphere_devices.cards(guest.devices).get(nic.mac)
            if card is None:
                return NicState.ABSENT
            there = vsphere_places.place_of(session, guest.host)
            try:
                wanted = vsphere_places.backing(session, vsphere_places.network(session, there, nic.network))
            except NetworkMissing:
                return NicState.ELSEWHERE
            if not vsphere_devices.same_network(card.backing, wanted):
                return NicState.ELSEWHERE
            is_cut = not guest.is_off and not vsphere_devices.is_connected(card)
            return NicState.LINK_DOWN if is_cut else NicState.PLUGGED

        return self._ask(deadline, look)

    # Addresses ----------------------------------------------------------------------------------

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        """vSphere is asked, not the guests: `width` does not matter."""

        def ask(session: Session) -> list[tuple[VmRef, Reading]]:
            def read_all(inventory: Inventory) -> list[tuple[VmRef, Reading]]:
                return [(vm, reading(vm, inventory.of_uuid(vm_uuid(vm.uuid)))) for vm in vms]

            return self._look(session, deadline, read_all)

        yield from self._ask(deadline, ask)

    # Events -------------------------------------------------------------------------------------

    def watch(self, tell: Callable[[str, GuestEvent], None], deadline: float) -> VsphereWatch:
        watch = VsphereWatch(self.address, tell)
        watch.open(deadline)
        return watch


_RECORD = (
    "name",
    "config.uuid",
    "config.instanceUuid",
    "config.template",
    "config.hardware.device",
    "runtime.powerState",
)


def _record(facts: dict[str, Any]) -> VmRecord | None:
    uuid = (facts.get("config.uuid") or "").lower()
    if not uuid or facts.get("config.template"):
        return None
    if vsphere_guests.is_parked(uuid, (facts.get("config.instanceUuid") or "").lower()):
        return None
    macs = tuple(vsphere_devices.cards(facts.get("config.hardware.device") or ()))
    return VmRecord(VmRef(displayed(facts["name"]), uuid, macs), power_state(facts["runtime.powerState"]))


def _check_storage(storage: str) -> None:
    if not storage:
        raise Refused("vSphere's hosts have no cache for config drives: keep them on primary storage.")


def _shut_down(session: Session, guest: Guest, until: float) -> None:
    """Ask the guest, and wait until it is off or the time is over."""
    with contextlib.suppress(AgentAbsent, Refused):  # its tools have just ended, or it is off by now
        session.do(guest.ref.ShutdownGuest)
    updates = Updates(session, [Watched(vim.VirtualMachine, ("runtime.powerState",), objects=(guest.ref,))])
    try:
        while (left := until - time.monotonic()) > 0:
            for change in updates.next(min(SHUTDOWN_WAIT_SECONDS, left)):
                if change.properties is None or change.properties.get("runtime.powerState") == "poweredOff":
                    return
            beat()
    finally:
        updates.close()
