"""XenServer and XCP-ng pools through XenAPI.

Sessions are in `xenserver_session` and what their failures mean in `xenserver_errors`; records become values in
`xenserver_records`. VMs are in `xenserver_vms`, their networks and NICs in `xenserver_networks`, storage and ROOT
volumes in `xenserver_storage`, config drives in `xenserver_media`; what a user must be allowed is in
`xenserver_rights`. What guests say of themselves is read in
`xenserver_addresses`; the pool's running VMs are kept in `xenserver_mirror`, and what the pool tells by itself is in
`xenserver_events`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Self

from networks.hypervisors import xenserver_media as media_store
from networks.hypervisors import xenserver_networks as networks
from networks.hypervisors import xenserver_records as records
from networks.hypervisors import xenserver_rights as rights
from networks.hypervisors import xenserver_storage as storage_of
from networks.hypervisors import xenserver_vms as vms_of
from networks.hypervisors.base import (
    RENAMED,
    EndpointAddress,
    GuestEvent,
    HostFacts,
    HostUnavailable,
    ImageRoot,
    Media,
    MediaFile,
    Member,
    NetworkRef,
    NicSpec,
    NicState,
    NotFound,
    PowerState,
    Reading,
    Refused,
    StorageRoom,
    Transport,
    VmRecord,
    VmRef,
    VmSpec,
)
from networks.hypervisors.bounded_xmlrpc import RECORDS, keeping
from networks.hypervisors.tls import check_address
from networks.hypervisors.xenserver_events import XenWatch
from networks.hypervisors.xenserver_mirror import MIRRORS, read_alone
from networks.hypervisors.xenserver_session import SESSIONS, Session, Sessions

FEW = 3  # VMs that are read by themselves
_HOST = frozenset({"hostname", "software_version", "cpu_info", "metrics", "enabled"})


class XenHost:
    """One host of a pool, or the pool as a whole when `host` is "". Cheap to make, and safe to share between threads.

    `host` is its name-label. A pool has each VM once, and may move it by itself (an administrator, high availability):
    what is done to a VM that is there already is done to it wherever it runs. The sessions, and what is known of the
    pool, belong to the process.
    """

    def __init__(self, address: EndpointAddress, host: str = "", sessions: Sessions = SESSIONS) -> None:
        """Raises Refused for an address that cannot be one; does not connect."""
        if address.transport not in (Transport.TLS, Transport.TEST):
            raise Refused("XenServer is reached by TLS alone.")
        check_address(address)
        self.address = address
        self.host = records.label(host, "The host's name") if host else ""
        self._sessions = sessions

    def __repr__(self) -> str:
        return f"<XenHost {self.host or 'pool'} at {self.address.host}>"

    def _session(self, deadline: float) -> Session:
        return Session(self.address, deadline, self._sessions)

    def _here(self, session: Session) -> str:
        """Our host's reference; "" when this is the pool as a whole."""
        return session.host(self.host) if self.host else ""

    def _one_host(self, session: Session) -> str:
        if not self.host:
            raise Refused("Which host of the pool is to do this has to be said.")
        return session.host(self.host)

    # Inventory ----------------------------------------------------------------------------------

    def host_facts(self, deadline: float) -> HostFacts:
        """Of the pool as a whole: its name, all CPUs and memory, and the slowest CPU's speed.

        Of one host: raises HostUnavailable while it is off or disabled.
        """
        with self._session(deadline) as session:
            here = self._here(session)
            with keeping(_HOST, depth=RECORDS):
                hosts = records.records(session.call("host.get_all_records"))
            with keeping({"memory_total", "live"}, depth=RECORDS):
                metrics = records.records(session.call("host_metrics.get_all_records"))
            if here in hosts:
                _check_usable(self.host, hosts[here], metrics)
            facts = [_facts(host, metrics) for ref, host in hosts.items() if here in ("", ref)]
            name = self.host or records.text(session.pool()[1], "name_label") or self.address.host
        if not facts:
            raise HostUnavailable(f"The pool has no host {self.host}: {RENAMED}")
        return HostFacts(
            hostname=facts[0].hostname if self.host else name,
            version=facts[0].version,
            cpus=sum(one.cpus for one in facts),
            mhz=min(one.mhz for one in facts),
            memory=sum(one.memory for one in facts),
        )

    def list_vms(self, deadline: float) -> list[VmRecord]:
        """A VM that is off belongs to the host that it was last meant for."""
        with self._session(deadline) as session:
            here = self._here(session)
            with keeping(records.VM_FIELDS, depth=RECORDS):
                if here:
                    found = session.where("VM", "resident_on", here) | session.where("VM", "affinity", here)
                else:
                    found = records.records(session.call("VM.get_all_records"))
            macs = networks.macs(session)
        vms = [vm for ref, record in found.items() if (vm := records.vm(ref, record)) and here in ("", vm.host)]
        return [VmRecord(VmRef(vm.name, vm.uuid, macs.get(vm.ref, ())), vm.power) for vm in vms]

    def running_vms(self, deadline: float) -> set[str]:
        with self._session(deadline) as session:
            return MIRRORS.of(self.address).running(session, self._here(session))

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        with self._session(deadline) as session:
            here, found = self._here(session), vms_of.find(session, vm)
            return None if found is None or vms_of.is_elsewhere(found, here) else found.power

    def members(self, deadline: float) -> tuple[Member, ...]:
        with self._session(deadline) as session:
            return session.members()

    def missing_rights(self, deadline: float) -> tuple[str, ...]:
        with self._session(deadline) as session:
            return rights.missing(session)

    # Networks and volumes -----------------------------------------------------------------------

    def ensure_network(self, network: NetworkRef, deadline: float) -> None:
        """One that lacks is made for its VLAN on the interfaces of the pool's network `cloud-guest`."""
        with self._session(deadline) as session:
            networks.ensure(session, self._one_host(session), network)

    def has_network(self, network: NetworkRef, deadline: float) -> bool:
        with self._session(deadline) as session:
            return networks.is_there(session, self._one_host(session), network)

    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        with self._session(deadline) as session:
            storage_of.ensure_root(session, self._one_host(session), root)

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        with self._session(deadline) as session:
            storage_of.delete_root(session, self._one_host(session), root)

    def is_shared(self, storage: str, deadline: float) -> bool:
        with self._session(deadline) as session:
            return storage_of.primary(session, self._one_host(session), storage).shared

    def room(self, storage: str, deadline: float) -> StorageRoom:
        with self._session(deadline) as session:
            return storage_of.room(session, storage_of.primary(session, self._one_host(session), storage))

    # Life cycle ---------------------------------------------------------------------------------

    def define(self, spec: VmSpec, deadline: float) -> None:
        with self._session(deadline) as session:
            vms_of.define(session, self._one_host(session), spec)

    def start(self, vm: VmRef, deadline: float) -> None:
        with self._session(deadline) as session:
            host = self._one_host(session)
            vms_of.start(session, host, vms_of.here(session, vm, host))

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        with self._session(deadline) as session:
            found = vms_of.ours_if_any(session, vm)
            if found is not None:
                vms_of.stop(session, found, grace)

    def reboot(self, vm: VmRef, deadline: float) -> None:
        with self._session(deadline) as session:
            session.run("VM.hard_reboot", vms_of.ours(session, vm).ref)

    def undefine(self, vm: VmRef, deadline: float) -> None:
        with self._session(deadline) as session:
            found = vms_of.ours_if_any(session, vm)
            if found is not None:
                vms_of.power_off(session, found)
                vms_of.destroy(session, found)

    def migrate(self, vm: VmRef, target: Self, deadline: float) -> None:
        """Live, to another host of the pool. ROOT must lie on storage that both see."""
        if target.address != self.address:
            raise Refused("A VM is migrated within its pool alone.")
        with self._session(deadline) as session:
            here, there = self._one_host(session), target._one_host(session)
            found = vms_of.ours(session, vm)
            if found.power is PowerState.OFF or found.suspended:
                raise Refused(f"{vm.name} does not run, and only a running VM can be migrated live.")
            if found.host == there:
                return  # it went over, and then we were interrupted
            if vms_of.is_elsewhere(found, here):
                raise Refused(f"{vm.name} runs on another host of the pool.")
            vms_of.migrate(session, found, here, there)

    # Config drives ------------------------------------------------------------------------------

    def place(self, name: str, content: bytes, deadline: float, *, storage: str = "") -> Media:
        records.media_name(name)
        if not 0 < len(content) <= media_store.MEDIA_MAX_BYTES:
            raise Refused(f"An ISO of {len(content)} bytes is not a config drive.")
        with self._session(deadline) as session:
            host = self._one_host(session)
            where = media_store.store_to_fill(session, host, storage)
            media_store.place(session, host, where, name, content)
        return Media(name, media_store.path(name))

    def read(self, name: str, deadline: float, *, storage: str = "") -> bytes:
        records.media_name(name)
        with self._session(deadline) as session:
            host = self._one_host(session)
            where = media_store.store(session, host, storage)
            if where is None:
                raise NotFound(f"Host {self.host} has no ISO {name}.")
            return media_store.read(session, host, where, name)

    def remove(self, name: str, deadline: float, *, storage: str = "") -> None:
        records.media_name(name)
        with self._session(deadline) as session:
            where = media_store.store(session, self._one_host(session), storage)
            if where is not None:
                media_store.remove(session, where, name)

    def list_media(self, deadline: float, *, storage: str = "", name: str = "") -> list[MediaFile]:
        if name:
            records.media_name(name)
        with self._session(deadline) as session:
            where = media_store.store(session, self._one_host(session), storage)
            return [] if where is None else media_store.files(session, where, name)

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        with self._session(deadline) as session:
            host, found = self._one_host(session), vms_of.ours(session, vm)
            media_store.insert(session, vms_of.runs_on(found) or host, found, media)

    def inserted(self, vm: VmRef, deadline: float) -> str | None:
        with self._session(deadline) as session:
            return media_store.inserted(session, vms_of.ours(session, vm))

    def bytes_read(self, vm: VmRef, deadline: float) -> int | None:
        """XenAPI counts no bytes of a CD-ROM."""
        with self._session(deadline) as session:
            vms_of.ours(session, vm)
        return None

    # NICs ---------------------------------------------------------------------------------------

    def add_nic(self, vm: VmRef, nic: NicSpec, deadline: float) -> None:
        with self._session(deadline) as session:
            host = self._one_host(session)
            networks.plug(session, vms_of.here(session, vm, host), host, nic)

    def remove_nic(self, vm: VmRef, mac: str, deadline: float) -> None:
        with self._session(deadline) as session:
            networks.unplug(session, vms_of.ours(session, vm), mac)

    def nic_state(self, vm: VmRef, nic: NicSpec, deadline: float) -> NicState:
        with self._session(deadline) as session:
            host = self._one_host(session)
            return networks.state(session, vms_of.here(session, vm, host), host, nic)

    # Addresses and events -----------------------------------------------------------------------

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        """The whole pool is asked at once, however many VMs are wanted: no guest is waited for."""
        with self._session(deadline) as session:
            mirror = MIRRORS.of(self.address)
            if len(vms) <= FEW and not mirror.is_read:
                # A process that wants no more never reads the pool.
                readings = [(vm, read_alone(session, vms_of.find(session, vm))) for vm in vms]
            else:
                readings = mirror.readings(session, vms)
        yield from readings

    def watch(self, tell: Callable[[str, GuestEvent], None], deadline: float) -> XenWatch:
        watch = XenWatch(self.address, tell, self._sessions)
        watch.open(deadline)
        return watch


def _facts(host: records.Record, metrics: dict[str, records.Record]) -> HostFacts:
    software, cpus = records.strings(host, "software_version"), records.strings(host, "cpu_info")
    memory = metrics.get(records.ref(host, "metrics"), {})
    brand, version = software.get("product_brand", "XenServer"), software.get("product_version", "?")
    return HostFacts(
        hostname=records.text(host, "hostname"),
        version=f"{brand} {version}, Xen {software.get('xen', '?')}",
        cpus=_whole(cpus.get("cpu_count", "")),
        mhz=_whole(cpus.get("speed", "").partition(".")[0]),
        memory=records.number(memory, "memory_total") if memory else 0,
    )


def _check_usable(name: str, host: records.Record, metrics: dict[str, records.Record]) -> None:
    """Raises HostUnavailable."""
    told = metrics.get(records.ref(host, "metrics"))
    if told is None or not records.flag(told, "live"):
        raise HostUnavailable(f"Host {name} is off, or its pool's coordinator cannot reach it.")
    if not records.flag(host, "enabled"):
        raise HostUnavailable(f"Host {name} is disabled in its pool, for maintenance say: enable it there.")


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 10 else 0
