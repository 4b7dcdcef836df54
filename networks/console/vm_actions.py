"""What can be done with a VM in the state that it is in: buttons, and forms for what needs to be told more."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db.models import QuerySet
from django.urls import reverse

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.console import commands
from extdhcp_site.console.commands import Action
from extdhcp_site.console.forms import Ask, Choices
from networks.configuration import EXPUNGE_DELAY, SHUTDOWN_WAIT
from networks.models import (
    ConfigDriveUse,
    Host,
    Network,
    Nic,
    ServiceOffering,
    SshKeyPair,
    VirtualMachine,
    VmState,
)
from networks.models.infrastructure import HostQuerySet, HostState
from networks.models.networks import AclType

RUNNING, STOPPED = frozenset({VmState.RUNNING}), frozenset({VmState.STOPPED})
AT_REST = RUNNING | STOPPED
TO_DESTROY = AT_REST | {VmState.ERROR}
TO_EXPUNGE = frozenset({VmState.DESTROYED, VmState.EXPUNGING})
# How some commands call a VM.
_LONG_NAME = "virtualmachineid"


# Buttons ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Button:
    """`sure` tells what becomes of the VM, in the caller's eyes; `id_name` is how the command calls it."""

    command: str
    label: str
    states: frozenset[VmState]
    values: tuple[tuple[str, str], ...] = ()
    sure: Callable[[VirtualMachine, Caller], str] | None = None
    is_destructive: bool = False
    id_name: str = "id"

    def action(self, vm: VirtualMachine, caller: Caller) -> Action:
        return Action(
            self.command,
            self.label,
            {self.id_name: str(vm.uuid), **dict(self.values)},
            sure=self.sure(vm, caller) if self.sure else "",
            is_destructive=self.is_destructive,
        )


def _where(vm: VirtualMachine, caller: Caller) -> str:
    return str(vm.host) if caller.is_root and vm.host else "its host"


def _drive_goes(vm: VirtualMachine, caller: Caller) -> str:
    if vm.drive_use == ConfigDriveUse.NEVER:
        return ""
    return f" Its config drive will be erased from {_where(vm, caller)}, and is built anew when it starts."


def _stop(vm: VirtualMachine, caller: Caller) -> str:
    wait = SHUTDOWN_WAIT.get()
    return (
        f"Stop {vm}? Its guest is asked to shut down, and after {wait} s its power is cut.{_drive_goes(vm, caller)} "
        "Its addresses are last known ones from then on."
    )


def _cut(vm: VirtualMachine, caller: Caller) -> str:
    return f"Cut the power of {vm}? What its guest has not written yet is lost.{_drive_goes(vm, caller)}"


def _reboot(vm: VirtualMachine, caller: Caller) -> str:
    if vm.needs_restart:
        return (
            f"Reboot {vm}? Its guest has yet to learn of a change, so that it is stopped, and started with a new drive."
        )
    return f"Reboot {vm}? Its guest is asked to."


def _restart(vm: VirtualMachine, caller: Caller) -> str:
    return (
        f"Stop {vm} without asking its guest, and start it with a new config drive? What the guest has not written is "
        "lost."
    )


def _restore(vm: VirtualMachine, caller: Caller) -> str:
    return (
        f"Make the ROOT volume of {vm} of its template {vm.template} again? All that its guest has written is lost"
        f"{', and it is restarted' if vm.state == VmState.RUNNING else ''}."
    )


def _destroy(vm: VirtualMachine, caller: Caller) -> str:
    hours = EXPUNGE_DELAY.get() / 3600
    drive = f" Its config drive will be erased from {_where(vm, caller)}." if vm.host_id else ""
    return (
        f"Destroy {vm}? It is stopped, and its definition removed.{drive} Its ROOT volume is kept for {hours:.3g} h: "
        "until then it can be recovered."
    )


def _destroy_for_good(vm: VirtualMachine, caller: Caller) -> str:
    drive = f" Its config drive will be erased from {_where(vm, caller)}." if vm.host_id else ""
    return f"Destroy {vm}, and delete its ROOT volume at once? All its data is lost.{drive} This cannot be undone."


def _expunge(vm: VirtualMachine, caller: Caller) -> str:
    return f"Delete the ROOT volume of {vm} now? All its data is lost. This cannot be undone."


