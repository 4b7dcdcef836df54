"""Endpoints: whether they answer, and how one is added: tried first, then stored, then its hosts."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.registry import ROOT_ADMIN
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.pages import page
from extdhcp_site.events.models import Event
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.api.endpoints import without_secrets
from networks.capabilities import of_kind
from networks.console.contributions import shown_on
from networks.console.networks import LAST_EVENTS
from networks.models import Endpoint, HypervisorType

HEALTH = [("answers", "Answers"), ("trouble", "In trouble"), ("unasked", "Not asked yet")]


def of_health(rows: QuerySet[Endpoint], health: str) -> QuerySet[Endpoint]:
    match health:
        case "trouble":
            return rows.exclude(last_error="")
        case "answers":
            return rows.filter(last_error="", last_ok_at__isnull=False)
        case _:
            return rows.filter(last_error="", last_ok_at=None)


def health_of(endpoint: Endpoint) -> tuple[str, str]:
    """A chip's class, and its word."""
    if endpoint.last_error:
        return "exhausted", "In trouble"
    return ("found", "Answers") if endpoint.last_ok_at else ("off", "Not asked yet")


def _where(endpoint: Endpoint) -> str:
    if not endpoint.host:
        return "this server"
    return f"{endpoint.host}:{endpoint.port}" if endpoint.port else endpoint.host


def _complete(rows: QuerySet[Endpoint], caller: Caller) -> Iterable[Endpoint]:
    for endpoint in without_secrets(rows).annotate(host_count=Count("hosts")):
        endpoint.chip, endpoint.word = health_of(endpoint)
        endpoint.where = _where(endpoint)
        yield endpoint


ENDPOINTS: ListOf[Endpoint] = ListOf(
    "endpoints",
    "Endpoints",
    rows=lambda caller: Endpoint.objects.visible_to(caller).order_by("name", "pk"),
    columns=[
        Column("Name", lambda endpoint: endpoint.name, "networks/endpoint_name.html", sort="name"),
        Column("Kind", lambda endpoint: endpoint.kind, sort="kind"),
        Column("Where", lambda endpoint: endpoint.where, code=True),
        Column("Transport", lambda endpoint: endpoint.transport),
        Column(
            "Health",
            lambda endpoint: f"{endpoint.word} {endpoint.last_error}".strip(),
            "networks/endpoint_health.html",
            sort="last_error",
        ),
        Column("Hosts", lambda endpoint: endpoint.host_count, "networks/endpoint_hosts.html", short=True),
    ],
    filters=[
        Filter(
            "q",
            "Name or address",
            lambda rows, text, caller: rows.filter(Q(name__icontains=text) | Q(host__icontains=text)),
        ),
        Filter("health", "Health", lambda rows, health, caller: of_health(rows, health), HEALTH),
        Filter("kind", "Kind", lambda rows, kind, caller: rows.filter(kind=kind), HypervisorType.choices),
    ],
    complete=_complete,
    template="networks/endpoints.html",
    nothing="There is no endpoint yet: nowhere for a VM to run.",
)


