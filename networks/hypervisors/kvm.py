"""KVM hosts through libvirt, and libvirt's test driver, which stands in for one in demo and tests.

What concerns the wire is in `kvm_connection`, libvirt's XML in `kvm_xml`, guests' answers in
`kvm_addresses`.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import libvirt

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import (
    HEARTBEAT_SECONDS,
    AskTheOperator,
    Busy,
    DeadlineExceeded,
    DoNotTryAgain,
    EndpointAddress,
    EndpointUnreachable,
    HostFacts,
    HypervisorError,
    ImageRoot,
    Media,
    NetworkMissing,
    NetworkRef,
    NotFound,
    Outcome,
    PowerState,
    Reading,
    Refused,
    Source,
    StorageProblem,
    Transport,
    VmRecord,
    VmRef,
    VmSpec,
    beat,
)
from networks.hypervisors.kvm_addresses import guest_addresses
from networks.hypervisors.kvm_connection import (
    CONNECTIONS,
    ConnectionSource,
    Session,
    error_code,
    libvirt_uri,
    uri_host,
)

MEDIA_POOL = "extdhcp-configdrive"
MEDIA_DIRECTORY = "/var/lib/libvirt/extdhcp-configdrive"
MEDIA_MAX_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 256 * 1024

AGENT_RESPONSE_SECONDS = 4
# A healthy agent answers in well under a second. libvirt itself may wait 30 s for the domain's agent
# lock, 5 s to synchronise and then the response time-out.
READING_SECONDS = 12.0
POLL_SECONDS = 0.5
ACPI_SECONDS = 5.0  # how long a guest may ignore the power button before its agent is asked as well
CLEAN_UP_SECONDS = 10.0  # of a deadline, kept for what must follow a wait

_POWER = {
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.OFF,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.OFF,
}
_NOT_RUNNING = (libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN)
_NO_AGENT = (
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_NO_SUPPORT,
)
_TRAY_STAYS_SHUT = (libvirt.VIR_ERR_OPERATION_FAILED, libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_INTERNAL_ERROR)


class KvmHost:
    """One libvirt host. Cheap to make and safe to share between threads: its connection belongs to the process."""

    def __init__(self, address: EndpointAddress, connections: ConnectionSource = CONNECTIONS) -> None:
        """Raises Refused for an address that cannot be one; does not connect."""
        libvirt_uri(address)
        self.address = address
        self._connections = connections

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """The connection stays open for the process's next use of this host."""

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
        session = self._session(deadline)
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
        session = self._session(deadline)
        domains = session.do(session.connection.listAllDomains, 0)
        return [record for domain in domains if (record := _record(session, domain)) is not None]

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        session = self._session(deadline)
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
        names = _interface_names(self._session(deadline))
        # Every Linux host has at least lo: an empty list comes from one that cannot see its interfaces.
        if names and bridge not in names:
            raise self._bridge_missing(bridge)

    def _bridge_missing(self, bridge: str) -> NetworkMissing:
        return NetworkMissing(
            f"Bridge {bridge} is not there on host {self._name}: create it, and join its VLAN's interface to it."
        )

    # Volumes ------------------------------------------------------------------------------------

    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        session = self._session(deadline)
        pool = _pool(session, root.pool)
        if _volume(session, pool, kvm_xml.volume_name(root.volume)) is not None:
            return
        image = _volume(session, pool, kvm_xml.volume_name(root.image), refresh=True)
        if image is None:
            raise NotFound(f"Storage pool {root.pool} has no image {root.image}.")
        facts = kvm_xml.volume_facts(session.do(image.XMLDesc, 0))
        if facts.backing_path:
            # Whoever made the image chose that file, and the guest would read it.
            raise Refused(f"Image {root.image} reads from another file of the host: flatten it first.")
        if root.size and root.size < facts.capacity:
            raise Refused(f"Image {root.image} is larger than the ROOT volume asked for.")
        overlay = kvm_xml.overlay_volume(root, facts.path, root.size or facts.capacity)
        try:
            session.do(pool.createXML, overlay, 0)
        except DoNotTryAgain:
            if _volume(session, pool, root.volume) is None:  # else somebody made it meanwhile
                raise

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        session = self._session(deadline)
        _delete_volume(session, _pool(session, root.pool), kvm_xml.volume_name(root.volume), refresh=True)

    # Life cycle ---------------------------------------------------------------------------------

    def define(self, spec: VmSpec, deadline: float) -> None:
        """Also gives a VM that is there its definition anew; then its CD-ROM is empty at the next start."""
        session = self._session(deadline)
        self._check_free(session, spec.vm)
        root_path = None
        if isinstance(spec.root, ImageRoot):
            root_path = _root_path(session, spec.root)
        definition = kvm_xml.domain(spec, self._domain_type(session), root_path)
        session.do(session.connection.defineXML, definition)

    def _check_free(self, session: Session, vm: VmRef) -> None:
        """Neither the name nor the UUID may be another's: defining would replace or rename it."""
        wanted = (kvm_xml.vm_name(vm.name), kvm_xml.vm_uuid(vm.uuid))
        for lookup, key in [("lookupByName", wanted[0]), ("lookupByUUIDString", wanted[1])]:
            try:
                domain = session.do(getattr(session.connection, lookup), key)
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
        session = self._session(deadline)
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
        code, library_words = error_code(error), str(error.__cause__)
        for bridge in kvm_xml.bridges(session.do(domain.XMLDesc, 0)):
            # libvirt has no code for this; the bridge's name in quotes is in every translation of its words.
            if code == libvirt.VIR_ERR_SYSTEM_ERROR and f"'{bridge}'" in library_words:
                return self._bridge_missing(bridge)
        if type(error) is AskTheOperator:
            return AskTheOperator(
                f"Host {self._name} could not start {vm.name}: its log is {kvm_xml.SERIAL_LOG_DIRECTORY}/{vm.name}.log "
                f"there. (libvirt error {code})"
            )
        return error

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        session = self._session(deadline)
        try:
            domain = _our_domain(session, vm)
            if _power(session, domain) is PowerState.OFF or (grace > 0 and self._shut_down(session, domain, grace)):
                return
            _power_off(session, domain)
        except NotFound:
            return  # what is not there does not run

    def _shut_down(self, session: Session, domain: Any, grace: float) -> bool:
        """Ask the guest, by its power button and then its agent; True when it is off."""
        give_up = min(time.monotonic() + grace, session.deadline - CLEAN_UP_SECONDS)
        ask_agent_at = time.monotonic() + ACPI_SECONDS
        # The test driver knows no flags.
        flags = 0 if self._is_test_driver else libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN
        with contextlib.suppress(DoNotTryAgain, AskTheOperator):  # off by now, or without ACPI
            session.do(domain.shutdownFlags, flags)
        agent_asked = False
        while True:
            if _power(session, domain) is PowerState.OFF:
                return True
            now = time.monotonic()
            if now >= give_up:
                return False
            if now >= ask_agent_at and not agent_asked:
                agent_asked = True
                _ask_agent_to_shut_down(session, domain, until=give_up)
            time.sleep(min(POLL_SECONDS, max(0.0, give_up - now)))
            beat()

    def reboot(self, vm: VmRef, deadline: float) -> None:
        session = self._session(deadline)
        session.do(_our_domain(session, vm).reset, 0)

    def undefine(self, vm: VmRef, deadline: float) -> None:
        session = self._session(deadline)
        with contextlib.suppress(NotFound):
            domain = _our_domain(session, vm)
            _power_off(session, domain)
            flags = libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            if not self._is_test_driver:
                flags |= libvirt.VIR_DOMAIN_UNDEFINE_NVRAM | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
            session.do(domain.undefineFlags, flags)

    def migrate(self, vm: VmRef, target: Self, deadline: float) -> None:
        """Live, run by us between both hosts. ROOT must lie on storage that both see, at one path."""
        source, destination = self._session(deadline), target._session(deadline)
        arrived = _find_ours(destination, vm)
        domain = _find_ours(source, vm)
        if domain is None and arrived is not None:
            return
        if domain is None:
            raise NotFound(f"Host {self._name} does not know {vm.name}.")
        if _power(source, domain) is PowerState.OFF:
            # It went over, and then we were interrupted.
            if arrived is not None and _power(destination, arrived) is not PowerState.OFF:
                self.undefine(vm, deadline)
                return
            raise Refused(f"{vm.name} does not run, and only a running VM can be migrated live.")
        self._check_storage_shared(source, domain, destination, target)
        self._migrate_live(source, domain, destination, target)

    def _check_storage_shared(self, source: Session, domain: Any, destination: Session, target: "KvmHost") -> None:
        for path in kvm_xml.disk_paths(source.do(domain.XMLDesc, 0)):
            try:
                destination.do(destination.connection.storageVolLookupByPath, path)
            except NotFound:
                raise Refused(
                    f"Host {target._name} does not see this VM's ROOT volume: the storage pool is not shared."
                ) from None

    def _migrate_live(self, source: Session, domain: Any, destination: Session, target: "KvmHost") -> None:
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
            source.do(domain.abortJob)
            raise Busy("The migration did not end in time and was cancelled; the VM stays where it was.") from None

    # Config drives ------------------------------------------------------------------------------

    def place(self, name: str, content: bytes, deadline: float) -> Media:
        if len(content) > MEDIA_MAX_BYTES:
            raise Refused(f"An ISO of more than {MEDIA_MAX_BYTES} bytes is not a config drive.")
        description = kvm_xml.media_volume(name, len(content))
        session = self._session(deadline)
        pool = _ensure_media_pool(session)
        # An upload into a volume that is there would leave the old one's tail, and an old password in it.
        _delete_volume(session, pool, name)
        try:
            volume = session.do(pool.createXML, description, 0)
        except EndpointUnreachable:
            raise
        except HypervisorError:
            # A file that libvirt has not heard of may be in the way.
            session.do(pool.refresh, 0)
            _delete_volume(session, pool, name)
            volume = session.do(pool.createXML, description, 0)
        if not self._is_test_driver:
            # The test driver has no streams: there, a volume has a name and a size and no content.
            self._fill(session, volume, content)
        return Media(name, session.do(volume.path))

    def _fill(self, session: Session, volume: Any, content: bytes) -> None:
        try:
            session.do(_upload, session.connection, volume, content)
        except DeadlineExceeded:
            raise  # the thread left behind holds the stream: a later `place` or the sweep deletes the volume
        except HypervisorError:
            with contextlib.suppress(HypervisorError):
                session.do(volume.delete, 0)
            raise

    def read(self, name: str, deadline: float) -> bytes:
        kvm_xml.media_name(name)
        session = self._session(deadline)
        pool = _media_pool(session)
        volume = None if pool is None else _volume(session, pool, name, refresh=True)
        if volume is None:
            raise NotFound(f"Host {self._name} has no ISO {name}.")
        return session.do(_download, session.connection, volume)

    def remove(self, name: str, deadline: float) -> None:
        kvm_xml.media_name(name)
        session = self._session(deadline)
        pool = _media_pool(session)
        if pool is not None:
            _delete_volume(session, pool, name, refresh=True)

    def list_media(self, deadline: float) -> list[str]:
        session = self._session(deadline)
        pool = _media_pool(session)
        if pool is None:
            return []
        _refresh(session, pool)
        names = [volume.name() for volume in session.do(pool.listAllVolumes, 0)]
        return sorted(name for name in names if kvm_xml.is_media_name(name))

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        session = self._session(deadline)
        domain = _our_domain(session, vm)
        path = None if media is None else media.path
        if _power(session, domain) is PowerState.OFF:
            flags = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
            definition = kvm_xml.with_media(session.do(domain.XMLDesc, flags), path)
            session.do(session.connection.defineXML, definition)
        else:
            _change_live(session, domain, kvm_xml.config_drive(path), ejecting=path is None)

    # Addresses ----------------------------------------------------------------------------------

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        # One connection executes five calls at a time on the host; beyond that they queue there.
        session = self._session(deadline)
        source = Source.TEST_DRIVER if self._is_test_driver else Source.GUEST_AGENT
        yield from _read_side_by_side(vms, deadline, width, lambda vm: _read_vm(session, vm, source))


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


