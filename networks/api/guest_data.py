"""What a VM's guest is to know: password, SSH keys, user data."""

from extdhcp_site.accounts.models import Account, Caller
from extdhcp_site.api.parameters import CommaList, Map, ObjectField, Params, Text, Values, visible
from extdhcp_site.api.registry import EVERYBODY, AsyncCommand, Command, command
from extdhcp_site.errors import InvalidParameter, NotInThisProduct
from extdhcp_site.jobs.models import AsyncJob
from networks.api.vm_answers import UserDataAnswer, VmAnswer
from networks.models import SshKeyPair, VirtualMachine
from networks.services import guest_data

VM = ("virtualmachine", VmAnswer)
USER_DATA_LIMITS = {"max_length": 2**20, "max_in_url": 4096, "multiline": True}


class VmParams(Params):
    id = ObjectField("The VM's id.", visible(VirtualMachine), required=True)


def as_it_is(vm: VirtualMachine) -> VirtualMachine:
    return VirtualMachine.objects.for_listing().get(pk=vm.pk)


def refuse_stored_user_data(params: Values) -> None:
    if params["userdataid"]:
        raise NotInThisProduct("Registered user data (`userdataid`) is")
    if params["userdatadetails"]:
        raise NotInThisProduct("Values for registered user data (`userdatadetails`) are")


def key_pairs(account: Account, one: str | None, several: list[str] | None) -> list[SshKeyPair]:
    """The owner's key pairs of these names; nobody else's are even looked at."""
    names = list(several or []) + ([one] if one else [])
    if not names:
        return []
    found = {pair.name: pair for pair in SshKeyPair.objects.filter(account=account, name__in=names)}
    for name in names:
        if name not in found:
            raise InvalidParameter(f"A key pair with name '{name}' does not exist for account {account.name}.")
    return [found[name] for name in dict.fromkeys(names)]


class ResetPasswordForVirtualMachineParams(VmParams):
    password = Text("The new password; absent: one is made up, and shown in the job's result.", max_length=128)
    guestuser = Text(
        "Set this user's password at once through the guest agent of the running VM, for instance root "
        "(not in CloudStack). The result's passworddelivery says how it was delivered."
    )


@command(since="1.0", roles=EVERYBODY)
class ResetPasswordForVirtualMachine(AsyncCommand):
    """Give a VM's guest a new password, by its config drive: at its next start or reboot."""

    params = ResetPasswordForVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return guest_data.reset_password(
            params["id"], caller, params["password"] or "", agent_user=params["guestuser"] or ""
        )


class ResetSshKeyForVirtualMachineParams(VmParams):
    keypair = Text("The name of an SSH key pair of the VM's owner.")
    keypairs = CommaList("Names of SSH key pairs of the VM's owner.")


@command(since="1.0", roles=EVERYBODY, name="resetSSHKeyForVirtualMachine")
class ResetSshKeyForVirtualMachine(AsyncCommand):
    """Replace a VM's SSH keys, by its config drive: at its next start or reboot."""

    params = ResetSshKeyForVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        vm = params["id"]
        pairs = key_pairs(vm.account, params["keypair"], params["keypairs"])
        if not pairs:
            raise InvalidParameter("Name a key pair in keypair, or several in keypairs.")
        return guest_data.reset_ssh_keys(vm, caller, pairs)


class ResetUserDataForVirtualMachineParams(VmParams):
    userdata = Text("The new user data in base64; empty: none from now on.", allow_blank=True, **USER_DATA_LIMITS)
    userdataid = Text("Not in this product.")
    userdatadetails = Map("Not in this product.")


@command(since="1.0", roles=EVERYBODY)
class ResetUserDataForVirtualMachine(Command):
    """Replace a VM's user data, by its config drive: at its next start or reboot."""

    params = ResetUserDataForVirtualMachineParams
    answer = VM

    def run(self, caller: Caller, params: Values) -> VirtualMachine:
        refuse_stored_user_data(params)
        if params["userdata"] is None:
            raise InvalidParameter("Give the new user data in userdata; empty, it takes away what there is.")
        guest_data.reset_user_data(params["id"], caller, params["userdata"])
        return as_it_is(params["id"])


class GetVirtualMachineUserDataParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)


@command(since="1.0", roles=EVERYBODY)
class GetVirtualMachineUserData(Command):
    """Show a VM's user data, in base64."""

    params = GetVirtualMachineUserDataParams
    answer = ("virtualmachineuserdata", UserDataAnswer)

    def run(self, caller: Caller, params: Values) -> VirtualMachine:
        return params["virtualmachineid"]
