"""The list of VMs."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from uuid import UUID

from django.db.models import OuterRef, Prefetch, Q, QuerySet, Subquery
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console.lists import Choices, Column, Filter, ListOf
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.jobs.models import AsyncJob
from networks.console.sections import AddressWords, words_for
from networks.models import (
    AddressState,
    Host,
    Network,
    Nic,
    ServiceOffering,
    Template,
    VirtualMachine,
    VmState,
    Zone,
)
from networks.models.vms import VirtualMachineQuerySet

GONE = (VmState.DESTROYED, VmState.EXPUNGING)
CHIPS = {
    VmState.RUNNING: "found",
    VmState.STARTING: "waiting",
    VmState.STOPPING: "waiting",
    VmState.MIGRATING: "waiting",
    VmState.STOPPED: "off",
    VmState.DESTROYED: "off",
    VmState.EXPUNGING: "waiting",
    VmState.ERROR: "error",
}
# More are not offered for a choice: the filter takes an id, as links have it.
MOST_CHOICES = 200
_MAC = re.compile("[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_INSTANCE = re.compile(r"i-(\d{1,18})-(\d{1,18})-vm", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A NIC with what is said of its address; `words` is None where the address alone says enough."""

    nic: Nic
    words: AddressWords | None

    @property
    def text(self) -> str:
        known = self.nic.ip4_address or self.nic.ip6_address or ""
        said = f"{self.words.word}: {self.words.text}" if self.words and self.words.text else ""
        return known or said or (self.words.word if self.words else "")


@dataclass(frozen=True)
class VmRow:
    """A VM as the list shows it. `doing`: how far the job is that works on it; empty while none does."""

    vm: VirtualMachine
    addresses: list[Address]
    doing: str

    @property
    def chip(self) -> str:
        return CHIPS[VmState(self.vm.state)]

    @property
    def since(self) -> datetime:
        return self.vm.state_since


def addresses_of(caller: Caller, nics: Iterable[Nic]) -> dict[int, Address]:
    """By the NICs' primary keys. They come with their `vm`."""
    asked = list(nics)
    said = words_for(caller, asked)
    return {nic.pk: Address(nic, said.get(nic.pk) or _plainly(nic)) for nic in asked}


def _plainly(nic: Nic) -> AddressWords | None:
    """Where nobody says more."""
    if nic.ip4_address or nic.ip6_address:
        is_sure = nic.address_state in (AddressState.CONFIRMED, AddressState.PINNED)
        return None if is_sure else AddressWords("off", AddressState(nic.address_state).label)
    if nic.vm.state != VmState.RUNNING:
        return AddressWords("off", "No address")
    return AddressWords("waiting", "Not known yet")


def at_work(column: str) -> Subquery:
    """That column of the job that works on a VM now."""
    return Subquery(AsyncJob.objects.filter(busy_with=OuterRef("uuid")).values(column))


def _complete(rows: QuerySet[VirtualMachine], caller: Caller) -> Iterator[VmRow]:
    nics = Nic.objects.select_related("network").order_by("-is_default", "device_id")
    listed = (
        rows.select_related("account__domain", "zone", "service_offering", "template", "host")
        .prefetch_related(Prefetch("nics", nics))
        .annotate(
            job_command=at_work("command"), job_says=at_work("progress"), job_adds=at_work("progress_for_operator")
        )
        # Sealed, large, and read by nobody here.
        .defer("user_data", "password", "ssh_keys")
    )
    vms = list(listed)
    addresses = addresses_of(caller, (nic for vm in vms for nic in vm.nics.all()))
    for vm in vms:
        yield VmRow(vm, [addresses[nic.pk] for nic in vm.nics.all()], _doing(vm, caller))


def _doing(vm: VirtualMachine, caller: Caller) -> str:
    if not vm.job_command:
        return ""
    said = f"{vm.job_says} {vm.job_adds}" if caller.is_root else vm.job_says
    return said.strip() or "Waits for a worker"


# Filters ----------------------------------------------------------------------------------------------


def _with_text(vms: VirtualMachineQuerySet, text: str, caller: Caller) -> QuerySet[VirtualMachine]:
    """By name, or wholly by id, address, MAC address, and for root admins name on the host."""
    wanted = Q(name__icontains=text) | Q(display_name__icontains=text)
    low = text.strip().lower()
    if address := _address(low):
        wanted = Q(pk__in=Nic.objects.filter(Q(ip4_address=address) | Q(ip6_address=address)).values("vm"))
    elif _MAC.fullmatch(low):
        wanted = Q(pk__in=Nic.objects.filter(mac_address=low).values("vm"))
    elif (uuid := _uuid(low)) is not None:
        wanted = Q(uuid=uuid)
    elif caller.is_root and (instance := _INSTANCE.fullmatch(low)):
        wanted |= Q(account_id=int(instance[1]), pk=int(instance[2]))
    return vms.filter(wanted)


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _in_state(vms: VirtualMachineQuerySet, state: str, caller: Caller) -> QuerySet[VirtualMachine]:
    match state:
        case "all":
            return vms
        case "Present":
            return vms.exclude(state__in=GONE)
        case _:
            return vms.filter(state=state)


