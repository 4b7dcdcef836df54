"""A hypervisor in memory, for what real hosts cannot be made to do on demand.

It keeps the rules that the product relies on: a running VM has a definition, a name is placed once.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from unittest import mock

from networks.hypervisors.base import (
    GuestAddress,
    HostFacts,
    HypervisorError,
    ImageRoot,
    Media,
    NetworkRef,
    NotFound,
    Outcome,
    PowerState,
    Reading,
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
    running: set[str] = field(default_factory=set)
    media: dict[str, bytes] = field(default_factory=dict)
    inserted: dict[str, str | None] = field(default_factory=dict)
    volumes: set[str] = field(default_factory=set)
    calls: list[str] = field(default_factory=list)

    def answers(self, vm: VmRef, *addresses: GuestAddress) -> None:
        self.readings[vm.uuid] = Reading(addresses)

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if method in self.failing:
            raise self.failing[method]

    def host_facts(self, deadline: float) -> HostFacts:
        self._called("host_facts")
        return HostFacts("fake", "1", 8, 2000, 16 * 1024**3)

    def list_vms(self, deadline: float) -> list[VmRecord]:
        return [VmRecord(spec.vm, self._power(spec.vm)) for spec in self.defined.values()]

    def _power(self, vm: VmRef) -> PowerState:
        return PowerState.RUNNING if vm.uuid in self.running else PowerState.OFF

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        self._called("power_state")
        return self._power(vm) if vm.uuid in self.defined else None

    def ensure_network(self, network: NetworkRef, deadline: float) -> None:
        self._called("ensure_network")

    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        self._called("ensure_root")
        self.volumes.add(root.volume)

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        self._called("delete_root")
        self.volumes.discard(root.volume)

    def define(self, spec: VmSpec, deadline: float) -> None:
        self._called("define")
        self.defined[spec.vm.uuid] = spec
        self.inserted[spec.vm.uuid] = None

    def start(self, vm: VmRef, deadline: float) -> None:
        self._called("start")
        if vm.uuid not in self.defined:
            raise NotFound("not defined")
        self.running.add(vm.uuid)

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        self._called("stop")
        self.running.discard(vm.uuid)

    def reboot(self, vm: VmRef, deadline: float) -> None:
        self._called("reboot")

    def undefine(self, vm: VmRef, deadline: float) -> None:
        self._called("undefine")
        self.running.discard(vm.uuid)
        self.defined.pop(vm.uuid, None)
        self.inserted.pop(vm.uuid, None)

    def migrate(self, vm: VmRef, target: "FakeHypervisor", deadline: float) -> None:
        self._called("migrate")
        media = self.inserted[vm.uuid]
        assert media is None or media in target.media, "the target lacks the disc that the guest reads"
        target.defined[vm.uuid] = self.defined.pop(vm.uuid)
        target.inserted[vm.uuid] = self.inserted.pop(vm.uuid)
        self.running.discard(vm.uuid)
        target.running.add(vm.uuid)

    def place(self, name: str, content: bytes, deadline: float) -> Media:
        self._called("place")
        self.media[name] = content
        return Media(name, f"/pool/{name}")

    def read(self, name: str, deadline: float) -> bytes:
        self._called("read")
        return self.media[name]

    def remove(self, name: str, deadline: float) -> None:
        self._called("remove")
        self.media.pop(name, None)

    def list_media(self, deadline: float) -> list[str]:
        return sorted(self.media)

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        self._called("insert")
        self.inserted[vm.uuid] = media.name if media else None

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        self._called("read_addresses")
        for vm in vms:
            reading = self.readings.get(vm.uuid, Reading(problem=Outcome.AGENT_ABSENT))
            if isinstance(reading, HypervisorError):
                raise reading
            yield vm, reading


@contextlib.contextmanager
def hypervisors(by_endpoint: dict[str, FakeHypervisor] | FakeHypervisor) -> Iterator[None]:
    """Let every place that asks for a driver get a fake: one for all, or by the endpoint's host name."""

    def fake_driver(kind: str, address) -> FakeHypervisor:
        return by_endpoint if isinstance(by_endpoint, FakeHypervisor) else by_endpoint[address.host]

    with mock.patch("networks.services.places.driver", fake_driver):
        yield
