"""A hypervisor in memory, for what real hosts cannot be made to do on demand.

It keeps the rules that the product relies on: a running VM has a definition, a guest that migrates
finds its disc on the target, an agent answers only while its guest runs.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from networks.hypervisors.base import (
    AgentAbsent,
    AgentState,
    GuestAddress,
    HostFacts,
    HypervisorError,
    ImageRoot,
    Media,
    MediaFile,
    Member,
    NetworkRef,
    NicSpec,
    NicState,
    NotFound,
    Outcome,
    PowerState,
    Reading,
    Refused,
    StorageRoom,
    VmRecord,
    VmRef,
    VmSpec,
)


@dataclass
class FakeHypervisor:
    """One host. `readings` is what its guests answer; `failing` names methods and the error each raises."""

    readings: dict[str, Reading] = field(default_factory=dict)
    failing: dict[str, BaseException] = field(default_factory=dict)
    defined: dict[str, VmSpec] = field(default_factory=dict)
    nics: dict[str, tuple[NicSpec, ...]] = field(default_factory=dict)  # by VM, as plugged in now
    running: set[str] = field(default_factory=set)
    media: dict[str, bytes] = field(default_factory=dict)  # the host's own cache
    # By storage; hosts that share one are given the same dict. `no_files` names storages that hold no files.
    stored: dict[str, dict[str, bytes]] = field(default_factory=dict)
    no_files: set[str] = field(default_factory=set)
    discs: dict[str, str | None] = field(default_factory=dict)  # by VM, the path of what our CD-ROM holds
    reads: dict[str, int | None] = field(default_factory=dict)  # by VM, since its power-on
    guest_files: dict[tuple[str, str], bytes] = field(default_factory=dict)  # by VM and path
    passwords: dict[tuple[str, str], str] = field(default_factory=dict)  # by VM and user
    agents: dict[str, AgentState | None] = field(default_factory=dict)  # by VM; connected where nothing is said
    volumes: set[str] = field(default_factory=set)
    rooms: dict[str, StorageRoom] = field(default_factory=dict)  # by storage
    neighbours: dict[str, tuple[GuestAddress, ...]] = field(default_factory=dict)  # by VM, the host's own table
    calls: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)  # of each list of ISOs, the one name asked for; "" for all

    def answers(self, vm: VmRef, *addresses: GuestAddress) -> None:
        self.readings[vm.uuid] = Reading(addresses)

    def _called(self, method: str) -> None:
        self.calls.append(method)
        self.raise_if_told(method)

    def raise_if_told(self, method: str) -> None:
        if method in self.failing:
            raise self.failing[method]

    def host_facts(self, deadline: float) -> HostFacts:
        self._called("host_facts")
        return HostFacts("fake", "1", 8, 2000, 16 * 1024**3)

    def list_vms(self, deadline: float) -> list[VmRecord]:
        self._called("list_vms")
        return [VmRecord(spec.vm, self._power(spec.vm)) for spec in self.defined.values()]

    def running_vms(self, deadline: float) -> set[str]:
        self._called("running_vms")
        return set(self.running)

    def _power(self, vm: VmRef) -> PowerState:
        return PowerState.RUNNING if vm.uuid in self.running else PowerState.OFF

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        self._called("power_state")
        return self._power(vm) if vm.uuid in self.defined else None

    def ensure_network(self, network: NetworkRef, deadline: float) -> None:
        self._called("ensure_network")

    def has_network(self, network: NetworkRef, deadline: float) -> bool:
        self._called("has_network")
        return True

    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        self._called("ensure_root")
        self.volumes.add(root.volume)

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        self._called("delete_root")
        self.volumes.discard(root.volume)

    def room(self, storage: str, deadline: float) -> StorageRoom:
        self._called("room")
        return self.rooms.get(storage, StorageRoom(100 * 1024**3, 90 * 1024**3))

    def define(self, spec: VmSpec, deadline: float) -> None:
        self._called("define")
        self.defined[spec.vm.uuid] = spec
        self.nics[spec.vm.uuid] = spec.nics
        self.discs[spec.vm.uuid] = None

    def _check_defined(self, vm: VmRef) -> None:
        if vm.uuid not in self.defined:
            raise NotFound("not defined")

    def start(self, vm: VmRef, deadline: float) -> None:
        self._called("start")
        self._check_defined(vm)
        if vm.uuid not in self.running:
            self.running.add(vm.uuid)
            self.reads[vm.uuid] = 0

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        self._called("stop")
        self.running.discard(vm.uuid)

    def reboot(self, vm: VmRef, deadline: float) -> None:
        self._called("reboot")

    def undefine(self, vm: VmRef, deadline: float) -> None:
        self._called("undefine")
        self._forget(vm)

    def _forget(self, vm: VmRef) -> None:
        self.running.discard(vm.uuid)
        for kept in (self.defined, self.nics, self.discs):
            kept.pop(vm.uuid, None)

    def migrate(self, vm: VmRef, target: "FakeHypervisor", deadline: float) -> None:
        self._called("migrate")
        path = self.discs[vm.uuid]
        lacking = path in self.paths() and path not in target.paths()
        assert not lacking, "the target lacks the disc that the guest reads"
        self.moved_behind_our_back(vm, target)
        self._forget(vm)

    def moved_behind_our_back(self, vm: VmRef, target: "FakeHypervisor") -> None:
        """What `virsh migrate --live` does: a disc that the target lacks is dropped, the definition stays here."""
        path = self.discs[vm.uuid]
        target.defined[vm.uuid], target.nics[vm.uuid] = self.defined[vm.uuid], self.nics[vm.uuid]
        target.discs[vm.uuid] = path if path in target.paths() else None
        target.running.add(vm.uuid)
        target.reads[vm.uuid] = 0
        self.running.discard(vm.uuid)

    def add_nic(self, vm: VmRef, nic: NicSpec, deadline: float) -> None:
        self._called("add_nic")
        self._check_defined(vm)
        if nic.mac not in [plugged.mac for plugged in self.nics[vm.uuid]]:
            self.nics[vm.uuid] += (nic,)

    def remove_nic(self, vm: VmRef, mac: str, deadline: float) -> None:
        self._called("remove_nic")
        self._check_defined(vm)
        self.nics[vm.uuid] = tuple(nic for nic in self.nics[vm.uuid] if nic.mac != mac)

    def nic_state(self, vm: VmRef, nic: NicSpec, deadline: float) -> NicState:
        self._called("nic_state")
        self._check_defined(vm)
        plugged = {each.mac: each.network for each in self.nics[vm.uuid]}
        if nic.mac not in plugged:
            return NicState.ABSENT
        return NicState.PLUGGED if plugged[nic.mac] == nic.network else NicState.ELSEWHERE

    def _store(self, storage: str) -> dict[str, bytes]:
        return self.stored.setdefault(storage, {}) if storage else self.media

    def _path(self, name: str, storage: str) -> str:
        return f"/primary/{storage}/{name}" if storage else f"/pool/{name}"

    def paths(self) -> set[str]:
        """Where on this host an ISO lies."""
        stores = {"": self.media} | self.stored
        return {self._path(name, storage) for storage, files in stores.items() for name in files}

    def place(self, name: str, content: bytes, deadline: float, *, storage: str = "") -> Media:
        self._called("place")
        if storage in self.no_files:
            raise Refused("holds no files")
        self._store(storage)[name] = content
        return Media(name, self._path(name, storage))

    def read(self, name: str, deadline: float, *, storage: str = "") -> bytes:
        self._called("read")
        if name not in self._store(storage):
            raise NotFound("no such ISO")
        return self._store(storage)[name]

    def remove(self, name: str, deadline: float, *, storage: str = "") -> None:
        self._called("remove")
        self._store(storage).pop(name, None)

    def list_media(self, deadline: float, *, storage: str = "", name: str = "") -> list[MediaFile]:
        self._called("list_media")
        self.listed.append(name)
        files = [MediaFile(each, len(content)) for each, content in sorted(self._store(storage).items())]
        return [file for file in files if name in ("", file.name)]

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        self._called("insert")
        self._check_defined(vm)
        self.discs[vm.uuid] = media.path if media else None

    def inserted(self, vm: VmRef, deadline: float) -> str | None:
        self._called("inserted")
        self._check_defined(vm)
        return self.discs[vm.uuid]

    def bytes_read(self, vm: VmRef, deadline: float) -> int | None:
        self._called("bytes_read")
        self._check_defined(vm)
        return self.reads.get(vm.uuid) if vm.uuid in self.running else None

    def set_password(self, vm: VmRef, user: str, password: str, deadline: float) -> None:
        self._called("set_password")
        self._check_agent(vm)
        self.passwords[vm.uuid, user] = password

    def read_guest_file(self, vm: VmRef, path: str, deadline: float, *, most: int = 4096) -> bytes:
        self._called("read_guest_file")
        self._check_agent(vm)
        if (vm.uuid, path) not in self.guest_files:
            raise NotFound("no such file in the guest")
        return self.guest_files[vm.uuid, path][:most]

    def agent_state(self, vm: VmRef, deadline: float) -> AgentState | None:
        self._called("agent_state")
        self._check_defined(vm)
        return self.agents.get(vm.uuid, AgentState.CONNECTED)

    def _check_agent(self, vm: VmRef) -> None:
        self._check_defined(vm)
        if vm.uuid not in self.running:
            raise AgentAbsent("the guest does not run")

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        self._called("read_addresses")
        for vm in vms:
            reading = self.readings.get(vm.uuid, Reading(problem=Outcome.AGENT_ABSENT))
            if isinstance(reading, HypervisorError):
                raise reading
            yield vm, reading

    def read_neighbours(
        self, vms: Sequence[VmRef], deadline: float
    ) -> Iterator[tuple[VmRef, tuple[GuestAddress, ...]]]:
        self._called("read_neighbours")
        for vm in vms:
            if vm.uuid in self.neighbours:
                yield vm, self.neighbours[vm.uuid]


class FakePool:
    """Hosts of one endpoint, by name. What acts on a VM acts on it wherever in the pool it is; `""` is the pool."""

    def __init__(self, *names: str) -> None:
        self.hosts = {name: FakeHypervisor() for name in names}
        shared: dict[str, dict[str, bytes]] = {"default-pool": {}}
        for host in self.hosts.values():
            host.stored = shared
        self.whole = FakeHypervisor()
        self.of_pool: tuple[Member, ...] = ()

    def bound_to(self, name: str) -> "FakePoolHost":
        return FakePoolHost(self, name)


class FakePoolHost:
    """A driver as a pool's or a vCenter's is: bound to one host, or with no name to all of them."""

    def __init__(self, pool: FakePool, name: str) -> None:
        self._pool, self._name = pool, name
        self._own = pool.hosts[name] if name else pool.whole

    def __getattr__(self, method: str) -> Any:
        return getattr(self._own, method)

    def _where(self, vm: VmRef) -> FakeHypervisor:
        return next((host for host in self._pool.hosts.values() if vm.uuid in host.defined), self._own)

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        """None for one that runs on another host than the one that was named."""
        there = self._where(vm)
        power = there.power_state(vm, deadline)
        return None if self._name and power is PowerState.RUNNING and there is not self._own else power

    def members(self, deadline: float) -> tuple[Member, ...]:
        self._own.raise_if_told("members")
        return self._pool.of_pool

    def running_vms(self, deadline: float) -> set[str]:
        own = self._own.running_vms(deadline)
        return own if self._name else {uuid for host in self._pool.hosts.values() for uuid in host.running}

    def list_vms(self, deadline: float) -> list[VmRecord]:
        if self._name:
            return self._own.list_vms(deadline)
        return [record for host in self._pool.hosts.values() for record in host.list_vms(deadline)]

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        self._own.raise_if_told("stop")
        self._where(vm).stop(vm, deadline, grace=grace)

    def undefine(self, vm: VmRef, deadline: float) -> None:
        self._own.raise_if_told("undefine")
        self._where(vm).undefine(vm, deadline)

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        self._where(vm).insert(vm, media, deadline)

    def inserted(self, vm: VmRef, deadline: float) -> str | None:
        return self._where(vm).inserted(vm, deadline)

    def migrate(self, vm: VmRef, target: "FakePoolHost", deadline: float) -> None:
        """One VM, one definition: nothing of it stays here."""
        self._own.migrate(vm, target._own, deadline)


@contextlib.contextmanager
def hypervisors(by_endpoint: dict[str, FakeHypervisor] | FakeHypervisor | FakePool) -> Iterator[None]:
    """Let every place that asks for a driver get a fake: one for all, by the endpoint's host name, or a pool's."""

    def fake_driver(kind: str, address, host: str = "") -> FakeHypervisor | FakePoolHost:
        if isinstance(by_endpoint, FakePool):
            return by_endpoint.bound_to(host)
        return by_endpoint if isinstance(by_endpoint, FakeHypervisor) else by_endpoint[address.host]

    with mock.patch("networks.services.places.driver", fake_driver):
        yield
