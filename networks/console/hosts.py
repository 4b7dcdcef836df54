"""Hosts: which there are, how full they are, and how one is added with the place that it stands in."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Count, F, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import ROOT_ADMIN
from extdhcp_site.configuration.models import values_of
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.lists import Choices, Column, Filter, ListOf
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.events.models import Event
from networks.configuration import CPU_OVERPROVISIONING
from networks.console.contributions import shown_on
from networks.console.networks import LAST_EVENTS, zones
from networks.models import Cluster, Endpoint, Host, HypervisorType, PrimaryStorage, Zone
from networks.models.infrastructure import AllocationState, HostState
from networks.models.vms import VmState

GIB = 1024**3
MIB = 1024**2
# From here on a host counts as full.
FULL = 90


@dataclass(frozen=True)
class Use:
    """How much of something is promised to VMs; `percent` may be over 100, and is 0 of nothing."""

    used: str
    whole: str
    percent: int

    @property
    def is_full(self) -> bool:
        return self.percent >= FULL

    @classmethod
    def of(cls, used: float, whole: float, spell: Callable[[float], str]) -> "Use":
        return cls(spell(used), spell(whole), round(100 * used / whole) if whole else 0)


def memory_use(host: Host) -> Use:
    return Use.of(host.reserved_memory, host.memory, lambda size: f"{size / GIB:.1f} GiB")


def cpu_use(host: Host, factor: float) -> Use:
    return Use.of(host.reserved_mhz, host.cpus * host.mhz * factor, lambda mhz: f"{mhz / 1000:.1f} GHz")


def state_of(host: Host) -> tuple[str, str]:
    """A chip's class, and its word."""
    if host.state == HostState.DOWN:
        return "exhausted", "Down"
    if host.resource_state == AllocationState.DISABLED:
        return "paused", "Disabled"
    return "found", "Up"


def why_down(host: Host) -> str:
    if host.state == HostState.UP:
        return ""
    return host.unavailable or host.endpoint.last_error or "Its endpoint did not answer."


def _of_hosts(rows: QuerySet[Host]) -> QuerySet[Host]:
    running = Count("virtual_machines", filter=Q(virtual_machines__state=VmState.RUNNING))
    joined = rows.select_related("endpoint", "cluster__pod__zone").defer("endpoint__password")
    return joined.annotate(vm_count=Count("virtual_machines"), running_count=running)


def _complete(rows: QuerySet[Host], caller: Caller) -> Iterable[Host]:
    (factor,) = values_of(CPU_OVERPROVISIONING)
    for host in _of_hosts(rows):
        host.memory_use, host.cpu_use = memory_use(host), cpu_use(host, factor)
        host.chip, host.word = state_of(host)
        host.why = why_down(host)
        yield host


def _text(use: Use) -> str:
    return f"{use.used} of {use.whole} ({use.percent} %)"


def _endpoints(caller: Caller) -> Choices:
    return [(str(uuid), name) for uuid, name in Endpoint.objects.values_list("uuid", "name")]


def _by_text(rows: QuerySet, text: str, caller: Caller) -> QuerySet:
    return rows.filter(Q(name__icontains=text) | Q(endpoint__host__icontains=text))


