"""Hypervisors without latency: each guest's address follows from its number, so nothing is looked up.

VM number n is on host n // VMS_A_HOST; its MAC address holds the number, and so do its UUID and its IP address.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from django.apps import AppConfig

from networks.hypervisors.base import EndpointAddress, GuestAddress, GuestEvent, MediaFile, Reading, Source, VmRef

HOSTS = int(os.environ.get("BENCH_HOSTS", "1000"))
VMS_A_HOST = 100
# For benchmarks of networks (RFC 2544): 131,072 addresses.
CIDR = IPv4Network("198.18.0.0/15")
PREFIX = "06:00:00:"
FIRST = int(CIDR.network_address) + 256

# How many guests of a hundred report their address; the others have none yet.
FOUND_PERCENT = int(os.environ.get("BENCH_FOUND_PERCENT", "100"))


def mac_of(number: int) -> str:
    return PREFIX + ":".join(f"{octet:02x}" for octet in number.to_bytes(3, "big"))


def number_of(mac: str) -> int:
    return int(mac.removeprefix(PREFIX).replace(":", ""), 16)


def address_of(number: int) -> IPv4Address:
    return IPv4Address(FIRST + number)


def uuid_of(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def host_name(host: int) -> str:
    return f"host-{host}"


class ZeroLatencyHost:
    def __init__(self, address: EndpointAddress) -> None:
        self._first_vm = int(address.host.removeprefix(host_name(0)[:-1])) * VMS_A_HOST

    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        for vm in vms:
            yield vm, Reading(tuple(_address(mac) for mac in vm.macs if number_of(mac) % 100 < FOUND_PERCENT))

    def running_vms(self, deadline: float) -> set[str]:
        return {uuid_of(number) for number in range(self._first_vm, self._first_vm + VMS_A_HOST)}

    def watch(self, tell: Callable[[str, GuestEvent], None], deadline: float) -> "Silence":
        return Silence()

    def list_media(self, deadline: float, *, storage: str = "", name: str = "") -> list[MediaFile]:
        return []


class Silence:
    """A watch through which nothing is heard."""

    def is_alive(self) -> bool:
        return True

    def close(self) -> None:
        pass


def _address(mac: str) -> GuestAddress:
    return GuestAddress(mac, address_of(number_of(mac)), Source.GUEST_AGENT, CIDR.prefixlen)


class ZeroLatency(AppConfig):
    name = "tests.bench"

    def ready(self) -> None:
        from networks.services import places

        places.driver = lambda kind, address, host="": ZeroLatencyHost(address)
