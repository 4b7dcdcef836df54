"""What the overview says of addresses, and of the hosts they are read from."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Case, Count, Prefetch, Q, Value, When

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.panels import Panel
from ipfetch import explanations
from ipfetch.configuration import EARLY_RETRY
from ipfetch.models import Flag, IpFetch, Observation, Outcome
from networks.models import AddressState, Endpoint, Host, Nic
from networks.models.vms import NicQuerySet, VmState

MOST_ROWS = 100
# Not a state of the queue: the NIC has no row in it.
OFF = "off"
LABELS = {
    IpFetch.State.EXHAUSTED: "Given up",
    IpFetch.State.WAITING: "Waiting",
    IpFetch.State.PAUSED: "Paused",
    IpFetch.State.FOUND: "Found",
    OFF: "Not asked",
}


@dataclass(frozen=True)
class Row:
    """A NIC as the panel shows it. `conflicts` and `outside` are addresses that are not simply its own."""

    nic: Nic
    fetch: IpFetch | None
    detail: str
    unseen: str
    next_try_at: datetime | None
    conflicts: list[str]
    outside: list[str]

    @classmethod
    def of(cls, nic: Nic, caller: Caller, *, breakers: bool) -> "Row":
        fetch: IpFetch | None = getattr(nic, "ip_fetch", None)
        detail = explanations.detail_for(caller, fetch) if fetch else ""
        flagged: list[Observation] = nic.flagged
        return cls(
            nic,
            fetch,
            detail,
            _unseen(fetch) if nic.address_state != AddressState.PINNED else "",
            _next_try_at(nic, fetch) if breakers else fetch and fetch.next_attempt_at,
            [row.address for row in flagged if row.flag == Flag.CONFLICT],
            # What the detail tells already is not told twice.
            [row.address for row in flagged if row.flag == Flag.OUTSIDE and row.address not in detail],
        )


def _unseen(fetch: IpFetch | None) -> str:
    """Why an address that is known was not seen when it was looked for last."""
    if fetch is None or fetch.state != IpFetch.State.FOUND or fetch.last_outcome in ("", Outcome.FOUND):
        return ""
    return Outcome(fetch.last_outcome).label


def _next_try_at(nic: Nic, fetch: IpFetch | None) -> datetime | None:
    """An endpoint that does not answer is left alone for a while."""
    retry_at = nic.vm.host.endpoint.retry_at if nic.vm.host else None
    if fetch is None or fetch.next_attempt_at is None or retry_at is None:
        return fetch and fetch.next_attempt_at
    return max(fetch.next_attempt_at, retry_at)


def addresses(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    """One row a NIC, those without an address first and of these the oldest; and how many there are of each state."""
    nics = Nic.objects.visible_to(caller).exclude(vm__state__in=[VmState.DESTROYED, VmState.EXPUNGING])
    counted = nics.order_by().values_list("ip_fetch__state").annotate(Count("pk"))
    counts = {state or OFF: count for state, count in counted}
    chosen = query.get("state", "")
    # In exact mode they are asked all the same.
    breakers = EARLY_RETRY.get()
    return {
        "numbers": [(state, label, counts.get(state, 0)) for state, label in LABELS.items()],
        "total": sum(counts.values()),
        "chosen": chosen if chosen in LABELS else "",
        "rows": [
            Row.of(nic, caller, breakers=breakers) for nic in _not_found_first(_of_state(nics, chosen))[:MOST_ROWS]
        ],
        "most": MOST_ROWS,
    }


def _of_state(nics: NicQuerySet, state: str) -> NicQuerySet:
    if state not in LABELS:
        return nics
    return nics.filter(ip_fetch=None) if state == OFF else nics.filter(ip_fetch__state=state)


def _not_found_first(nics: NicQuerySet) -> NicQuerySet:
    place = Case(
        When(ip_fetch=None, then=Value(2)), When(ip_fetch__state=IpFetch.State.FOUND, then=Value(1)), default=0
    )
    # A VM's sealed columns are large, and nobody reads them here.
    listed = nics.select_related("vm__host__endpoint", "network", "ip_fetch").defer(
        "vm__user_data", "vm__password", "vm__host__endpoint__password"
    )
    flagged = Prefetch("observations", Observation.objects.current().exclude(flag=""), to_attr="flagged")
    return listed.prefetch_related(flagged).order_by(place, "ip_fetch__entered_at", "pk")


def hosts(caller: Caller, query: Mapping[str, str]) -> dict[str, object] | None:
    """Root admins see which hosts answer, those in trouble first."""
    if not caller.is_root:
        return None
    trouble = Case(When(Q(endpoint__last_error=""), then=Value(1)), default=0)
    rows = Host.objects.select_related("endpoint", "cluster__pod__zone").order_by(trouble, "name")
    return {
        "hosts": rows[:MOST_ROWS],
        "silent": Endpoint.objects.exclude(last_error="").count(),
        "total": rows.count(),
    }


PANELS = [
    Panel("Addresses", "ipfetch/addresses_panel.html", addresses, order=10),
    Panel("Hosts", "ipfetch/hosts_panel.html", hosts, order=60),
]