@page("endpoints/", name="endpoints", roles=ROOT_ADMIN, section="hosts")
def endpoints(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return ENDPOINTS.respond(request, caller)


@page("endpoints/<uuid:uuid>/", name="endpoint", roles=ROOT_ADMIN, section="hosts")
def endpoint(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    it = get_object_or_404(without_secrets(Endpoint.objects.visible_to(caller)), uuid=uuid)
    chip, word = health_of(it)
    context = {
        "endpoint": it,
        "chip": chip,
        "word": word,
        "where": _where(it),
        "hosts": it.hosts.select_related("cluster__pod__zone"),
        "capabilities": of_kind(it.kind),
        "job": _last_checks(it),
        "rests": it.retry_at is not None and it.retry_at > timezone.now(),
        "actions": commands.permitted(caller, _actions(it)),
        "parts": shown_on("endpoint", caller, it),
        "events": [
            (event, event.text_for(caller)) for event in Event.objects.visible_to(caller).about(it)[:LAST_EVENTS]
        ],
    }
    context["checks"] = _found(context["job"], caller)
    return render(request, "networks/endpoint.html", context)


def _last_checks(endpoint: Endpoint) -> AsyncJob | None:
    return AsyncJob.objects.filter(instance_uuid=endpoint.uuid, command="checkEndpoint").first()


def _found(job: AsyncJob | None, caller: Caller) -> list[dict[str, str]]:
    result = jobs.result(job, caller) if job and job.status == Status.SUCCEEDED else None
    return (result or {}).get("endpoint", {}).get("check", [])


def _actions(endpoint: Endpoint) -> list[Action]:
    values = {"id": str(endpoint.uuid)}
    return [
        Action("checkEndpoint", "Check now", values),
        Action(
            "deleteEndpoint",
            "Delete",
            values,
            sure=f"Delete endpoint {endpoint} with its stored credentials? One that has hosts is not deleted.",
            is_destructive=True,
            then=reverse("endpoints"),
        ),
    ]


# The wizard ------------------------------------------------------------------------------------------


@page("endpoints/new/", name="new_endpoint", roles=ROOT_ADMIN, section="hosts", posts=True)
def new_endpoint(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Tried with the button that says so, as often as one likes; stored with the other."""
    if "_try" in request.POST:
        return _tried(request, caller)
    form = CommandForm("createEndpoint", request, caller, _asks())
    if answer := form.submit():
        return redirect(f"{reverse('new_host')}?endpoint={answer['endpoint']['id']}")
    return render(request, "networks/new_endpoint.html", {"form": form})


@page("endpoints/<uuid:uuid>/edit/", name="edit_endpoint", roles=ROOT_ADMIN, section="hosts", posts=True)
def edit_endpoint(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    it = get_object_or_404(without_secrets(Endpoint.objects.visible_to(caller)), uuid=uuid)
    if "_try" in request.POST:
        return _tried(request, caller)
    form = CommandForm("updateEndpoint", request, caller, _asks(it), {"id": str(it.uuid)})
    if form.submit():
        return redirect("endpoint", it.uuid)
    return render(request, "networks/edit_endpoint.html", {"endpoint": it, "form": form})


def _tried(request: HttpRequest, caller: Caller) -> HttpResponse:
    """The piece of the page that says what came of it; a whole page where no script puts it in place."""
    asks = [ask for ask in _asks() if ask.name not in ("name", "diskaccess")]
    trial = CommandForm("tryEndpoint", request, caller, asks)
    answer = trial.submit()
    context = {
        "trial": answer["endpointtrial"] if answer else None,
        "error": trial.error,
        "wrong": [field for field in trial.fields.values() if field.error],
        "certificate": _certificate(answer["endpointtrial"].get("certificate")) if answer else None,
        "fingerprint": trial.fields["fingerprint"].value,
        "can_be_pinned": trial.fields["hypervisor"].value in (HypervisorType.XENSERVER, HypervisorType.VMWARE),
    }
    template = (
        "networks/endpoint_trial.html" if "HX-Request" in request.headers else "networks/endpoint_trial_page.html"
    )
    return render(request, template, context)


def _certificate(shown: dict[str, object] | None) -> dict[str, object] | None:
    if not shown:
        return None
    since, until = (datetime.strptime(str(shown[name]), "%Y-%m-%dT%H:%M:%S%z") for name in ("notbefore", "notafter"))
    return {**shown, "since": since, "until": until, "is_valid": since <= timezone.now() <= until}


def _asks(now: Endpoint | None = None) -> list[Ask]:
    """With the values of one that is to be changed; its password is not among them."""
    of, is_stored = now or Endpoint(), now is not None
    return [
        Ask("name", "Name", value=of.name, help="What it is called here.", placeholder="kvm-1"),
        Ask("hypervisor", "Kind", value=of.kind, help="", required=True),
        Ask(
            "transport",
            "Transport",
            value=str(of.transport),
            required=True,
            choices=[
                ("tls", "tls: certificates on both sides (XenServer and VMware: always)"),
                ("ssh", "ssh: KVM, by this server's key"),
                ("tcp", "tcp: KVM, neither encrypted nor verified; closed networks and labs"),
                ("local", "local: KVM on this server"),
                ("test", "test: simulators only"),
            ],
            help="",
        ),
        Ask("host", "Host", value=of.host, required=False, empties=is_stored, placeholder="kvm-1.example.org",
            help="Name or address. Never a URI; empty for local."),
        Ask("port", "Port", value=str(of.port or ""), empties=is_stored, help="Empty: the transport's own."),
        Ask("username", "User", value=of.username, empties=is_stored, help="Who logs in there."),
        Ask("password", "Password",
            help="Stored sealed, never shown. Empty keeps the one that is stored, which a new address, user or trust "
            "clears." if is_stored else "Stored sealed, never shown."),
        Ask("fingerprint", "Certificate's fingerprint", value=of.fingerprint, empties=is_stored, placeholder="SHA-256",
            help="XenServer and VMware: trust this one certificate. Trying the connection shows it; compare it with "
            "what the host's own console says."),
        Ask("cacertificates", "CA certificates", value=of.ca_certificates, more=True, empties=is_stored,
            help="XenServer and VMware: who signs the certificate, in PEM. Empty: whom this server trusts."),
        Ask("diskaccess", "Read guests' disks", value=of.disk_access or "never", more=True,
            choices=[("never", "never"), ("local", "from this server"), ("ssh", "on the host, by ssh")],
            help="Looks for leases of guests without an agent; slow."),
    ]  # fmt: skip