HOSTS: ListOf[Host] = ListOf(
    "hosts",
    "Hosts",
    rows=lambda caller: Host.objects.visible_to(caller).order_by("name", "pk"),
    columns=[
        Column("Name", lambda host: host.name, "networks/host_name.html", sort="name"),
        Column("State", lambda host: f"{host.word} {host.why}".strip(), "networks/host_state.html", sort="state"),
        Column("Cluster", lambda host: f"{host.cluster.pod.zone} / {host.cluster}"),
        Column("Memory promised", lambda host: _text(host.memory_use), "networks/host_memory.html", short=True),
        Column("CPU promised", lambda host: _text(host.cpu_use), "networks/host_cpu.html", short=True),
        Column("VMs", lambda host: host.vm_count, "networks/host_vms.html", short=True),
        Column("Endpoint", lambda host: host.endpoint.name, "networks/host_endpoint.html"),
    ],
    filters=[
        Filter("q", "Name or address", _by_text),
        Filter("state", "State", lambda rows, state, caller: rows.filter(state=state), HostState.choices),
        Filter(
            "resourcestate",
            "For new VMs",
            lambda rows, state, caller: rows.filter(resource_state=state),
            AllocationState.choices,
        ),
        Filter(
            "hypervisor",
            "Hypervisor",
            lambda rows, kind, caller: rows.filter(cluster__hypervisor=kind),
            HypervisorType.choices,
        ),
        Filter("zone", "Zone", lambda rows, uuid, caller: rows.filter(cluster__pod__zone__uuid=uuid), zones),
        Filter(
            "endpoint",
            "Endpoint",
            lambda rows, uuid, caller: rows.filter(endpoint__uuid=uuid),
            _endpoints,
            hidden=True,
        ),
        Filter(
            "full",
            "Memory",
            lambda rows, text, caller: full(rows),
            [("yes", f"{FULL} % and more promised")],
            hidden=True,
        ),
    ],
    complete=_complete,
    template="networks/hosts.html",
    nothing="There is no host yet. An endpoint comes first, then its hosts.",
)


def full(rows: QuerySet[Host]) -> QuerySet[Host]:
    """Those whose memory is promised but for a little."""
    return rows.filter(memory__gt=0, reserved_memory__gte=F("memory") * FULL / 100)