_FORCED = (("forced", "true"),)
_FOR_GOOD = (("expunge", "true"),)
_BUTTONS = (
    _Button("startVirtualMachine", "Start", STOPPED),
    _Button("stopVirtualMachine", "Stop", RUNNING, sure=_stop),
    _Button("rebootVirtualMachine", "Reboot", RUNNING, sure=_reboot),
    _Button("rebootVirtualMachine", "Stop and start", RUNNING, _FORCED, _restart),
    _Button("stopVirtualMachine", "Cut power", RUNNING, _FORCED, _cut, is_destructive=True),
    _Button("restoreVirtualMachine", "Reinstall", AT_REST, (), _restore, is_destructive=True, id_name=_LONG_NAME),
    _Button("recoverVirtualMachine", "Recover", frozenset({VmState.DESTROYED})),
    _Button("destroyVirtualMachine", "Destroy", TO_DESTROY, (), _destroy, is_destructive=True),
    _Button("destroyVirtualMachine", "Destroy for good", TO_DESTROY, _FOR_GOOD, _destroy_for_good, is_destructive=True),
    _Button("expungeVirtualMachine", "Expunge", TO_EXPUNGE, (), _expunge, is_destructive=True),
)


def buttons(vm: VirtualMachine, caller: Caller) -> list[Action]:
    """Those of the VM's state and the caller's role."""
    offered = [button for button in _BUTTONS if vm.state in button.states]
    if caller.role == Role.USER:
        # The command is theirs too, but not this parameter.
        offered = [button for button in offered if button.values != _FOR_GOOD]
    actions = [button.action(vm, caller) for button in offered]
    return commands.permitted(caller, actions)


def nic_actions(vm: VirtualMachine, nic: Nic, caller: Caller) -> list[Action]:
    """The default NIC stays: its address is the VM's."""
    if nic.is_default or vm.state not in AT_REST:
        return []
    values = {"virtualmachineid": str(vm.uuid), "nicid": str(nic.uuid)}
    become = Action("updateDefaultNicForVirtualMachine", "Make default", values)
    remove = Action(
        "removeNicFromVirtualMachine",
        "Remove",
        values,
        sure=f"Remove the NIC {nic.mac_address} on network {nic.network} from {vm}? Its guest loses it at once.",
        is_destructive=True,
    )
    return commands.permitted(caller, [*([become] if nic.network.is_default else []), remove])


# Forms ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VmForm:
    """A form on a page of its own. `id_name` is how its command calls the VM.

    `applies`: what more than its state a VM must be for it.
    """

    label: str
    command: str
    states: frozenset[VmState]
    asks: Callable[[VirtualMachine, Caller], Sequence[Ask]]
    note: str
    submit: str
    id_name: str = "id"
    applies: Callable[[VirtualMachine], bool] = lambda vm: True


def key_choices(account_id: int) -> Choices:
    return [(name, name) for name in SshKeyPair.objects.filter(account=account_id).values_list("name", flat=True)]


def usable_networks(vm: VirtualMachine, caller: Caller) -> Choices:
    """Those of the VM's zone, for its account, on which it has no NIC yet."""
    account = vm.account
    networks = Network.objects.visible_to(caller).filter(zone=vm.zone_id).exclude(nics__vm=vm).select_related("domain")
    return [
        (str(network.uuid), f"{network} ({network.cidr or 'any subnet'})")
        for network in networks
        if (
            network.account_id == account.pk
            if network.acl_type == AclType.ACCOUNT
            else account.domain.path.startswith(network.domain.path)
        )
    ]


