"""KVM hosts through libvirt, and libvirt's test driver, which stands in for one in demo and tests.

Connections are in `kvm_connection`, libvirt's XML in `kvm_xml`, pools and volumes in `kvm_storage`,
CD-ROM and NICs of a VM that may run in `kvm_devices`. Of the guest agent, addresses are asked in
`kvm_agent` and what it answers is read in `kvm_addresses`; passwords and files are in `kvm_guest`. The host's
neighbour table is in `kvm_neighbours`, and what the host tells by itself in `kvm_events`. The lease files
on a guest's disk are read in `kvm_disk`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import libvirt

from networks.hypervisors import kvm_devices, kvm_disk, kvm_guest, kvm_storage, kvm_xml
from networks.hypervisors.base import (
    AgentAbsent,
    AgentState,
    AskTheOperator,
    Busy,
    DeadlineExceeded,
    DoNotTryAgain,
    EndpointAddress,
    EndpointUnreachable,
    GuestAddress,
    GuestEvent,
    HostFacts,
    HypervisorError,
    ImageRoot,
    LeaseFile,
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
    Source,
    StorageProblem,
    StorageRoom,
    Transport,
    TryAgainLater,
    VmRecord,
    VmRef,
    VmSpec,
    beat,
)
from networks.hypervisors.hosts import uri_host
from networks.hypervisors.kvm_agent import read_vm, side_by_side
from networks.hypervisors.kvm_connection import (
    CONNECTIONS,
    ConnectionSource,
    Session,
    error_code,
    libvirt_uri,
)
from networks.hypervisors.kvm_events import KvmWatch
from networks.hypervisors.kvm_neighbours import neighbours

POLL_SECONDS = 0.5
ACPI_SECONDS = 5.0  # how long a guest may ignore the power button before its agent is asked as well
CLEAN_UP_SECONDS = 10.0  # of a deadline, kept for what must follow a wait

_POWER = {
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.OFF,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.OFF,
}


class KvmHost:
    """One libvirt host. Cheap to make and safe to share between threads: its connection belongs to the process."""

    def __init__(self, address: EndpointAddress, connections: ConnectionSource = CONNECTIONS) -> None:
        """Raises Refused for an address that cannot be one; does not connect."""
        libvirt_uri(address)
        self.address = address
        self._connections = connections

    def __repr__(self) -> str:
        return f"<KvmHost {libvirt_uri(self.address)}>"

    @property
    def _is_test_driver(self) -> bool:
        return self.address.transport is Transport.TEST

    @property
    def _name(self) -> str:
        return self.address.host or "this machine"

    def _session(self, deadline: float) -> Session:
        return Session(self._connections, self.address, deadline)

    # Inventory ----------------------------------------------------------------------------------

    def host_facts(self, deadline: float) -> HostFacts:
        with self._session(deadline) as session:
            # model, memory in MiB, CPUs, MHz, NUMA nodes, sockets, cores, threads
            _model, memory, cpus, mhz, *_ = session.do(session.connection.getInfo)
            hypervisor = _dotted(session.do(session.connection.getVersion))
            library = _dotted(session.do(session.connection.getLibVersion))
            return HostFacts(
                hostname=session.do(session.connection.getHostname),
                version=f"{session.do(session.connection.getType)} {hypervisor}, libvirt {library}",
                cpus=cpus,
                mhz=mhz,
                memory=memory * 1024 * 1024,
            )

    def list_vms(self, deadline: float) -> list[VmRecord]:
        with self._session(deadline) as session:
            domains = session.do(session.connection.listAllDomains, 0)
            return [record for domain in domains if (record := _record(session, domain)) is not None]

    def running_vms(self, deadline: float) -> set[str]:
        with self._session(deadline) as session:
            domains = session.do(session.connection.listAllDomains, libvirt.VIR_CONNECT_LIST_DOMAINS_RUNNING)
            return {domain.UUIDString() for domain in domains}

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        with self._session(deadline) as session:
            try:
                return _power(session, _lookup(session, vm))
            except NotFound:
                return None

    # Networks -----------------------------------------------------------------------------------

    def ensure_network(self, network: NetworkRef, deadline: float) -> None:
        """Look for the bridge, which the host's admin makes.

        A host that cannot say which interfaces it has is believed: `start` then finds out.
        """
        bridge = kvm_xml.bridge_name(network.label)
        if self._is_test_driver:
            return
        with self._session(deadline) as session:
            names = _interface_names(session)
        # Every Linux host has at least lo: an empty list comes from one that cannot see its interfaces.
        if names and bridge not in names:
            raise self._bridge_missing(bridge)

    def has_network(self, network: NetworkRef, deadline: float) -> bool:
        self.ensure_network(network, deadline)
        return True

    def _bridge_missing(self, bridge: str) -> NetworkMissing:
        return NetworkMissing(
            f"Bridge {bridge} is not there on host {self._name}: create it, and join its VLAN's interface to it."
        )

    # Volumes ------------------------------------------------------------------------------------

    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        volume, image = kvm_xml.volume_name(root.volume), kvm_xml.volume_name(root.image)
        with self._session(deadline) as session:
            pool = kvm_storage.active_pool(session, root.pool)
            if kvm_storage.find_volume(session, pool, volume) is not None:
                return
            facts = kvm_storage.image_facts(session, pool, image)
            if facts is None:
                raise NotFound(f"Storage pool {root.pool} has no image {image}.")
            if facts.backing_path:
                # Whoever made the image chose that file, and the guest would read it.
                raise Refused(f"Image {image} reads from another file of the host: flatten it first.")
            if root.size and root.size < facts.capacity:
                raise Refused(f"Image {image} is larger than the ROOT volume asked for.")
            overlay = kvm_xml.overlay_volume(root, facts.path, root.size or facts.capacity)
            try:
                session.do(pool.createXML, overlay, 0)
            except DoNotTryAgain:
                # On shared storage another host may have made it, and this one not have looked since.
                if kvm_storage.find_volume(session, pool, volume, refresh=True) is None:
                    raise

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        volume = kvm_xml.volume_name(root.volume)
        with self._session(deadline) as session:
            kvm_storage.delete_volume(session, kvm_storage.active_pool(session, root.pool), volume, refresh=True)

    def room(self, storage: str, deadline: float) -> StorageRoom:
        with self._session(deadline) as session:
            return kvm_storage.room(session, kvm_storage.active_pool(session, storage))

    # Life cycle ---------------------------------------------------------------------------------

    def define(self, spec: VmSpec, deadline: float) -> None:
        """Also gives a VM that is there its definition anew; then its CD-ROM is empty at the next start."""
        with self._session(deadline) as session:
            self._check_free(session, spec.vm)
            root_path = kvm_storage.root_path(session, spec.root) if isinstance(spec.root, ImageRoot) else None
            definition = kvm_xml.domain(spec, self._domain_type(session), root_path)
            session.do(session.connection.defineXML, definition)

    def _check_free(self, session: Session, vm: VmRef) -> None:
        """Neither the name nor the UUID may be another's: defining would replace or rename it."""
        wanted = (kvm_xml.vm_name(vm.name), kvm_xml.vm_uuid(vm.uuid))
        lookups = (session.connection.lookupByName, session.connection.lookupByUUIDString)
        for lookup, key in zip(lookups, wanted, strict=True):
            try:
                domain = session.do(lookup, key)
            except NotFound:
                continue
            _check_ours(session, domain, vm)
            if (domain.name(), domain.UUIDString()) != wanted:
                raise Refused(f"Another VM on host {self._name} has the name or the UUID of {vm.name}.")

    def _domain_type(self, session: Session) -> str:
        if self._is_test_driver:
            return "test"
        return kvm_xml.accelerator(session.do(session.connection.getCapabilities))

    def start(self, vm: VmRef, deadline: float) -> None:
        with self._session(deadline) as session:
            domain = _our_domain(session, vm)
            state = _power(session, domain)
            if state is PowerState.RUNNING:
                return
            try:
                session.do(domain.resume if state is PowerState.PAUSED else domain.create)
            except EndpointUnreachable:
                raise
            except HypervisorError as error:
                if _power(session, domain) is PowerState.RUNNING:  # somebody was faster
                    return
                raise self._why_not_started(session, domain, vm, error) from error

    def _why_not_started(self, session: Session, domain: Any, vm: VmRef, error: HypervisorError) -> HypervisorError:
        for bridge in kvm_xml.bridges(session.do(domain.XMLDesc, 0)):
            if _names_bridge(error, bridge):
                return self._bridge_missing(bridge)
        if type(error) is AskTheOperator:
            log = f"{kvm_xml.LOG_DIRECTORY}/{vm.name}.log"
            return AskTheOperator(
                f"Host {self._name} could not start {vm.name}: see {log} there. (libvirt error {error_code(error)})"
            )
        return error

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        with self._session(deadline) as session, contextlib.suppress(NotFound):  # what is not there does not run
            domain = _our_domain(session, vm)
            if _power(session, domain) is PowerState.OFF:
                return
            if grace > 0:
                self._shut_down(session, domain, vm, grace)
            _power_off(session, domain)

    def _shut_down(self, session: Session, domain: Any, vm: VmRef, grace: float) -> None:
        """Ask the guest, by its power button and then its agent, and wait until it is off or `grace` is over."""
        begun = time.monotonic()
        give_up = min(begun + grace, session.deadline - CLEAN_UP_SECONDS)
        # The test driver knows no flags.
        flags = 0 if self._is_test_driver else libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        with contextlib.suppress(DoNotTryAgain, AskTheOperator):  # off by now, or without ACPI
            session.do(domain.shutdownFlags, flags)
        agent_asked = False
        while _power(session, domain) is not PowerState.OFF and (left := give_up - time.monotonic()) > 0:
            if not agent_asked and time.monotonic() - begun >= ACPI_SECONDS:
                agent_asked = True
                self._ask_agent_to_shut_down(vm, until=give_up)
            time.sleep(min(POLL_SECONDS, left))
            beat()

    def _ask_agent_to_shut_down(self, vm: VmRef, until: float) -> None:
        """What comes of it shows in the power state. A connection of its own: a frozen guest keeps it for a minute."""
        with contextlib.suppress(DoNotTryAgain, AskTheOperator, TryAgainLater), self._session(until) as session:
            domain = _our_domain(session, vm)
            if kvm_xml.agent_connected(session.do(domain.XMLDesc, 0)):
                session.do(domain.shutdownFlags, libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)

    def reboot(self, vm: VmRef, deadline: float) -> None:
        with self._session(deadline) as session:
            session.do(_our_domain(session, vm).reset, 0)

    def undefine(self, vm: VmRef, deadline: float) -> None:
        flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        if not self._is_test_driver:
            flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        with self._session(deadline) as session, contextlib.suppress(NotFound):
            domain = _our_domain(session, vm)
            _power_off(session, domain)
            session.do(domain.undefineFlags, flags)

    def migrate(self, vm: VmRef, target: Self, deadline: float) -> None:
        """Live, run by us between both hosts. ROOT must lie on storage that both see, at one path."""
        with self._session(deadline) as source, target._session(deadline) as destination:
            domain, arrived = _find_ours(source, vm), _find_ours(destination, vm)
            if domain is None and arrived is None:
                raise NotFound(f"Host {self._name} does not know {vm.name}.")
            if domain is None:
                return
            if _power(source, domain) is not PowerState.OFF:
                _check_storage_shared(source, domain, destination)
                self._migrate_live(vm, source, domain, destination, target)
                return
            if arrived is None or _power(destination, arrived) is PowerState.OFF:
                raise Refused(f"{vm.name} does not run, and only a running VM can be migrated live.")
        self.undefine(vm, deadline)  # it went over, and then we were interrupted

    def _migrate_live(self, vm: VmRef, source: Session, domain: Any, destination: Session, target: "KvmHost") -> None:
        flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        parameters = {}
        if target.address.host:
            # Without it, the target names itself by its hostname, which this host need not resolve.
            parameters[libvirt.VIR_MIGRATE_PARAM_URI] = f"tcp://{uri_host(target.address.host)}"
        until = source.deadline - CLEAN_UP_SECONDS
        try:
            try:
                source.do(domain.migrate3, destination.connection, parameters, flags, until=until)
            except HypervisorError as error:
                if error_code(error) != libvirt.VIR_ERR_MIGRATE_UNSAFE:
                    raise
                # libvirt cannot tell that a directory is shared; that both hosts see the volume was checked.
                flags |= libvirt.VIR_MIGRATE_UNSAFE
                source.do(domain.migrate3, destination.connection, parameters, flags, until=until)
        except DeadlineExceeded:
            destination.give_up()
            self._cancel_migration(vm, source.deadline)
            raise Busy("The migration did not end in time and was cancelled.") from None

    def _cancel_migration(self, vm: VmRef, deadline: float) -> None:
        with self._session(deadline) as session, contextlib.suppress(DoNotTryAgain):  # ended just now
            session.do(_our_domain(session, vm).abortJob)

    # Config drives ------------------------------------------------------------------------------

    def place(self, name: str, content: bytes, deadline: float, *, storage: str = "") -> Media:
        if len(content) > kvm_storage.MEDIA_MAX_BYTES:
            raise Refused(f"An ISO of more than {kvm_storage.MEDIA_MAX_BYTES} bytes is not a config drive.")
        description = kvm_xml.media_volume(name, len(content))
        with self._session(deadline) as session, self._storage_named(storage):
            volume = kvm_storage.new_volume(session, kvm_storage.media_pool(session, storage), name, description)
            if not self._is_test_driver:
                # The test driver has no streams: there, a volume has a name and a size and no content.
                kvm_storage.fill(session, volume, content)
            return Media(name, session.do(volume.path))

    @contextlib.contextmanager
    def _storage_named(self, storage: str) -> Iterator[None]:
        """Whoever has to mend a storage is told which."""
        try:
            yield
        except StorageProblem as error:
            where = f"storage pool {storage}" if storage else f"the directory {kvm_storage.MEDIA_DIRECTORY}"
            raise StorageProblem(f"No config drive can be kept in {where} of host {self._name}: {error}") from error

    def read(self, name: str, deadline: float, *, storage: str = "") -> bytes:
        kvm_xml.media_name(name)
        with self._session(deadline) as session:
            pool = _media_pool(session, storage)
            content = None if pool is None else kvm_storage.read_volume(session, pool, name)
            if content is None:
                raise NotFound(f"Host {self._name} has no ISO {name}.")
            return content

    def remove(self, name: str, deadline: float, *, storage: str = "") -> None:
        kvm_xml.media_name(name)
        with self._session(deadline) as session:
            pool = _media_pool(session, storage)
            if pool is not None:
                kvm_storage.delete_volume(session, pool, name, refresh=True)

    def list_media(self, deadline: float, *, storage: str = "", name: str = "") -> list[MediaFile]:
        if name:
            kvm_xml.media_name(name)
        with self._session(deadline) as session:
            pool = _media_pool(session, storage)
            return [] if pool is None else kvm_storage.list_media(session, pool, name)

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        with self._session(deadline) as session:
            domain = _our_domain(session, vm)
            kvm_devices.change_media(session, domain, media, running=_power(session, domain) is not PowerState.OFF)

    def inserted(self, vm: VmRef, deadline: float) -> str | None:
        with self._session(deadline) as session:
            return kvm_xml.inserted_path(kvm_devices.live_xml(session, _our_domain(session, vm)))

    def bytes_read(self, vm: VmRef, deadline: float) -> int | None:
        with self._session(deadline) as session:
            domain = _our_domain(session, vm)
            # The test driver makes its numbers up.
            return None if self._is_test_driver else kvm_devices.bytes_read(session, domain)

    # NICs ---------------------------------------------------------------------------------------

    def add_nic(self, vm: VmRef, nic: NicSpec, deadline: float) -> None:
        kvm_xml.mac_address(nic.mac)
        with self._session(deadline) as session:
            domain = _our_domain(session, vm)
            running = _power(session, domain) is not PowerState.OFF
            try:
                kvm_devices.plug(session, domain, nic, self._domain_type(session), running=running)
            except HypervisorError as error:
                if _names_bridge(error, nic.network.label):
                    raise self._bridge_missing(nic.network.label) from error
                raise

    def remove_nic(self, vm: VmRef, mac: str, deadline: float) -> None:
        kvm_xml.mac_address(mac)
        with self._session(deadline) as session:
            domain = _our_domain(session, vm)
            kvm_devices.unplug(session, domain, mac, running=_power(session, domain) is not PowerState.OFF)

    def nic_state(self, vm: VmRef, nic: NicSpec, deadline: float) -> NicState:
        kvm_xml.mac_address(nic.mac)
        with self._session(deadline) as session:
            live = kvm_devices.live_xml(session, _our_domain(session, vm))
            return kvm_xml.nic_state(live, nic, on_test_driver=self._is_test_driver)

    # The guest agent ----------------------------------------------------------------------------

    def set_password(self, vm: VmRef, user: str, password: str, deadline: float) -> None:
        kvm_guest.check_account(user, password)
        with self._session(deadline) as session:
            kvm_guest.set_password(session, _our_domain(session, vm), user, password)

    def read_guest_file(self, vm: VmRef, path: str, deadline: float, *, most: int = 4096) -> bytes:
        with self._session(deadline) as session:
            domain = _our_domain(session, vm)
            if self._is_test_driver:
                raise AgentAbsent("The test driver's guests have no agent.")
            return kvm_guest.read_file(session, domain, path, most)

    def agent_state(self, vm: VmRef, deadline: float) -> AgentState | None:
        with self._session(deadline) as session:
            return kvm_guest.agent_state(kvm_devices.live_xml(session, _our_domain(session, vm)))

    # Addresses ----------------------------------------------------------------------------------

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        source = Source.TEST_DRIVER if self._is_test_driver else Source.GUEST_AGENT

        def read(vm: VmRef) -> Reading | None:
            try:
                with self._session(deadline) as session:
                    return read_vm(session, vm, source)
            except DeadlineExceeded:
                if time.monotonic() < deadline:
                    raise
                return None

        yield from side_by_side(vms, deadline, width, read)

    def read_neighbours(
        self, vms: Sequence[VmRef], deadline: float
    ) -> Iterator[tuple[VmRef, tuple[GuestAddress, ...]]]:
        if self._is_test_driver:
            return  # it invents an address for whatever it is asked
        with self._session(deadline) as session:
            yield from neighbours(session, vms)

    def read_lease_files(self, vm: VmRef, deadline: float, *, windows: bool) -> tuple[LeaseFile, ...]:
        kvm_disk.check_access(self.address)
        with self._session(deadline) as session:
            disk = kvm_disk.root_disk(session.do(_our_domain(session, vm).XMLDesc, 0))
        return kvm_disk.read_lease_files(self.address, disk, deadline, windows=windows)

    # Events -------------------------------------------------------------------------------------

    def watch(self, tell: Callable[[str, GuestEvent], None], deadline: float) -> KvmWatch:
        watch = KvmWatch(self.address, tell)
        watch.open(deadline)
        return watch