def _ask_agent_to_shut_down(session: Session, domain: Any, until: float) -> None:
    """What comes of it shows in the power state; a frozen guest's agent may keep the call for a minute."""
    with contextlib.suppress(DoNotTryAgain, AskTheOperator, Busy, DeadlineExceeded):
        if kvm_xml.agent_connected(session.do(domain.XMLDesc, 0)):
            session.do(domain.shutdownFlags, libvirt.VIR_DOMAIN_SHUTDOWN_GUEST_AGENT, until=until)


def _change_live(session: Session, domain: Any, drive: str, *, ejecting: bool) -> None:
    """Change the medium of a running VM, now and for its next start.

    libvirt opens the tray and waits; a guest that has mounted the disc may keep it shut.
    """
    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE | libvirt.VIR_DOMAIN_AFFECT_CONFIG
    force = libvirt.VIR_DOMAIN_DEVICE_MODIFY_FORCE
    # Only an ejection is forced: the guest gets read errors, but the drive must go. A new disc can wait.
    for attempt in [flags, flags, flags | force] if ejecting else [flags, flags]:
        try:
            session.do(domain.updateDeviceFlags, drive, attempt)
            return
        except HypervisorError as error:
            if error_code(error) not in _TRAY_STAYS_SHUT:
                raise
            shut = error
    raise Busy(f"The guest keeps its CD-ROM tray shut. (libvirt error {error_code(shut)})") from shut


