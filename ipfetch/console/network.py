"""What a network's page says of its addresses: how many are known, how full the range is, and who tells of leases."""

from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Address

from django.db.models import Count

from extdhcp_site.accounts.models import Caller
from ipfetch.counts import GONE
from ipfetch.models import IpFetch, LeaseServer, LeaseToken
from ipfetch.panels import LABELS
from networks.console.contributions import contribute
from networks.models import Network, Nic


@dataclass(frozen=True)
class Teller:
    """Somebody who tells of the network's leases; `problem` is empty while nothing is wrong."""

    name: str
    how: str
    heard_at: datetime | None
    problem: str


def addresses(caller: Caller, network: Network) -> dict[str, object]:
    rows = IpFetch.objects.visible_to(caller).filter(nic__network=network).order_by()
    counts = dict(rows.values_list("state").annotate(Count("pk")))
    states = [(state, label, counts.get(state, 0)) for state, label in LABELS.items() if state in IpFetch.State.values]
    # How full it is tells of others' VMs, and who tells of leases is the operators' business.
    whole = _size(network) if caller.is_root else 0
    return {
        "network": network,
        "states": states,
        "known": _known(network) if whole else 0,
        "whole": whole,
        "tellers": _tellers(network) if caller.is_root else [],
        "is_root": caller.is_root,
    }


def _size(network: Network) -> int:
    if not (network.start_ip and network.end_ip):
        return 0
    return int(IPv4Address(network.end_ip)) - int(IPv4Address(network.start_ip)) + 1


def _known(network: Network) -> int:
    return Nic.objects.filter(network=network, ip4_address__isnull=False).exclude(vm__state__in=GONE).count()


def _tellers(network: Network) -> list[Teller]:
    servers = LeaseServer.objects.filter(networks=network, enabled=True)
    tokens = LeaseToken.objects.filter(network=network).usable()
    return [
        *(
            Teller(server.name, f"its lease file {server.path} is read", server.last_read_at, server.last_error)
            for server in servers
        ),
        *(Teller(token.name, "it tells each lease by itself", token.last_used_at, "") for token in tokens),
    ]


contribute("network", "ipfetch/network_addresses.html", addresses)