# One VM -----------------------------------------------------------------------------------------


def _lookup(session: Session, vm: VmRef) -> Any:
    return session.do(session.connection.lookupByUUIDString, kvm_xml.vm_uuid(vm.uuid))


def _our_domain(session: Session, vm: VmRef) -> Any:
    """The VM's domain. Raises NotFound, and Refused for a domain that others made."""
    domain = _lookup(session, vm)
    _check_ours(session, domain, vm)
    return domain


def _find_ours(session: Session, vm: VmRef) -> Any | None:
    try:
        return _our_domain(session, vm)
    except NotFound:
        return None


def _check_ours(session: Session, domain: Any, vm: VmRef) -> None:
    try:
        session.do(domain.metadata, libvirt.VIR_DOMAIN_METADATA_ELEMENT, kvm_xml.NAMESPACE, 0)
    except HypervisorError as error:
        if error_code(error) != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            raise
        raise Refused(f"A VM with the name or the UUID of {vm.name} is on the host, and it is not ours.") from error


def _power(session: Session, domain: Any) -> PowerState:
    state, _reason = session.do(domain.state, 0)
    return _POWER.get(state, PowerState.RUNNING)


def _record(session: Session, domain: Any) -> VmRecord | None:
    try:
        macs = kvm_xml.macs(session.do(domain.XMLDesc, 0))
        return VmRecord(VmRef(domain.name(), domain.UUIDString(), macs), _power(session, domain))
    except NotFound:
        return None  # it went while we listed