@page("hosts/", name="hosts", roles=ROOT_ADMIN, menu=Menu("Hosts", order=40))
def hosts(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return HOSTS.respond(request, caller)


@page("hosts/<uuid:uuid>/", name="host", roles=ROOT_ADMIN, section="hosts", posts=True)
def host(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    it = get_object_or_404(_of_hosts(Host.objects.visible_to(caller)), uuid=uuid)
    form = CommandForm("updateHost", request, caller, _size_asks(it), {"id": str(it.uuid)})
    if form.submit():
        return redirect("host", it.uuid)
    (factor,) = values_of(CPU_OVERPROVISIONING)
    return render(
        request,
        "networks/host.html",
        {
            "host": it,
            "chip": state_of(it)[0],
            "word": state_of(it)[1],
            "why": why_down(it),
            "memory": memory_use(it),
            "cpu": cpu_use(it, factor),
            "factor": factor,
            "storage": PrimaryStorage.objects.filter(cluster=it.cluster_id),
            "actions": commands.permitted(caller, _actions(it)),
            "form": form,
            "parts": shown_on("host", caller, it),
            "events": [
                (event, event.text_for(caller)) for event in Event.objects.visible_to(caller).about(it)[:LAST_EVENTS]
            ],
        },
    )


def _size_asks(host: Host) -> list[Ask]:
    return [
        Ask("memory", "Memory (MiB)", value=str(host.memory // MIB), required=True, help="What VMs may be promised."),
        Ask("cpunumber", "CPUs", value=str(host.cpus), required=True, help=""),
        Ask("cpuspeed", "MHz of each", value=str(host.mhz), required=True, help=""),
    ]


def _actions(host: Host) -> list[Action]:
    values, is_enabled = {"id": str(host.uuid)}, host.resource_state == AllocationState.ENABLED
    change = (
        Action(
            "updateHost",
            "Disable",
            {**values, "allocationstate": "Disable"},
            sure=f"Disable {host}? No VM comes to it any more. Those on it stay, and run.",
        )
        if is_enabled
        else Action("updateHost", "Enable", {**values, "allocationstate": "Enable"})
    )
    return [
        change,
        Action(
            "deleteHost",
            "Delete",
            values,
            sure=f"Delete host {host} here? Nothing changes on the host itself. One with VMs is not deleted.",
            is_destructive=True,
            then=reverse("hosts"),
        ),
    ]


# Adding ----------------------------------------------------------------------------------------------


@page("hosts/new/", name="new_host", roles=ROOT_ADMIN, section="hosts", posts=True)
def new_host(request: HttpRequest, caller: Caller) -> HttpResponse:
    """A host of the endpoint that the URL names."""
    endpoint = _endpoint(caller, request.GET.get("endpoint", ""))
    if endpoint is None:
        return redirect("endpoints")
    clusters = Cluster.objects.filter(hypervisor=endpoint.kind).select_related("pod__zone")
    is_libvirt = endpoint.kind == HypervisorType.KVM
    asks = [
        Ask(
            "name",
            "Host",
            value=endpoint.name if is_libvirt else "",
            help="What it is called here." if is_libvirt else "Its name exactly as it stands in the pool or vCenter.",
        ),
        Ask(
            "clusterid",
            "Cluster",
            choices=[(str(cluster.uuid), f"{cluster.pod.zone} / {cluster.pod} / {cluster}") for cluster in clusters],
            value=str(clusters[0].uuid) if len(clusters) == 1 else "",
            help="Hosts of one cluster share primary storage, and VMs migrate among them.",
        ),
        Ask("memory", "Memory (MiB)", more=True),
        Ask("cpunumber", "CPUs", more=True),
        Ask("cpuspeed", "MHz of each", more=True),
    ]
    form = CommandForm("addHost", request, caller, asks, {"endpointid": str(endpoint.uuid)})
    if answer := form.submit():
        return redirect("host", answer["host"]["id"])
    there = endpoint.hosts.select_related("cluster")
    is_done = is_libvirt and bool(there)
    return render(
        request,
        "networks/new_host.html",
        {"endpoint": endpoint, "clusters": clusters, "form": form, "there": there, "is_done": is_done},
    )


def _endpoint(caller: Caller, uuid: str) -> Endpoint | None:
    try:
        return Endpoint.objects.visible_to(caller).defer("password").filter(uuid=UUID(uuid)).first()
    except ValueError:
        return None


@dataclass(frozen=True)
class Made:
    """What a form on the page of places makes: by which command, asked what."""

    command: str
    title: str
    submit: str
    asks: tuple[Ask, ...]


PLACES = {
    "zone": Made(
        "createZone",
        "New zone",
        "Make the zone",
        (
            Ask("name", "Zone", help="A data centre, most often."),
            Ask("dns1", "DNS server", help="Told to nobody by us: shown with each network, to compare."),
            Ask("dns2", "Second DNS server", more=True),
            Ask("bridgepattern", "Bridges of KVM hosts", value="cloudbr{vlan}", more=True),
            Ask("domainid", "Only for the domain", more=True),
        ),
    ),
    "pod": Made(
        "createPod",
        "New pod",
        "Make the pod",
        (Ask("name", "Pod", help="A rack, most often."), Ask("zoneid", "In zone")),
    ),
    "cluster": Made(
        "addCluster",
        "New cluster",
        "Make the cluster",
        (
            Ask("clustername", "Cluster", help="Of a pool: the pool's name."),
            Ask("podid", "In pod"),
            Ask("hypervisor", "Hypervisor"),
        ),
    ),
    "storage": Made(
        "createStoragePool",
        "New primary storage",
        "Tell of it",
        (
            Ask("name", "Name on the hosts"),
            Ask("clusterid", "Of cluster"),
            Ask(
                "scope",
                "Seen by",
                choices=[("CLUSTER", "all hosts: the same files"), ("HOST", "each host: its own files")],
                value="CLUSTER",
                help="VMs migrate live only where it is the same for all.",
            ),
        ),
    ),
}


@page("places/", name="places", roles=ROOT_ADMIN, section="hosts")
def places(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Zones, with what stands in each: as far as a person overlooks it, for there are few."""
    found = Zone.objects.prefetch_related("pods__clusters__hosts", "pods__clusters__storage")
    return render(request, "networks/places.html", {"zones": found})


@page("places/new/<slug:kind>/", name="new_place", roles=ROOT_ADMIN, section="hosts", posts=True)
def new_place(request: HttpRequest, caller: Caller, kind: str) -> HttpResponse:
    if kind not in PLACES:
        raise Http404
    made = PLACES[kind]
    form = CommandForm(made.command, request, caller, made.asks)
    if form.submit():
        return redirect("places")
    return render(request, "networks/new_place.html", {"made": made, "form": form})
