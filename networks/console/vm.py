"""A VM's page: its state and what that means, what can be done, and what has happened to it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.api import throttling
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.forms import CommandForm
from extdhcp_site.console.pages import page
from extdhcp_site.errors import ApiError
from extdhcp_site.events.models import Event, EventQuerySet, Level, State
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks import checks
from networks.configuration import EXPUNGE_DELAY
from networks.console import user_data, vm_actions
from networks.console.sections import Section, add, registered
from networks.console.vms import CHIPS, Address, addresses_of
from networks.models import DriveReader, Nic, VirtualMachine, VmState

LAST_JOBS = 8
LAST_EVENTS = 12
# Of the latest ends of jobs, those among which one that failed is looked for.
ENDS_LOOKED_AT = 20
MEANINGS = {
    VmState.RUNNING: "It runs.",
    VmState.STARTING: "It is being started: a host is chosen, its ROOT volume and config drive are made ready.",
    VmState.STOPPING: "Its guest is being shut down.",
    VmState.STOPPED: "It is off, and holds nothing on any host but its ROOT volume.",
    VmState.MIGRATING: "It runs, and is moving to another host.",
    VmState.DESTROYED: "It is off, and its ROOT volume is kept for a while.",
    VmState.EXPUNGING: "Its ROOT volume is being deleted.",
    VmState.ERROR: "It could not be started for the first time.",
}


@dataclass(frozen=True)
class Failure:
    """The end of a job that failed, which nobody has put away."""

    event: Event
    text: str
    seen: Action | None


@dataclass(frozen=True)
class Doing:
    """The job that works on the VM now."""

    job: AsyncJob
    text: str


def find(caller: Caller, uuid: str) -> VirtualMachine:
    """Raises Http404."""
    vms = VirtualMachine.objects.visible_to(caller).for_listing()
    vm = vms.select_related("last_host", "migrating_to", "root_volume__storage").filter(uuid=uuid).first()
    if vm is None:
        raise Http404
    for nic in vm.nics.all():
        nic.vm = vm
    return vm


@page("vms/<uuid:uuid>/", name="vm", roles=EVERYBODY, section="vms")
def vm(request: HttpRequest, caller: Caller, uuid: str) -> HttpResponse:
    """With `fragment` its parts alone, for a page that is open."""
    is_fragment = "fragment" in request.GET
    try:
        it = find(caller, uuid)
    except Http404:
        if is_fragment:
            # Expunged, perhaps while somebody looks at it: the whole page says so.
            return HttpResponse(status=404, headers={"HX-Refresh": "true"})
        raise
    doing = _doing(it, caller)
    # The system's own upkeep makes way for what somebody wants.
    is_busy = doing is not None and doing.job.user_id is not None
    forms = {} if is_busy else vm_actions.forms(it, caller)
    failure = _failure(it, caller)
    context = {
        "vm": it,
        "chip": CHIPS[VmState(it.state)],
        "meaning": _meaning(it, caller, failure),
        "doing": doing,
        "is_busy": is_busy,
        "failure": failure,
        "secret": _secret(it, caller),
        "actions": [] if is_busy else vm_actions.buttons(it, caller),
        "links": [vm_actions.link(it, what) for what in forms if what not in vm_actions.ELSEWHERE],
        "is_admin": caller.role != Role.USER,
        "here": request.path,
        "sections": list(_sections(request, it, caller, {"forms": forms, "is_busy": is_busy})),
    }
    return render(request, "networks/vm_body.html" if is_fragment else "networks/vm.html", context)


def _sections(request: HttpRequest, it: VirtualMachine, caller: Caller, shared: dict[str, object]) -> Iterator[str]:
    for section in registered():
        context = section.context(caller, it)
        if context is not None:
            yield render_to_string(
                section.template, {"panel": section, "vm": it, "here": request.path, **shared, **context}, request
            )


def _meaning(it: VirtualMachine, caller: Caller, failure: Failure | None) -> str:
    said = [MEANINGS[VmState(it.state)]]
    if it.state == VmState.RUNNING and it.needs_restart:
        said.append("What has changed has not reached its guest: reboot it, or stop and start it.")
    if it.state == VmState.DESTROYED and it.destroyed_at:
        until = it.destroyed_at + timedelta(seconds=EXPUNGE_DELAY.get())
        said.append(f"Until {until:%Y-%m-%d %H:%M} UTC it can be recovered.")
    if it.state == VmState.MIGRATING and it.migrating_to and caller.is_root:
        said.append(f"It goes to {it.migrating_to}.")
    if it.stray_on and caller.is_root:
        said.append(f"A start on {it.stray_on} failed while that host could not be reached: it may run there.")
    if it.state != VmState.RUNNING and it.error_text and not (failure and it.error_text in failure.text):
        said.append(it.error_text)
    return " ".join(said)


def _doing(it: VirtualMachine, caller: Caller) -> Doing | None:
    job = AsyncJob.objects.filter(busy_with=it.uuid).first()
    return Doing(job, jobs.progress(job, caller) or "It waits for a worker.") if job else None


def _ends(it: VirtualMachine, caller: Caller) -> EventQuerySet:
    return Event.objects.visible_to(caller).about(it).filter(state=State.COMPLETED)


def _failure(it: VirtualMachine, caller: Caller) -> Failure | None:
    """The last job that failed, until somebody puts its event away, or another of its kind succeeds."""
    done: set[str] = set()
    for event in _ends(it, caller)[:ENDS_LOOKED_AT]:
        if event.level != Level.ERROR:
            done.add(event.type)
        elif event.type not in done and not event.archived:
            seen = Action("archiveEvents", "Seen", {"ids": str(event.uuid)})
            return Failure(event, event.text_for(caller), seen if commands.may(caller, seen.command) else None)
    return None


def _secret(it: VirtualMachine, caller: Caller) -> Action | None:
    """For whoever asked for the VM's latest password: it is in the result of their job, for a while."""
    own = AsyncJob.objects.filter(instance_uuid=it.uuid, user=caller.user, secret__isnull=False)
    job = own.order_by("-created_at", "-pk").only("uuid", "status").first()
    if job is None or job.status == Status.PENDING:
        return None
    return Action("queryAsyncJobResult", "Show the password", {"jobid": str(job.uuid)})


