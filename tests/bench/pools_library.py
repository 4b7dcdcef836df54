"""What the hypervisors' own libraries need for the addresses of all VMs, with the transports that come with them.

`python -m tests.bench.pools_library whole|each FILE`: `whole` asks for the answers that the product asks for, all
VMs in each; `each` makes a call for every VM, in threads. FILE is the JSON of a World. Prints seconds as JSON, and
`whole` the guests too.
"""

import json
import ssl
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import XenAPI
from pyVmomi import SoapStubAdapter, vim, vmodl

from networks.hypervisors.base import EndpointAddress, Transport
from networks.hypervisors.vsphere_machines import PATHS
from networks.hypervisors.vsphere_session import API_VERSION, PAGE_OBJECTS, all_of
from networks.hypervisors.xenserver_records import OUR_UUID

THREADS = 10
Query: Any = vmodl.query.PropertyCollector


@dataclass(frozen=True)
class Guest:
    """A VM: its UUID as the product knows it, its NIC, and what its guest has told. `ref` is the hypervisor's own."""

    uuid: str
    mac: str
    ip: str
    ref: str


@dataclass(frozen=True)
class World:
    kind: str
    address: EndpointAddress
    guests: tuple[Guest, ...] = ()

    def write(self, path: Path) -> None:
        path.touch(0o600)
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Self:
        said = json.loads(path.read_text())
        address = EndpointAddress(**said["address"] | {"transport": Transport(said["address"]["transport"])})
        return cls(said["kind"], address, tuple(Guest(**guest) for guest in said["guests"]))


class Library(Protocol):
    """Logged in. `whole` receives and parses, `guests` makes sense of it."""

    def whole(self) -> Any: ...

    def guests(self, answers: Any) -> list[Guest]: ...

    def one(self, ref: str) -> object: ...


class PyVmomi:
    def __init__(self, address: EndpointAddress) -> None:
        trusted = ssl.create_default_context(cadata=address.ca_certificates)
        stub = SoapStubAdapter(
            host=address.host,
            port=address.port,
            version=API_VERSION,
            sslContext=trusted,
            acceptCompressedResponses=False,
            poolSize=THREADS,
        )
        self._content: Any = vim.ServiceInstance("ServiceInstance", stub).RetrieveContent()
        self._content.sessionManager.Login(address.username, address.password)

    def whole(self) -> list[Any]:
        content = self._content
        view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
        collector = content.propertyCollector.CreatePropertyCollector()
        collector.CreateFilter(self._specification(all_of(view)), False)
        options = Query.WaitOptions(maxWaitSeconds=0, maxObjectUpdates=PAGE_OBJECTS)
        answers = [collector.WaitForUpdatesEx("", options)]
        while answers[-1].truncated:
            answers.append(collector.WaitForUpdatesEx(answers[-1].version, options))
        return answers

    def guests(self, answers: list[Any]) -> list[Guest]:
        guests = []
        for update in (update for answer in answers for page in answer.filterSet for update in page.objectSet):
            properties = {change.name: change.val for change in update.changeSet}
            for nic in properties.get("guest.net") or []:
                if properties.get("guest.ipAddress"):
                    ip = properties["guest.ipAddress"]
                    guests.append(Guest(properties["config.uuid"], nic.macAddress, ip, update.obj._moId))
        return guests

    def one(self, ref: str) -> object:
        specification = self._specification(Query.ObjectSpec(obj=vim.VirtualMachine(ref)))
        return self._content.propertyCollector.RetrievePropertiesEx([specification], Query.RetrieveOptions())

    @staticmethod
    def _specification(objects: Any) -> Any:
        return Query.FilterSpec(
            objectSet=[objects], propSet=[Query.PropertySpec(type=vim.VirtualMachine, pathSet=list(PATHS))]
        )


class Xapi:
    """A session is for one thread at a time: each has its own."""

    def __init__(self, address: EndpointAddress) -> None:
        self._address = address
        self._of_thread = threading.local()

    def _api(self) -> Any:
        if not hasattr(self._of_thread, "session"):
            address = self._address
            trusted = ssl.create_default_context(cadata=address.ca_certificates)
            transport = xmlrpc.client.SafeTransport(context=trusted)
            session = XenAPI.Session(f"https://{address.host}:{address.port}", transport=transport)
            session.login_with_password(address.username, address.password, "1.0", "bench")
            self._of_thread.session = session
        return self._of_thread.session.xenapi

    def whole(self) -> dict[str, Any]:
        api = self._api()
        return {name: getattr(api, name).get_all_records() for name in ("VM", "VIF", "VM_guest_metrics")}

    def guests(self, answers: dict[str, Any]) -> list[Guest]:
        guests = []
        for vm in answers["VM"].values():
            if OUR_UUID in vm["other_config"]:
                mac = answers["VIF"][vm["VIFs"][0]]["MAC"]
                ip = answers["VM_guest_metrics"][vm["guest_metrics"]]["networks"]["0/ip"]
                guests.append(Guest(vm["other_config"][OUR_UUID], mac, ip, vm["guest_metrics"]))
        return guests

    def one(self, ref: str) -> object:
        return self._api().VM_guest_metrics.get_record(ref)


LIBRARIES: dict[str, Callable[[EndpointAddress], Library]] = {"VMware": PyVmomi, "XenServer": Xapi}


def whole(world: World, path: Path) -> dict[str, float]:
    """Seconds of the answers alone; the guests are written into the world at `path`."""
    library = LIBRARIES[world.kind](world.address)
    began = time.perf_counter()
    answers = library.whole()
    took = time.perf_counter() - began
    replace(world, guests=tuple(library.guests(answers))).write(path)
    return {"seconds": took, "cpu_seconds": time.process_time()}


def each(world: World, path: Path) -> dict[str, float]:
    library = LIBRARIES[world.kind](world.address)
    refs: Sequence[str] = [guest.ref for guest in world.guests]
    with ThreadPoolExecutor(THREADS) as threads:
        began = time.perf_counter()
        for answer in threads.map(library.one, refs):
            assert answer
        took = time.perf_counter() - began
    return {"seconds": took}


if __name__ == "__main__":
    file = Path(sys.argv[2])
    step = {"whole": whole, "each": each}[sys.argv[1]]
    print(json.dumps(step(World.read(file), file)))