# Networks ---------------------------------------------------------------------------------------


def _interface_names(session: Session) -> list[str]:
    """The host's interfaces; empty where it cannot say, because a part of its libvirt is not installed."""
    try:
        return [interface.name() for interface in session.do(session.connection.listAllInterfaces, 0)]
    except (DoNotTryAgain, AskTheOperator):
        return []


# Storage ----------------------------------------------------------------------------------------


def _pool(session: Session, name: str) -> Any:
    """A pool that is in use. Raises StorageProblem."""
    pool = session.do(session.connection.storagePoolLookupByName, kvm_xml.pool_name(name))
    if not session.do(pool.isActive):
        raise StorageProblem(f"Storage pool {name} is not started on the host.")
    return pool


def _media_pool(session: Session) -> Any | None:
    try:
        return _pool(session, MEDIA_POOL)
    except StorageProblem as error:
        if error_code(error) == libvirt.VIR_ERR_NO_STORAGE_POOL:
            return None
        raise


def _ensure_media_pool(session: Session) -> Any:
    try:
        return _pool(session, MEDIA_POOL)
    except StorageProblem:
        pass  # not there, or not started
    try:
        pool = session.do(session.connection.storagePoolLookupByName, MEDIA_POOL)
    except StorageProblem:
        description = kvm_xml.media_pool(MEDIA_POOL, MEDIA_DIRECTORY)
        with contextlib.suppress(DoNotTryAgain):  # another process was faster
            session.do(session.connection.storagePoolDefineXML, description, 0)
        pool = session.do(session.connection.storagePoolLookupByName, MEDIA_POOL)
        session.do(pool.build, 0)
        session.do(pool.setAutostart, 1)
    with contextlib.suppress(DoNotTryAgain):  # another process was faster
        session.do(pool.create, 0)
    return _pool(session, MEDIA_POOL)