# Parts of the page ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NicRow:
    nic: Nic
    address: Address
    actions: list[Action]


def _nics(caller: Caller, it: VirtualMachine) -> dict[str, object]:
    nics = list(it.nics.all())
    addresses = addresses_of(caller, nics)
    rows = [NicRow(nic, addresses[nic.pk], vm_actions.nic_actions(it, nic, caller)) for nic in nics]
    return {"rows": rows, "add": vm_actions.link(it, "nic")}


def _user_data(caller: Caller, it: VirtualMachine) -> dict[str, object] | None:
    """As in the API: to the account that owns the VM."""
    if it.account_id != caller.account.pk:
        return None
    content = it.user_data_bytes
    text = vm_actions.readable_user_data(it, caller)
    remove = Action(
        "resetUserDataForVirtualMachine",
        "Remove",
        {"id": str(it.uuid), "userdata": ""},
        sure=f"Take the user data of {it} away? It cannot be brought back from here.",
        is_destructive=True,
    )
    return {
        "text": text,
        "size": len(content or b""),
        "looks": user_data.look_at(text, it.template.drive_reader == DriveReader.IGNITION) if text else None,
        "change": vm_actions.link(it, "user-data"),
        "remove": commands.permitted(caller, [remove]) if content else [],
    }


def _jobs(caller: Caller, it: VirtualMachine) -> dict[str, object]:
    found = AsyncJob.objects.visible_to(caller).about("VirtualMachine", it.uuid).select_related("user")[:LAST_JOBS]
    return {"rows": [(job, _end_of(job, caller)) for job in found]}


def _end_of(job: AsyncJob, caller: Caller) -> str:
    match job.status:
        case Status.PENDING:
            return jobs.progress(job, caller) or "It waits for a worker."
        case Status.FAILED:
            return f"{job.error_text} {job.error_for_operator}".strip() if caller.is_root else job.error_text
        case _:
            return "Done."


