"""How long an address takes from the DHCP server's ACK until listNics shows it, on the lab's real guests.

Each guest's agent runs before its NIC asks for an address, and the server answers 1 to 20 s after it was first
asked. The guests boot one after the other: without KVM a boot takes most of a core, and what is measured is not
the processor. With the webhook the guests have no agent, so that nothing else can have told their address.
"""

import contextlib
import json
import math
import random
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.lab import Lab, alone, bring_up, is_up, tear_down, why_not
from tests.lab.cloud import Cloud, served
from tests.lab.system import say, wait_for

GUESTS = 20
ANSWER_AFTER = (1.0, 20.0)  # seconds
BOOT = 120
GIVE_UP = 120
LOOK_EVERY = 0.05


@dataclass
class Guest:
    vm_id: str
    mac: str
    seconds: float | None = None  # from its lease until it was shown


@dataclass
class DhcpDesk:
    """Answers each MAC address a random time after it first asked, in a thread while it is open."""

    lab: Lab
    chance: random.Random = field(default_factory=lambda: random.Random(4))  # noqa: S311 - moments, no secret
    due: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        closed = threading.Event()
        before = self.lab.dhcp.discovered()

        def attend() -> None:
            while not closed.wait(LOOK_EVERY):
                for mac in self.lab.dhcp.discovered() - before - self.due.keys():
                    self.due[mac] = time.monotonic() + self.chance.uniform(*ANSWER_AFTER)
                for mac, at in self.due.items():
                    if at <= time.monotonic():
                        self.lab.dhcp.know(mac, "set:answered")
                        self.due[mac] = math.inf

        with self.lab.dhcp.answering_only_the_known():
            thread = threading.Thread(target=attend)
            thread.start()
            try:
                yield
            finally:
                closed.set()
                thread.join()
                self.lab.dhcp.forget(*self.due)


def measure(guests: int = GUESTS) -> dict[str, float]:
    """Seconds; nothing where the lab cannot run."""
    if reason := why_not():
        say(f"no latency is measured: {reason}")
        return {}
    with running() as lab, TemporaryDirectory(prefix="bench-") as directory, served(lab, Path(directory)) as cloud:
        watch = until_shown(cloud, guests)
        with reporting(cloud):
            webhook = until_shown(cloud, guests, agent=False)
    return {**_figures("watch", watch), **_figures("webhook", webhook)}


@contextlib.contextmanager
def running() -> Iterator[Lab]:
    with alone():
        was_up = is_up()
        try:
            yield bring_up()
        finally:
            if not was_up:
                tear_down()


@contextlib.contextmanager
def reporting(cloud: Cloud) -> Iterator[None]:
    """The DHCP server tells of each lease by the webhook."""
    with cloud.lab.dhcp.reporting_to(cloud.leases_url, cloud.lease_token()):
        yield


def until_shown(cloud: Cloud, count: int, *, agent: bool = True) -> list[Guest]:
    """Boot `count` guests, and wait until the address of each is shown. Raises LabError for one that never is."""
    guests: list[Guest] = []
    ended = threading.Event()
    observer = threading.Thread(target=_observe, args=(cloud, guests, ended))
    with DhcpDesk(cloud.lab).open():
        observer.start()
        try:
            for number in range(count):
                guests.append(_boot(cloud, number, agent=agent))
            wait_for("all addresses", lambda: all(guest.seconds is not None for guest in guests), GIVE_UP)
        finally:
            ended.set()
            observer.join()
    jobs = [cloud.api.destroyVirtualMachine(id=guest.vm_id, expunge=True)["jobid"] for guest in guests]
    for job in jobs:
        wait_for("a guest to be gone", lambda job=job: cloud.api.queryAsyncJobResult(jobid=job)["jobstatus"], BOOT)
    return guests


def _boot(cloud: Cloud, number: int, *, agent: bool) -> Guest:
    """Returns when the guest has begun to ask for an address."""
    host = cloud.lab.hosts[number % len(cloud.lab.hosts)]
    vm = cloud.deploy(f"late-{number}", host, cloud.network)
    if not agent:
        cloud.take_agent_away(vm, host)
    guest = Guest(vm["id"], vm["nic"][0]["macaddress"])
    wait_for(f"guest {number} to ask for an address", lambda: guest.mac in cloud.lab.dhcp.discovered(), BOOT)
    return guest


def _observe(cloud: Cloud, guests: list[Guest], ended: threading.Event) -> None:
    """Note when each lease was given, and when listNics shows it."""
    while not ended.wait(LOOK_EVERY):
        given = {lease.mac: lease for lease in reversed(cloud.lab.dhcp.given())}
        for guest in list(guests):
            if guest.seconds is not None or guest.mac not in given:
                continue
            nic = cloud.nic(guest.vm_id)
            if nic.get("ipaddress") == str(given[guest.mac].ip):
                guest.seconds = time.time() - given[guest.mac].at
                say(f"{guest.mac} after {guest.seconds:.2f} s by {nic['addresssource']}")


def _figures(name: str, guests: list[Guest]) -> Mapping[str, float]:
    seconds = sorted(guest.seconds for guest in guests if guest.seconds is not None)
    return {
        f"latency_{name}_p50_s": median(seconds),
        f"latency_{name}_p95_s": seconds[math.ceil(0.95 * len(seconds)) - 1],
    }


if __name__ == "__main__":
    print(json.dumps(measure(*map(int, sys.argv[1:])), indent=2))
