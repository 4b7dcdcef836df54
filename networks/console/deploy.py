"""Deploying a VM: the fields that matter, the others behind "More", and what its guest would get."""

from uuid import UUID

from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string

from extdhcp_site.accounts.models import Account, Caller
from extdhcp_site.api import parameters, throttling
from extdhcp_site.api.parameters import Wire
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console import commands
from extdhcp_site.console.forms import Ask, Choices, CommandForm
from extdhcp_site.console.pages import page
from extdhcp_site.errors import ApiError
from networks.api.vms import DeployVirtualMachineParams, deployment
from networks.console import user_data
from networks.console.sections import registered_previews
from networks.console.vm_actions import MADE_UP_IF_EMPTY, host_choices, key_choices, offering_choices
from networks.models import (
    ConfigDriveUse,
    DriveReader,
    Host,
    Network,
    ServiceOffering,
    Template,
    Zone,
)
from networks.models.infrastructure import AllocationState, HostState
from networks.services import vms as services
from networks.services.nics import MOST_NICS

COMMAND = "deployVirtualMachine"


@page("vms/deploy/", name="deploy", roles=EVERYBODY, section="vms", posts=True)
def deploy(request: HttpRequest, caller: Caller) -> HttpResponse:
    """First the zone, since all else depends on it; where there is one only, it is chosen."""
    zones = list(Zone.objects.visible_to(caller).filter(allocation_state=AllocationState.ENABLED))
    zone = _chosen(zones, request.GET.get("zone", ""))
    if zone is None:
        return render(request, "networks/deploy_zone.html", {"zones": zones})
    form = _form(request, caller, zone)
    looks = user_data.of_form(request, form, is_ignition=_is_ignition(form, caller))
    if not user_data.must_be_shown(request, looks) and (answer := form.submit()):
        return redirect("vm", answer["id"])
    context = {"form": form, "zone": zone, "zones": zones, "looks": looks, "values": {"zoneid": str(zone.uuid)}}
    return render(request, "networks/deploy.html", context)


@page("vms/deploy/preview/", name="deploy-preview", roles=EVERYBODY, section="vms", posts=True)
def preview(request: HttpRequest, caller: Caller) -> HttpResponse:
    """What the form as it is filled in would make; nothing is kept."""
    if request.method != "POST":
        return redirect("deploy")
    zone = _chosen(list(Zone.objects.visible_to(caller)), request.POST.get("zoneid", ""))
    context: dict[str, object] = {"parts": [], "looks": None, "refusal": ""}
    if zone is None:
        context["refusal"] = "Choose a zone first."
        return _previewed(request, context)
    form = _form(request, caller, zone)
    try:
        throttling.admit(caller.account.pk)
        context["looks"] = user_data.of_form(request, form, is_ignition=_is_ignition(form, caller))
        wire = Wire.of((), form.sends().items())
        params = parameters.validate(DeployVirtualMachineParams, COMMAND, wire, caller)
        account: Account = params["account"] or caller.account
        vm, nics = services.preview(deployment(params, account), account, caller)
        context["parts"] = [
            render_to_string(template, function(vm, nics), request) for template, function in registered_previews()
        ]
    except ApiError as refusal:
        context["refusal"] = commands.words(refusal, caller)
    return _previewed(request, context)


def _previewed(request: HttpRequest, context: dict[str, object]) -> HttpResponse:
    is_fragment = "HX-Request" in request.headers
    return render(request, "networks/deploy_preview.html", {**context, "is_fragment": is_fragment})


def _chosen(zones: list[Zone], uuid: str) -> Zone | None:
    if len(zones) == 1:
        return zones[0]
    return next((zone for zone in zones if str(zone.uuid) == uuid), None)


def _is_ignition(form: CommandForm, caller: Caller) -> bool:
    try:
        template = Template.objects.visible_to(caller).filter(uuid=UUID(form.fields["templateid"].value)).first()
    except ValueError:
        return False
    return template is not None and template.drive_reader == DriveReader.IGNITION


def _form(request: HttpRequest, caller: Caller, zone: Zone) -> CommandForm:
    return CommandForm(COMMAND, request, caller, _asks(caller, zone), {"zoneid": str(zone.uuid)})


def _asks(caller: Caller, zone: Zone) -> list[Ask]:
    networks = _networks(caller, zone)
    asks = [
        Ask("name", "Host name", "Its name, and its guest's. Empty: one is made up.", placeholder="web-1"),
        Ask("templateid", "Template", "", choices=_templates(caller, zone)),
        Ask("serviceofferingid", "Offering", "", choices=offering_choices(ServiceOffering.objects.visible_to(caller))),
        Ask(
            "networkids",
            "Networks",
            f"At most {MOST_NICS}. The first that may be a VM's default network is its default one.",
            choices=networks,
            value=networks[0][0] if len(networks) == 1 else "",
            required=True,
        ),
        Ask("keypairs", "SSH keys", "", kind="checks", choices=key_choices(caller.account.pk)),
        Ask(
            "userdata",
            "User data",
            "A cloud-config, a script, or whatever its guest reads, as text; it is sent as base64.",
            kind="textarea",
            more=True,
            placeholder="#cloud-config\npackages: [nginx]\n",
            in_base64=True,
        ),
        Ask(
            "password",
            "Password",
            f"Only for password enabled templates. {MADE_UP_IF_EMPTY}",
            more=True,
        ),
        Ask("displayname", "Name for people", "", more=True),
        Ask("group", "Group", "A word to sort VMs by; nothing depends on it.", more=True),
        Ask(
            "configdrive",
            "Config drive",
            "It brings user data, keys and password to the guest.",
            choices=ConfigDriveUse.choices,
            value=ConfigDriveUse.ALWAYS,
            required=True,
            more=True,
        ),
        Ask("startvm", "Start it", "Otherwise it is left Stopped.", value="true", more=True),
    ]
    if caller.is_root:
        hosts = Host.objects.filter(cluster__pod__zone=zone, state=HostState.UP)
        asks.append(
            Ask("hostid", "Host", "Empty: the one with the most free memory.", choices=host_choices(hosts), more=True)
        )
    return asks


def _templates(caller: Caller, zone: Zone) -> Choices:
    templates = Template.objects.visible_to(caller).filter(Q(zone=None) | Q(zone=zone))
    return [(str(each.uuid), f"{each.name} ({_kind(each)})") for each in templates]


def _kind(template: Template) -> str:
    words = [template.hypervisor, template.guest_os_type or template.os_family]
    return ", ".join([*words, "sets passwords"] if template.password_enabled else words)


def _networks(caller: Caller, zone: Zone) -> Choices:
    """Those that may be a default network first: a VM needs one."""
    networks = Network.objects.visible_to(caller).filter(zone=zone).order_by("-is_default", "name")
    return [
        (
            str(each.uuid),
            f"{each.name} ({each.cidr or 'any subnet'}{'' if each.is_default else ', never the default one'})",
        )
        for each in networks
    ]