def _volume(session: Session, pool: Any, name: str, *, refresh: bool = False) -> Any | None:
    """`refresh` has libvirt look again for files that came without it."""
    try:
        return session.do(pool.storageVolLookupByName, name)
    except NotFound:
        if not refresh:
            return None
    _refresh(session, pool)
    return _volume(session, pool, name)


def _refresh(session: Session, pool: Any) -> None:
    with contextlib.suppress(DoNotTryAgain, AskTheOperator):  # refused while another volume is being written
        session.do(pool.refresh, 0)


def _delete_volume(session: Session, pool: Any, name: str, *, refresh: bool = False) -> None:
    volume = _volume(session, pool, name, refresh=refresh)
    if volume is None:
        return
    try:
        session.do(volume.delete, 0)
    except (Refused, AskTheOperator) as error:
        if error_code(error) == libvirt.VIR_ERR_OPERATION_INVALID:
            raise Busy(f"Volume {name} is being written on the host.") from error
        _refresh(session, pool)
        if _volume(session, pool, name) is not None:  # else the file had been removed behind libvirt's back
            raise


def _root_path(session: Session, root: ImageRoot) -> str:
    pool = _pool(session, root.pool)
    volume = _volume(session, pool, kvm_xml.volume_name(root.volume), refresh=True)
    if volume is None:
        raise NotFound(f"Storage pool {root.pool} has no volume {root.volume}.")
    path: str = session.do(volume.path)
    return path


def _upload(connection: Any, volume: Any, content: bytes) -> None:
    view = memoryview(content)
    sent = 0

    def next_chunk(_stream: Any, size: int, _data: object) -> bytes:
        nonlocal sent
        chunk = bytes(view[sent : sent + size])
        sent += len(chunk)
        return chunk

    stream = connection.newStream(0)
    try:
        volume.upload(stream, 0, len(content), 0)
        stream.sendAll(next_chunk, None)
        stream.finish()
    except BaseException:
        _abort(stream)
        raise