def _by(column: str) -> Callable[[QuerySet, str, Caller], QuerySet]:
    def narrow(vms: VirtualMachineQuerySet, text: str, caller: Caller) -> QuerySet[VirtualMachine]:
        uuid = _uuid(text)
        if uuid is None:
            raise ValueError("give its id.")
        return vms.filter(**{f"{column}__uuid": uuid})

    return narrow


def _on_network(vms: VirtualMachineQuerySet, text: str, caller: Caller) -> QuerySet[VirtualMachine]:
    uuid = _uuid(text)
    if uuid is None:
        raise ValueError("give its id.")
    return vms.filter(pk__in=Nic.objects.filter(network__uuid=uuid).values("vm"))


def choices_of(rows: QuerySet) -> Choices | None:
    """Uuids and names; None if there are too many to offer."""
    found = list(rows.order_by("name").values_list("uuid", "name")[: MOST_CHOICES + 1])
    return [(str(uuid), name) for uuid, name in found] if len(found) <= MOST_CHOICES else None


STATES = [("Present", "all but destroyed"), *VmState.choices, ("all", "all, destroyed ones too")]
_FILTERS = [
    Filter("text", "Search", _with_text, placeholder="Name, address, MAC or id"),
    Filter("state", "State", _in_state, STATES, default="Present"),
    Filter("zone", "Zone", _by("zone"), lambda caller: choices_of(Zone.objects.visible_to(caller))),
    Filter("network", "Network", _on_network, lambda caller: choices_of(Network.objects.visible_to(caller))),
    Filter("template", "Template", _by("template"), lambda caller: choices_of(Template.objects.visible_to(caller))),
    Filter(
        "offering",
        "Offering",
        _by("service_offering"),
        lambda caller: choices_of(ServiceOffering.objects.visible_to(caller)),
        hidden=True,
    ),
]
_ACCOUNT_FILTER = Filter(
    "account", "Account", _by("account"), lambda caller: choices_of(Account.objects.visible_to(caller))
)
_HOST_FILTER = Filter("host", "Host", _by("host"), lambda caller: choices_of(Host.objects.visible_to(caller)))

# The list ---------------------------------------------------------------------------------------------

_NAME: Column[VmRow] = Column("Name", lambda row: row.vm.name, "networks/vm_name.html", sort="name")
_STATE: Column[VmRow] = Column("State", lambda row: row.vm.state, "networks/vm_state.html", sort="state", short=True)
_ADDRESSES: Column[VmRow] = Column(
    "Addresses", lambda row: ", ".join(each.text for each in row.addresses), "networks/vm_addresses.html"
)
_ZONE: Column[VmRow] = Column("Zone", lambda row: row.vm.zone.name, sort="zone__name")
_HOST: Column[VmRow] = Column(
    "Host", lambda row: row.vm.host.name if row.vm.host else "none", "networks/vm_host.html", sort="host__name"
)
_ACCOUNT: Column[VmRow] = Column("Account", lambda row: row.vm.account.name, sort="account__name")
_SIZE: Column[VmRow] = Column("Offering", lambda row: row.vm.service_offering.name, sort="service_offering__name")
_TEMPLATE: Column[VmRow] = Column("Template", lambda row: row.vm.template.name, sort="template__name")
_SINCE: Column[VmRow] = Column(
    "Since", lambda row: row.since.isoformat(), "networks/vm_since.html", sort="state_since", short=True
)


def _list(columns: list[Column[VmRow]], filters: list[Filter]) -> ListOf[VmRow]:
    return ListOf(
        "vms",
        "Virtual machines",
        # The newest first, by the primary key: the order in which a database of any size has them at hand.
        rows=lambda caller: VirtualMachine.objects.visible_to(caller).order_by("-pk"),
        columns=columns,
        filters=filters,
        complete=_complete,
        model_of=lambda row: row.vm,
        template="networks/vms.html",
        nothing="There is no VM yet.",
    )


VMS = {
    Role.ROOT_ADMIN: _list(
        [_NAME, _STATE, _SINCE, _ADDRESSES, _HOST, _ZONE, _ACCOUNT, _SIZE, _TEMPLATE],
        [*_FILTERS, _HOST_FILTER, _ACCOUNT_FILTER],
    ),
    Role.DOMAIN_ADMIN: _list(
        [_NAME, _STATE, _SINCE, _ADDRESSES, _ZONE, _ACCOUNT, _SIZE, _TEMPLATE], [*_FILTERS, _ACCOUNT_FILTER]
    ),
    Role.USER: _list([_NAME, _STATE, _SINCE, _ADDRESSES, _ZONE, _SIZE, _TEMPLATE], _FILTERS),
}


@page("vms/", name="vms", roles=EVERYBODY, menu=Menu("VMs", order=10))
def vms(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return VMS[caller.role].respond(request, caller)