def _events(caller: Caller, it: VirtualMachine) -> dict[str, object]:
    found = Event.objects.visible_to(caller).about(it).filter(archived=False)[:LAST_EVENTS]
    return {"events": [(event, event.text_for(caller)) for event in found]}


add(Section("NICs", "networks/vm_nics.html", _nics, order=20))
add(Section("User data", "networks/vm_user_data.html", _user_data, order=40))
add(Section("Jobs", "networks/vm_jobs.html", _jobs, order=60))
add(Section("Events", "networks/vm_events.html", _events, order=70))


# Pages beside it --------------------------------------------------------------------------------------


@page("vms/<uuid:uuid>/checks/", name="vm-checks", roles=EVERYBODY, section="vms")
def vm_checks(request: HttpRequest, caller: Caller, uuid: str) -> HttpResponse:
    """Asks the VM's host, and so takes its time: on demand."""
    context: dict[str, object] = {"vm": find(caller, uuid), "is_fragment": "HX-Request" in request.headers}
    try:
        throttling.admit(caller.account.pk)
        found = [(check, check.text_for(caller)) for check in checks.of(context["vm"])]
        context |= {"checks": found, "wrong": sum(check.passed is False for check, _ in found)}
    except ApiError as refusal:
        context["refusal"] = commands.words(refusal, caller)
    return render(request, "networks/vm_checks.html", {**context, "asked_at": timezone.now()})


@page("vms/<uuid:uuid>/do/<slug:what>/", name="vm-form", roles=EVERYBODY, section="vms", posts=True)
def vm_form(request: HttpRequest, caller: Caller, uuid: str, what: str) -> HttpResponse:
    """One of `vm_actions.FORMS`; back to the VM where its state has no use for it any more."""
    it = find(caller, uuid)
    wanted = vm_actions.FORMS.get(what)
    if wanted is None or not commands.may(caller, wanted.command):
        raise Http404
    if what not in vm_actions.forms(it, caller):
        messages.error(request, f"{it} is {it.state}: that is not possible now.")
        return redirect("vm", it.uuid)
    values = {wanted.id_name: str(it.uuid)}
    form = CommandForm(wanted.command, request, caller, wanted.asks(it, caller), values)
    looks = user_data.of_form(request, form, is_ignition=it.template.drive_reader == DriveReader.IGNITION)
    if not user_data.must_be_shown(request, looks) and (answer := form.submit()):
        messages.success(request, _begun(wanted.submit, answer))
        return redirect("vm", it.uuid)
    return render(
        request, "networks/vm_form.html", {"vm": it, "wanted": wanted, "form": form, "looks": looks, "values": values}
    )


@page("vms/<uuid:uuid>/password/", name="vm-password", roles=EVERYBODY, section="vms", posts=True)
def vm_password(request: HttpRequest, caller: Caller, uuid: str) -> HttpResponse:
    """The password that the caller's own job has set, on a page that nobody keeps."""
    it = find(caller, uuid)
    action = _secret(it, caller)
    if request.method != "POST" or action is None:
        return redirect("vm", it.uuid)
    try:
        result = commands.run(action.command, caller, action.values.items())[1]["jobresult"]
    except ApiError as refusal:
        messages.error(request, commands.words(refusal, caller))
        return redirect("vm", it.uuid)
    # Of a job that failed it stands beside the reason.
    told = result.get("virtualmachine", result)
    context = {
        "vm": it,
        "action": action,
        "password": told.get("password"),
        "delivery": told.get("passworddelivery", ""),
        "failed": result.get("errortext", ""),
    }
    return render(request, "networks/vm_password.html", context)


def _begun(label: str, answer: dict[str, object]) -> str:
    if "jobid" not in answer:
        return f"{label}: done."
    job = reverse("job", args=[str(answer["jobid"])])
    return format_html('{}: begun. <a href="{}">Follow its job</a>', label, job)
