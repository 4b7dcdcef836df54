"""The list of NICs: it opens on those whose address is not found, by reason, the oldest first."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_ipv46_address
from django.db.models import Case, F, Q, QuerySet, Value, When
from django.db.models.lookups import Exact
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console.lists import COUNTED, Choices, Column, Filter, ListOf
from extdhcp_site.console.pages import Menu, page
from ipfetch.console.rows import LABELS, NOT_TRIED, NicRow, rows_of
from ipfetch.counts import GONE, LEFT, NOT_FOUND, OFF, TOOK, WAITED, by_left, by_took, by_waited, choices
from ipfetch.models import IpFetch, Outcome
from networks.hypervisors.base import Source
from networks.models import Network, Nic, VirtualMachine, Zone
from networks.models.vms import NicQuerySet

MISSING, ALL = "missing", "all"
# As an outcome: there was none yet.
NO_OUTCOME = "none"
# More networks or zones than these are not offered: the filter takes a name.
MOST_CHOICES = 200
# What somebody must see to comes first, and what needs but time last.
REASONS = [
    Outcome.HOST_UNREACHABLE,
    Outcome.NOT_RUNNING,
    Outcome.AGENT_SILENT,
    Outcome.AGENT_ABSENT,
    Outcome.AMBIGUOUS,
    Outcome.NONE_YET,
]
_PART_OF_A_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{0,2}){1,5}")

Narrow = Callable[[QuerySet, str, Caller], QuerySet]


def _of_state(nics: QuerySet, state: str, caller: Caller) -> QuerySet:
    if state == ALL:
        return nics.exclude(vm__state__in=GONE)
    if state == OFF:
        return nics.exclude(vm__state__in=GONE).filter(ip_fetch=None)
    missing = nics.filter(ip_fetch__state__in=NOT_FOUND if state == MISSING else [state])
    return missing if state == IpFetch.State.FOUND else missing.order_by(*_by_reason())


def _by_reason() -> tuple[object, ...]:
    """The order in which the groups of the list follow one another, and their NICs: the oldest first."""
    # As lookups: conditions by keyword would make an outer join of the queue, and the database begin with all NICs.
    place = Case(
        When(Exact(F("ip_fetch__state"), Value(IpFetch.State.PAUSED)), then=Value(len(REASONS) + 1)),
        *(
            When(Exact(F("ip_fetch__last_outcome"), Value(reason)), then=Value(place))
            for place, reason in enumerate(REASONS)
        ),
        default=len(REASONS),
    )
    return place, "ip_fetch__entered_at", "pk"


def _of_text(nics: QuerySet, text: str, caller: Caller) -> QuerySet:
    """By MAC address, address or VM name; by parts of the first and the last."""
    typed = text.strip().lower().replace("-", ":") if "-" in text and ":" not in text else text.strip().lower()
    if _PART_OF_A_MAC.fullmatch(typed):
        return nics.filter(mac_address__contains=typed)
    try:
        validate_ipv46_address(typed)
    except ValidationError:
        named = Q(vm__name__icontains=text.strip()) | Q(vm__display_name__icontains=text.strip())
        return nics.filter(named | Q(ip4_address__startswith=typed))
    return nics.filter(Q(ip4_address=typed) | Q(ip6_address=typed))


def _by(path: str, name: str = "") -> Narrow:
    """By the uuid of what stands at `path`, or by its `name`."""

    def narrow(nics: QuerySet, text: str, caller: Caller) -> QuerySet:
        try:
            return nics.filter(**{f"{path}__uuid": UUID(text)})
        except ValueError:
            if not name:
                raise ValueError("that is no id.") from None
            return nics.filter(**{f"{path}__{name}__icontains": text})

    return narrow


def _for_root(narrow: Narrow) -> Narrow:
    def narrow_for_root(nics: QuerySet, text: str, caller: Caller) -> QuerySet:
        if not caller.is_root:
            raise ValueError("hosts are shown to root administrators only.")
        return narrow(nics, text, caller)

    return narrow_for_root


def _offered(rows: Callable[[Caller], QuerySet]) -> Callable[[Caller], Choices | None]:
    def offered(caller: Caller) -> Choices | None:
        found = list(rows(caller).order_by("name").values_list("uuid", "name")[: MOST_CHOICES + 1])
        return [(str(uuid), name) for uuid, name in found] if len(found) <= MOST_CHOICES else None

    return offered


STATES: Choices = [
    (MISSING, "Not found"),
    *((state, label) for state, label in LABELS.items()),
    (ALL, "All"),
]
FILTERS: Sequence[Filter] = [
    Filter("state", "State of the search", _of_state, STATES, default=MISSING),
    Filter(
        "outcome",
        "Reason",
        lambda nics, outcome, caller: nics.filter(ip_fetch__last_outcome="" if outcome == NO_OUTCOME else outcome),
        [*((reason.value, reason.label) for reason in REASONS), (NO_OUTCOME, NOT_TRIED)],
    ),
    Filter("network", "Network", _by("network", "name"), _offered(Network.objects.visible_to)),
    Filter("zone", "Zone", _by("vm__zone", "name"), _offered(Zone.objects.visible_to)),
    Filter(
        "source",
        "Source",
        lambda nics, source, caller: nics.filter(address_source=source),
        [(source.value, source.value) for source in Source],
    ),
    Filter("text", "MAC, address or VM", _of_text, placeholder="06:1f, 192.0.2.7, web-1"),
    Filter(
        "waited",
        "Waits",
        lambda nics, key, caller: by_waited(nics, key, timezone.now()),
        choices(WAITED),
        hidden=True,
    ),
    Filter("left", "Tries left", lambda nics, key, caller: by_left(nics, key), choices(LEFT), hidden=True),
    Filter("took", "Took", by_took, choices(TOOK), hidden=True),
    Filter("vm", "VM", _by("vm"), hidden=True),
    Filter("host", "Host", _for_root(_by("vm__host")), hidden=True),
    Filter("endpoint", "Endpoint", _for_root(_by("vm__host__endpoint")), hidden=True),
]


def _rows(caller: Caller) -> NicQuerySet:
    # By an index that a tenant's own are found by too.
    return Nic.objects.visible_to(caller).order_by("vm_id", "device_id")


NICS: ListOf[NicRow] = ListOf(
    "nics",
    "NICs",
    rows=_rows,
    columns=[
        Column("VM", lambda row: row.nic.vm.name, "ipfetch/nic_vm.html"),
        Column("Network", lambda row: row.nic.network.name, "ipfetch/nic_network.html", short=True),
        Column("MAC address", lambda row: row.nic.mac_address, "ipfetch/nic_mac.html", short=True),
        Column("Address", lambda row: row.said, "ipfetch/nic_address.html"),
        Column("Told by", lambda row: f"{row.told_by}, {row.took}", "ipfetch/nic_source.html"),
    ],
    filters=FILTERS,
    complete=rows_of,
    model_of=lambda row: row.nic,
    template="ipfetch/nics.html",
    nothing="Every NIC that is to have an address has one.",
)
# Where not all rows are missing there is no reason to group them by.
BY_REASON = replace(NICS, group=lambda row: row.reason)


def missing(caller: Caller) -> int:
    """How many NICs have no address that should have one, counted no further than lists count."""
    rows = IpFetch.objects.filter(state__in=NOT_FOUND).order_by()
    if not caller.is_root:
        # Not by `visible_to`: this stands on every page, and need not make a list of the tenant's NICs.
        rows = rows.filter(nic__vm__in=VirtualMachine.objects.visible_to(caller))
    return rows[:COUNTED].count()


@page("nics/", name="nics", roles=EVERYBODY, menu=Menu("NICs", order=20, count=missing))
def nics(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    is_missing = request.GET.get("state", "") in ("", MISSING, *NOT_FOUND)
    return (BY_REASON if is_missing else NICS).respond(request, caller)