def _migrate(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    assert vm.host is not None
    others = Host.objects.filter(cluster=vm.host.cluster_id, state=HostState.UP).exclude(pk=vm.host.pk)
    help_text = "Empty: the one with the most free memory."
    return [Ask("hostid", "To host", help_text, choices=host_choices(others), required=False)]


def host_choices(hosts: HostQuerySet) -> Choices:
    """Those with the most room first."""
    return [(str(host.uuid), f"{host}: {_free(host)} GiB of memory free") for host in hosts.most_free_first()]


def _free(host: Host) -> str:
    return f"{max(host.memory - host.reserved_memory, 0) / 1024**3:.1f}"


def _start_on(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    hosts = Host.objects.filter(cluster__pod__zone=vm.zone_id, cluster__hypervisor=vm.hypervisor, state=HostState.UP)
    help_text = "It starts there or not at all."
    return [Ask("hostid", "Host", help_text, choices=host_choices(hosts), required=True)]


def _password(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    asks = [Ask("password", "New password", MADE_UP_IF_EMPTY)]
    if vm.state == VmState.RUNNING:
        by_agent = "Such as root: the guest agent sets it at once. Empty: the guest sets it at its next boot."
        asks.append(Ask("guestuser", "Set it now for this user", by_agent, more=True))
    return asks


MADE_UP_IF_EMPTY = (
    "Empty: one is made up, and shown once the job has ended. Printable ASCII characters on one line, no blank at "
    "either end."
)


def _keys(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    chosen = ",".join(key["name"] for key in vm.ssh_keys)
    return [
        Ask(
            "keypairs",
            "SSH keys",
            f"Key pairs of account {vm.account.name}. They replace those that the VM has.",
            kind="checks",
            choices=key_choices(vm.account_id),
            value=chosen,
        )
    ]


def _user_data(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    return [
        Ask(
            "userdata",
            "User data",
            "As text; it is sent as base64.",
            kind="textarea",
            value=readable_user_data(vm, caller) or "",
            required=True,
            in_base64=True,
        )
    ]


def readable_user_data(vm: VirtualMachine, caller: Caller) -> str | None:
    """An own VM's user data as text; None where it is none, is not the caller's to read, or is no text."""
    content = vm.user_data_bytes if vm.account_id == caller.account.pk else None
    try:
        return content.decode() if content else None
    except UnicodeDecodeError:
        return None


def _nic(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    return [Ask("networkid", "Network", "Its DHCP server gives the address.", choices=usable_networks(vm, caller))]


def _names(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    asks = [
        Ask("displayname", "Name for people", "", value=vm.display_name),
        Ask("group", "Group", "A word to sort VMs by; nothing depends on it.", value=vm.group_name),
        Ask(
            "configdrive",
            "Config drive",
            "",
            choices=ConfigDriveUse.choices,
            value=vm.drive_use,
            required=True,
        ),
    ]
    if vm.state == VmState.STOPPED:
        name = "Its guest takes it when it starts."
        asks.insert(0, Ask("name", "Host name", name, value=vm.name, required=True))
    return asks


def _size(vm: VirtualMachine, caller: Caller) -> list[Ask]:
    others = ServiceOffering.objects.visible_to(caller).exclude(pk=vm.service_offering_id)
    return [Ask("serviceofferingid", "Offering", "", choices=offering_choices(others))]


def offering_choices(offerings: QuerySet[ServiceOffering]) -> Choices:
    return [
        (str(each.uuid), f"{each.name}: {each.cpus} CPU, {each.memory_mib} MiB")
        for each in offerings.order_by("memory_mib", "name")
    ]


_AT_NEXT_BOOT = "The guest learns it from its config drive: at its next start or reboot."
FORMS = {
    "start": VmForm(
        "Start on…", "startVirtualMachine", STOPPED, _start_on, "", "Start"
    ),
    "migrate": VmForm(
        "Migrate…",
        "migrateVirtualMachine",
        RUNNING,
        _migrate,
        "It goes on running while it moves to another host of its cluster. Its config drive is copied there, and then "
        "erased here.",
        "Migrate",
        id_name=_LONG_NAME,
    ),
    "password": VmForm(
        "Reset password…",
        "resetPasswordForVirtualMachine",
        AT_REST,
        _password,
        _AT_NEXT_BOOT,
        "Reset the password",
        applies=lambda vm: vm.template.password_enabled,
    ),
    "keys": VmForm(
        "Reset SSH keys…",
        "resetSSHKeyForVirtualMachine",
        AT_REST,
        _keys,
        _AT_NEXT_BOOT,
        "Replace the keys",
    ),
    "user-data": VmForm(
        "Reset user data…",
        "resetUserDataForVirtualMachine",
        AT_REST,
        _user_data,
        _AT_NEXT_BOOT,
        "Replace the user data",
    ),
    "nic": VmForm(
        "Add a NIC…",
        "addNicToVirtualMachine",
        AT_REST,
        _nic,
        "A running guest gets it at once, if its hypervisor can do that.",
        "Add it",
        id_name=_LONG_NAME,
    ),
    "names": VmForm("Change…", "updateVirtualMachine", AT_REST, _names, "", "Save"),
    "size": VmForm("Change offering…", "changeServiceForVirtualMachine", STOPPED, _size, "", "Change"),
}  # fmt: skip
# What stands beside what it changes, and not among the VM's buttons.
ELSEWHERE = frozenset({"nic", "user-data"})
# Of the commands that users may call, those whose form asks for what only root admins see.
FOR_ROOT = frozenset({"start"})


@dataclass(frozen=True)
class FormLink:
    label: str
    url: str


def forms(vm: VirtualMachine, caller: Caller) -> dict[str, VmForm]:
    return {
        what: form
        for what, form in FORMS.items()
        if vm.state in form.states
        and form.applies(vm)
        and commands.may(caller, form.command)
        and (caller.is_root or what not in FOR_ROOT)
    }


def link(vm: VirtualMachine, what: str) -> FormLink:
    return FormLink(FORMS[what].label, reverse("vm-form", args=[vm.uuid, what]))