def _download(connection: Any, volume: Any) -> bytes:
    stream = connection.newStream(0)
    content = bytearray()
    try:
        volume.download(stream, 0, 0, 0)
        while chunk := stream.recv(CHUNK_BYTES):
            content += chunk
            if len(content) > MEDIA_MAX_BYTES:
                raise Refused("The volume is larger than any config drive.")
        stream.finish()
    except BaseException:
        _abort(stream)
        raise
    return bytes(content)


def _abort(stream: Any) -> None:
    with contextlib.suppress(libvirt.libvirtError):
        stream.abort()


# Addresses --------------------------------------------------------------------------------------


def _read_vm(session: Session, vm: VmRef, source: Source) -> Reading | None:
    """One VM's reading; None when the whole batch's deadline cut it short.

    Raises EndpointUnreachable, also when the host itself is slow: looking a VM up asks no guest.
    """
    until = time.monotonic() + READING_SECONDS
    try:
        domain = session.do(_domain_with_timeout, session.connection, kvm_xml.vm_uuid(vm.uuid), until=until)
    except NotFound as error:
        return Reading(problem=Outcome.NOT_RUNNING, detail=str(error))
    except DeadlineExceeded:
        if time.monotonic() < until:
            return None
        raise
    agent = libvirt.VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT
    try:
        answer = session.do(domain.interfaceAddresses, agent, 0, until=until)
    except DeadlineExceeded as error:
        return None if time.monotonic() < until else Reading(problem=Outcome.AGENT_SILENT, detail=str(error))
    except EndpointUnreachable:
        raise
    except HypervisorError as error:
        return Reading(problem=_why_silent(session, domain, error), detail=str(error))
    return Reading(guest_addresses(answer, vm.macs, source))


def _domain_with_timeout(connection: Any, uuid: str) -> Any:
    """The domain, its agent given a few seconds to answer: by default libvirt waits for ever.

    The time-out is kept in the daemon, for its every client; what others ask of an agent fits in it.
    """
    domain = connection.lookupByUUIDString(uuid)
    # Not known to libvirt before 5.10 nor to the test driver; the deadline of the reading holds anyway.
    with contextlib.suppress(libvirt.libvirtError):
        domain.agentSetResponseTimeout(AGENT_RESPONSE_SECONDS, 0)
    return domain


def _why_silent(session: Session, domain: Any, error: HypervisorError) -> Outcome:
    code = error_code(error)
    if code in _NOT_RUNNING:
        return Outcome.NOT_RUNNING
    if code in _NO_AGENT:
        return Outcome.AGENT_ABSENT
    if code == libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
        with contextlib.suppress(DoNotTryAgain, AskTheOperator):
            if kvm_xml.agent_connected(session.do(domain.XMLDesc, 0)) is False:
                return Outcome.AGENT_ABSENT
    return Outcome.AGENT_SILENT


_Result = tuple[VmRef, Reading | None] | Exception


def _read_side_by_side(
    vms: Sequence[VmRef], deadline: float, width: int, read: Callable[[VmRef], Reading | None]
) -> Iterator[tuple[VmRef, Reading]]:
    """Readings as they arrive, `width` at a time; the first EndpointUnreachable ends the batch."""
    waiting: queue.SimpleQueue[VmRef] = queue.SimpleQueue()
    for vm in vms:
        waiting.put(vm)
    results: queue.SimpleQueue[_Result] = queue.SimpleQueue()
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not ended.is_set() and time.monotonic() < deadline:
                vm = waiting.get_nowait()
                try:
                    results.put((vm, read(vm)))
                except Exception as error:  # it belongs to the caller's thread
                    results.put(error)

    for _ in range(min(max(1, width), len(vms))):
        threading.Thread(target=work, name="read-addresses", daemon=True).start()
    try:
        for _ in vms:
            result = _next_result(results, deadline)
            if result is None:
                return
            if isinstance(result, Exception):
                raise result
            vm, reading = result
            if reading is not None:
                yield vm, reading
    finally:
        ended.set()


def _next_result(results: "queue.SimpleQueue[_Result]", deadline: float) -> "_Result | None":
    """None when the deadline has come first."""
    while (remaining := deadline - time.monotonic()) > 0:
        try:
            return results.get(timeout=min(remaining, HEARTBEAT_SECONDS))
        except queue.Empty:
            beat()
    return None


def _dotted(version: int) -> str:
    """libvirt's encoding: major * 1,000,000 + minor * 1,000 + release."""
    return f"{version // 1_000_000}.{version // 1000 % 1000}.{version % 1000}"
