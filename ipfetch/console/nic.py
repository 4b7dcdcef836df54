"""One NIC's page: its address or why there is none, what happened since its VM was started, and what is wrong now."""

from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import throttling
from extdhcp_site.api.registry import EVERYBODY
from extdhcp_site.console.commands import Action, permitted
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.pages import page
from extdhcp_site.errors import TooManyRequests
from ipfetch.console.rows import NicRow, rows_of
from ipfetch.models import IpFetch
from networks import checks, timeline
from networks.models import AddressState, Nic, VirtualMachine, VmState

State = IpFetch.State
ENDED = (VmState.DESTROYED, VmState.EXPUNGING)


@page("nics/<uuid:uuid>/", name="nic", roles=EVERYBODY, section="nics", posts=True)
def nic(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    row = _row(caller, uuid)
    it = row.nic
    pin = None
    if it.vm.state not in ENDED:
        pin = CommandForm("updateVmNicIp", request, caller, [_ADDRESS], {"nicid": str(it.uuid)})
        if pin.submit():
            messages.success(request, "The address is set by hand.")
            return redirect("nic", it.uuid)
    context = {
        "row": row,
        "actions": permitted(caller, _actions(row)),
        "here": request.path,
        "entries": _entries(row, caller),
        "begun": timeline.begun(it.vm),
        "pin": pin,
        "is_pinned": it.address_state == AddressState.PINNED,
    }
    return render(request, "ipfetch/nic.html", context)


_ADDRESS = Ask("ipaddress", "IPv4 address", "The address that its guest has, as you know it.", required=True)


@page("nics/<uuid:uuid>/checks/", name="nic-checks", roles=EVERYBODY, section="nics")
def nic_checks(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    """What can be wrong, asked of the live system: it takes as long as a host that does not answer is waited for."""
    row = _row(caller, uuid)
    context: dict[str, object] = {"row": row, "at": timezone.now()}
    try:
        throttling.admit(caller.account.pk)
    except TooManyRequests as refusal:
        context["refusal"] = refusal.text
    else:
        context["checks"] = list(_checks(row.nic, caller))
    is_fragment = "HX-Request" in request.headers
    return render(request, "ipfetch/checks.html" if is_fragment else "ipfetch/checks_page.html", context)


@dataclass(frozen=True)
class ShownCheck:
    """`chip` is a chip's class and `word` what stands in it."""

    name: str
    chip: str
    word: str
    text: str


_WORDS = {True: ("found", "All right"), False: ("error", "Wrong"), None: ("off", "Unknown")}


def _checks(nic: Nic, caller: Caller) -> Iterator[ShownCheck]:
    vm = VirtualMachine.objects.for_listing().select_related("host__endpoint").get(pk=nic.vm_id)
    for check in checks.of_nic(vm, nic):
        chip, word = _WORDS[check.passed]
        # All of them are about this NIC.
        name = check.name.replace(f" of {nic.mac_address}", "").replace(f" for {nic.mac_address}", "")
        name = name.replace(f" about {nic.mac_address}", "'s word").replace(f"NIC {nic.mac_address}", "plug")
        yield ShownCheck(name[:1].upper() + name[1:], chip, word, check.text_for(caller))


def _row(caller: Caller, uuid: UUID) -> NicRow:
    for row in rows_of(Nic.objects.visible_to(caller).filter(uuid=uuid), caller):
        return row
    raise Http404


def _entries(row: NicRow, caller: Caller) -> list[timeline.Entry]:
    entries = timeline.of(row.nic, caller)
    if row.state == State.WAITING and row.next_try_at:
        entries.append(timeline.Entry(row.next_try_at, "Next try", f"{row.tries}.", timeline.Kind.NEXT))
    return entries


def _actions(row: NicRow) -> Iterator[Action]:
    values = {"nicid": str(row.nic.uuid)}
    if row.nic.address_state == AddressState.PINNED and row.nic.vm.state not in ENDED:
        yield Action("updateVmNicIp", "Learn it again", values)
    if row.fetch is None:
        return
    if row.state == State.PAUSED:
        yield Action("resumeNicAddress", "Resume", values)
        return
    yield Action("fetchNicAddress", "Try now", values)
    if row.nic.address_state != AddressState.PINNED:
        yield Action("resetNicAddressTries", "Reset tries", values)
    if row.state in (State.WAITING, State.EXHAUSTED):
        yield Action("pauseNicAddress", "Pause", values)
