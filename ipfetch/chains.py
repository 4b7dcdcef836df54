"""Whom a batch asks for a NIC's address, and in which order."""

from dataclasses import dataclass
from typing import Self

from ipfetch.models import AddressChain
from ipfetch.models.observations import CHAINED
from networks.hypervisors.base import Source

Kind = tuple[int, str, bool]  # zone, hypervisor, whether the guest is Windows

DEFAULT = tuple(CHAINED)


@dataclass(frozen=True)
class Chains:
    """The zones' own orders; a kind of guest that has none is asked for in the default one."""

    by_kind: dict[Kind, tuple[Source, ...]]

    @classmethod
    def now(cls) -> Self:
        return cls(
            {
                (chain.zone_id, chain.hypervisor, chain.os_family == "Windows"): chain.ordered
                for chain in AddressChain.objects.order_by()
            }
        )

    def of(self, zone_id: int, hypervisor: str, windows: bool) -> tuple[Source, ...]:
        return self.by_kind.get((zone_id, hypervisor, windows), DEFAULT)


def split(chain: tuple[Source, ...]) -> tuple[tuple[Source, ...], bool, tuple[Source, ...]]:
    """What is asked before the guest, whether the guest is asked, and what after it."""
    if Source.GUEST_AGENT not in chain:
        return chain, False, ()
    place = chain.index(Source.GUEST_AGENT)
    return chain[:place], True, chain[place + 1 :]