def _power_off(session: Session, domain: Any) -> None:
    if _power(session, domain) is PowerState.OFF:
        return
    try:
        session.do(domain.destroy)
    except DoNotTryAgain:
        if _power(session, domain) is not PowerState.OFF:
            raise


def _check_storage_shared(source: Session, domain: Any, destination: Session) -> None:
    for path in kvm_xml.disk_paths(source.do(domain.XMLDesc, 0)):
        if not kvm_storage.sees(destination, path):
            raise Refused("The target does not see this VM's ROOT volume: the storage pool is not shared.")


# Networks ---------------------------------------------------------------------------------------


def _interface_names(session: Session) -> list[str]:
    """The host's interfaces; empty where it cannot say, because a part of its libvirt is not installed."""
    try:
        return [interface.name() for interface in session.do(session.connection.listAllInterfaces, 0)]
    except (DoNotTryAgain, AskTheOperator):
        return []


def _names_bridge(error: HypervisorError, bridge: str) -> bool:
    """libvirt has no code for a missing bridge; its name in quotes is in every translation of libvirt's words."""
    return error_code(error) == libvirt.VIR_ERR_SYSTEM_ERROR and f"'{bridge}'" in str(error.__cause__)


def _media_pool(session: Session, storage: str) -> Any | None:
    """To look into or delete from. A host that shares `storage` may never have been told of its files."""
    return kvm_storage.media_pool(session, storage) if storage else kvm_storage.cache_pool(session)


def _dotted(version: int) -> str:
    """libvirt's encoding: major * 1,000,000 + minor * 1,000 + release."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
