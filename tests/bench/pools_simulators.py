"""A vCenter or a XenServer pool with many running VMs, in a process of its own: each guest has told one address.

`python -m tests.bench.pools_simulators VMS` is that process for a pool: a line on its standard input asks for the
number of calls since the last, and the end of it ends the process. The vCenter is a program by itself.
"""

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import IO

from extdhcp_site.processes import die_with_parent
from networks.hypervisors.base import EndpointAddress, Transport
from networks.hypervisors.xenserver_records import OUR_SELF, OUR_UUID
from tests.server import ROOT
from tests.simulators.vcenter import Vcenter
from tests.simulators.xenserver import XenServer

DELAY_MS = 20
HOSTS = 2


@dataclass(frozen=True)
class Simulator:
    """`count_calls` gives how many calls have come since it was last asked."""

    kind: str
    address: EndpointAddress
    count_calls: Callable[[], int]


@contextlib.contextmanager
def vcenter(vms: int) -> Iterator[Simulator]:
    """Raises VcenterMissing."""
    with Vcenter(vms=vms, hosts=HOSTS, addresses=True, delay=DELAY_MS) as simulator:

        def count_calls() -> int:
            count = sum(simulator.calls().values())
            simulator.forget_calls()
            return count

        yield Simulator("VMware", simulator.address, count_calls)


@contextlib.contextmanager
def xenserver(vms: int) -> Iterator[Simulator]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.pools_simulators", str(vms)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    said, asked = process.stdout, process.stdin
    with process:
        address = EndpointAddress(**json.loads(said.readline()) | {"transport": Transport.TEST})
        yield Simulator("XenServer", address, lambda: _asked(asked, said))
        asked.close()


def _asked(asked: IO[str], said: IO[str]) -> int:
    asked.write("\n")
    asked.flush()
    return int(said.readline())


SIMULATORS: dict[str, Callable[[int], AbstractContextManager[Simulator]]] = {"vcenter": vcenter, "xenserver": xenserver}


def _serve_pool(vms: int) -> None:
    with XenServer(hosts=HOSTS) as xen:
        for number, ref in enumerate(xen.add_vms(vms)):
            # Marked as the driver marks what it makes: a VM's UUID is the pool's choice.
            vm = xen.db.get("VM", ref)
            ours = {OUR_UUID: f"00000000-0000-4000-8000-{number:012x}", OUR_SELF: vm.text("uuid")}
            xen.db.set("VM", ref, other_config={**vm.mapping("other_config"), **ours})
        xen.faults.delay(DELAY_MS / 1000)
        address = EndpointAddress(
            Transport.TEST, xen.host, xen.port, xen.username, xen.password, ca_certificates=xen.ca_certificates
        )
        print(json.dumps(asdict(address)), flush=True)
        for _line in sys.stdin:
            print(xen.calls.total(), flush=True)
            xen.calls.clear()


if __name__ == "__main__":
    _serve_pool(int(sys.argv[1]))
