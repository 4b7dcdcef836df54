"""Virtual machines, their NICs and ROOT volumes."""

import json
import re
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from rest_framework.serializers import ValidationError

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, ownership
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    CommaList,
    Map,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Uuid,
    Values,
    visible,
)
from extdhcp_site.api.registry import (
    ADMINS,
    EVERYBODY,
    ROOT_ADMIN,
    AsyncCommand,
    Command,
    ListCommand,
    Success,
    command,
)
from extdhcp_site.errors import InvalidParameter, NotInThisProduct, PermissionDenied
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks import os_types
from networks.api.guest_data import USER_DATA_LIMITS, VM, VmParams, as_it_is, key_pairs, refuse_stored_user_data
from networks.api.infrastructure import by_id, matching
from networks.api.tag_answers import tagged, tags_filter
from networks.api.vm_answers import VmAnswer
from networks.models import (
    Cluster,
    ConfigDriveUse,
    Host,
    HypervisorType,
    Network,
    Pod,
    PrimaryStorage,
    ServiceOffering,
    Template,
    VirtualMachine,
    VmState,
    Zone,
)
from networks.services import guest_data
from networks.services import vms as services
from networks.services.nics import MOST_NICS

_CONFIG_DRIVE = (
    "Its config drive (not in CloudStack): Always, while it runs; FirstBoot, until the guest has booted with what is "
    "new on it; Never."
)


_NO_DETAILS = "Not in this product: a VM has what its service offering and template say."


@jobs.renders("VirtualMachine")
def shown_as_result(uuid: str, caller: Caller) -> dict[str, object]:
    vm = VirtualMachine.objects.for_listing().filter(uuid=uuid).first()
    # An object even when it has been expunged: Go's clients take nothing else for the result of a destruction.
    shown = VmAnswer(vm, context={"caller": caller}).data if vm else {"id": uuid, "state": VmState.EXPUNGING.value}
    return {"virtualmachine": shown}


# CloudStack's words for parts of the answer, and what is left out, or empty, unless `details` asks for it.
_DETAILS = {
    "nics": {"nic": [], "ipaddress": None},
    "tmpl": dict.fromkeys(("templateid", "templatename", "templatedisplaytext", "passwordenabled", "guestosname")),
    "servoff": dict.fromkeys(("serviceofferingid", "serviceofferingname")),
    "volume": dict.fromkeys(("rootdeviceid", "rootdevicetype")),
    "secgrp": {"securitygroup": []},
    "affgrp": {"affinitygroup": []},
    "group": {"group": None},
}
# Words for what is never shown here.
_NO_MORE_DETAILS = ("min", "stats", "diskoff", "backoff", "iso")
_PRESENT = "Present"
_GONE = (VmState.DESTROYED, VmState.EXPUNGING)


class ListVirtualMachinesParams(OwnedListParams):
    id = ObjectField("The VM's id.", visible(VirtualMachine))
    ids = ObjectListField("Several VMs' ids.", visible(VirtualMachine))
    name = Text("Part of the VM's name.")
    state = Choice(
        "The VM's state; Present is all but Destroyed and Expunging. Users see those two only when they ask for them.",
        (*VmState.values, _PRESENT),
    )
    zoneid = ObjectField("Only VMs of this zone.", visible(Zone))
    networkid = ObjectField("Only VMs with a NIC on this network.", visible(Network))
    hostid = ObjectField("Only VMs on this host. Root admins only.", visible(Host))
    podid = ObjectField("Only VMs in this pod. Root admins only.", visible(Pod))
    clusterid = ObjectField("Only VMs in this cluster. Root admins only.", visible(Cluster))
    storageid = ObjectField("Only VMs whose ROOT volume lies here. Root admins only.", visible(PrimaryStorage))
    templateid = ObjectField("Only VMs of this template.", visible(Template))
    serviceofferingid = ObjectField("Only VMs of this service offering.", visible(ServiceOffering))
    hypervisor = Choice("Only VMs of this hypervisor.", HypervisorType.values)
    keypair = Text("Only VMs that were given the SSH key pair of this name.")
    tags = tags_filter()
    haenable = Bool("True finds nothing: no VM is highly available here.")
    displayvm = Bool("False finds nothing: every VM is displayed.")
    userdata = Bool("True to show each VM's user data, where it is your account's own.")
    details = CommaList("Parts to show: all, nics, tmpl, servoff, volume, secgrp, affgrp, group, or min; absent: all.")

    def validate_details(self, words: list[str]) -> list[str]:
        for word in words:
            if word not in ("all", *_DETAILS, *_NO_MORE_DETAILS):
                raise ValidationError(f"must be words out of all, {', '.join((*_DETAILS, *_NO_MORE_DETAILS))}.")
        return words


@command(since="1.0", roles=EVERYBODY)
class ListVirtualMachines(ListCommand):
    """List VMs with their NICs and the addresses that have been learned."""

    params = ListVirtualMachinesParams
    answer = VM

    def rows(self, caller: Caller, params: Values) -> QuerySet[VirtualMachine]:
        vms = VirtualMachine.objects.visible_to(caller).filter(ownership(caller, params))
        if params["haenable"] or params["displayvm"] is False:
            return vms.none()
        asked = matching(
            params,
            zoneid="zone",
            networkid="nics__network",
            hostid="host",
            podid="host__cluster__pod",
            clusterid="host__cluster",
            storageid="root_volume__storage",
            templateid="template",
            serviceofferingid="service_offering",
            hypervisor="hypervisor",
            name="name__icontains",
        )
        vms = vms.filter(by_id(params) & asked & in_state(caller, params["state"]))
        if params["keyword"]:
            vms = vms.filter(_with_keyword(caller, params["keyword"]))
        if params["keypair"]:
            vms = vms.annotate(keys_as_text=Cast("ssh_keys", TextField())).filter(
                # As it is stored; inside of another value its quotes would have backslashes before them.
                keys_as_text__contains=json.dumps({"name": params["keypair"]})[1:-1]
            )
        # The oldest first, as in CloudStack: one that is deployed while a client pages comes at the end.
        return tagged(vms, params).for_listing().order_by("id")

    def complete(self, shown: list[dict[str, Any]], caller: Caller, params: Values) -> None:
        _cut(shown, params["details"])
        if params["userdata"]:
            _add_user_data(shown, caller)


def in_state(caller: Caller, state: str | None) -> Q:
    """As CloudStack unless told otherwise, users do not see what they have destroyed, and a client goes on as without
    it; one who wants to recover it asks for its state."""
    if state == _PRESENT or (state is None and caller.role == Role.USER):
        return ~Q(state__in=_GONE)
    return Q(state=state) if state else Q()


def _with_keyword(caller: Caller, keyword: str) -> Q:
    wanted = Q(name__icontains=keyword) | Q(display_name__icontains=keyword)
    if caller.is_root and (instance := re.fullmatch(r"i-(\d{1,18})-(\d{1,18})-vm", keyword.lower(), re.ASCII)):
        wanted |= Q(account_id=instance[1], pk=instance[2])
    return wanted


def _cut(shown: list[dict[str, Any]], details: list[str] | None) -> None:
    if details is None or "all" in details:
        return
    for part, fields in _DETAILS.items():
        if part in details:
            continue
        for vm in shown:
            for name, empty in fields.items():
                vm.pop(name, None)
                if empty is not None:
                    vm[name] = empty


def _add_user_data(shown: list[dict[str, Any]], caller: Caller) -> None:
    own = VirtualMachine.objects.filter(uuid__in=[vm["id"] for vm in shown], account=caller.account)
    # Instances: the column is sealed for its row.
    user_data = {str(vm.uuid): vm.user_data for vm in own.only("uuid", "user_data")}
    for vm in shown:
        if content := user_data.get(vm["id"]):
            vm["userdata"] = content


def networks_to_use(caller: Caller) -> QuerySet[Network]:
    """Those that the caller sees, with the domain that each is for."""
    return Network.objects.visible_to(caller).select_related("domain")


class IpToNetwork(Params):
    networkid = ObjectField("The network.", networks_to_use, required=True)
    ip = Text("Not accepted: the external DHCP server gives the address.")


class DeployVirtualMachineParams(OwnerParams):
    zoneid = ObjectField("The zone.", visible(Zone), required=True)
    templateid = ObjectField("The template.", visible(Template), required=True)
    serviceofferingid = ObjectField("The service offering.", visible(ServiceOffering), required=True)
    networkids = ObjectListField("The networks, the default one first.", networks_to_use)
    iptonetworklist = MapList("The networks, spelt iptonetworklist[0].networkid=...", IpToNetwork, most=MOST_NICS)
    name = Text("The VM's host name.", max_length=63)
    displayname = Text("The VM's name for people.")
    group = Text("A word to sort VMs by, which is shown and nothing else: there are no groups with ids.")
    userdata = Text("User data in base64.", **USER_DATA_LIMITS)
    userdataid = Text("Not in this product.")
    userdatadetails = Map("Not in this product.")
    keypair = Text("The name of an SSH key pair.")
    keypairs = CommaList("Names of SSH key pairs.")
    password = Text("The password that a password enabled template's guest is to set.", max_length=128)
    startvm = Bool("False to leave it stopped.")
    hostid = ObjectField("The host. Root admins only.", visible(Host))
    configdrive = Choice(_CONFIG_DRIVE, ConfigDriveUse.values)
    hypervisor = Choice("The template's hypervisor.", HypervisorType.values)
    ipaddress = Text("Not accepted: the external DHCP server gives the address.")
    details = Map(_NO_DETAILS)
    diskofferingid = Text("Not in this product.")
    extraconfig = Text("Not in this product.", max_length=5120)
    rootdisksize = Text("Not in this product: the ROOT volume has its template's size.")
    securitygroupids = Text("Not in this product.")
    securitygroupnames = Text("Not in this product.")
    affinitygroupids = Text("Not in this product.")
    affinitygroupnames = Text("Not in this product.")


@command(since="1.0", roles=EVERYBODY)
class DeployVirtualMachine(AsyncCommand):
    """Deploy a VM and start it. Its address appears some time after it runs: listNics shows it."""

    params = DeployVirtualMachineParams
    answer = VM
    creates = True

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        account: Account = params["account"] or caller.account
        _, job = services.deploy(deployment(params, account), account, caller)
        return job


def deployment(params: Values, account: Account) -> services.Deployment:
    """What the parameters of `deployVirtualMachine` say."""
    networks = list(params["networkids"] or []) + [entry["networkid"] for entry in params["iptonetworklist"] or []]
    _refuse_what_is_not_here(params)
    if params["hypervisor"] and params["hypervisor"] != params["templateid"].hypervisor:
        raise InvalidParameter(f"Template {params['templateid']} is for {params['templateid'].hypervisor}.")
    return services.Deployment(
        zone=params["zoneid"],
        template=params["templateid"],
        service_offering=params["serviceofferingid"],
        networks=networks,
        name=params["name"] or "",
        display_name=params["displayname"] or "",
        group_name=params["group"] or "",
        user_data=params["userdata"] or "",
        key_pairs=key_pairs(account, params["keypair"], params["keypairs"]),
        password=params["password"] or "",
        host=params["hostid"],
        start=params["startvm"] is not False,
        drive_use=params["configdrive"] or ConfigDriveUse.ALWAYS,
    )


_NOT_HERE = {
    "Volumes beyond ROOT are": ["diskofferingid"],
    "extraconfig is": ["extraconfig"],
    "Sizes of a VM's own (`rootdisksize`) are": ["rootdisksize"],
    "Security groups are": ["securitygroupids", "securitygroupnames"],
    "Affinity groups are": ["affinitygroupids", "affinitygroupnames"],
}


def _refuse_what_is_not_here(params: Values) -> None:
    if params["ipaddress"] or any(entry["ip"] for entry in params["iptonetworklist"] or []):
        raise InvalidParameter("The external DHCP server gives the address; leave ipaddress out.")
    for what, names in _NOT_HERE.items():
        if any(params[name] for name in names):
            raise NotInThisProduct(what)
    _refuse_details(params)
    refuse_stored_user_data(params)


def _refuse_details(params: Values) -> None:
    if params["details"]:
        raise NotInThisProduct("Details of a VM (`details`) are")


class StartVirtualMachineParams(VmParams):
    hostid = ObjectField("The host. Root admins only.", visible(Host))
    clusterid = ObjectField("The cluster. Root admins only.", visible(Cluster))
    podid = ObjectField("The pod. Root admins only.", visible(Pod))


@command(since="1.0", roles=EVERYBODY)
class StartVirtualMachine(AsyncCommand):
    """Start a stopped VM, with a config drive built anew."""

    params = StartVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.start(params["id"], caller, params["hostid"], cluster=params["clusterid"], pod=params["podid"])


class ForceableParams(VmParams):
    forced = Bool("True to cut the power without asking the guest.")


@command(since="1.0", roles=EVERYBODY)
class StopVirtualMachine(AsyncCommand):
    """Stop a running VM: an orderly shutdown, then its power is cut. Its config drive is removed."""

    params = ForceableParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.stop(params["id"], caller, forced=bool(params["forced"]))


@command(since="1.0", roles=EVERYBODY)
class RebootVirtualMachine(AsyncCommand):
    """Reboot a running VM; forced, it is stopped and started, with a config drive built anew."""

    params = ForceableParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.reboot(params["id"], caller, forced=bool(params["forced"]))


class DestroyVirtualMachineParams(VmParams):
    expunge = Bool("True to delete the ROOT volume at once. Admins only.")


@command(since="1.0", roles=EVERYBODY)
class DestroyVirtualMachine(AsyncCommand):
    """Destroy a VM; its ROOT volume is kept for expunge.delay seconds, unless expunge is true."""

    params = DestroyVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        if params["expunge"] and caller.role == Role.USER:
            raise PermissionDenied("Only an administrator may expunge a VM at once. Destroy it; it is expunged later.")
        return services.destroy(params["id"], caller, expunge=bool(params["expunge"]))


@command(since="1.1", roles=ADMINS)
class ExpungeVirtualMachine(AsyncCommand):
    """Delete a destroyed VM with its ROOT volume at once."""

    params = VmParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.expunge(params["id"], caller)


class RestoreVirtualMachineParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)
    templateid = ObjectField("Its own template; another one is not in this product.", visible(Template))


@command(since="1.1", roles=EVERYBODY)
class RestoreVirtualMachine(AsyncCommand):
    """Make a VM's ROOT volume of its template again; what its guest wrote is lost. One that runs is restarted."""

    params = RestoreVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        vm = params["virtualmachineid"]
        if params["templateid"] not in (None, vm.template):
            raise NotInThisProduct("Restoring a VM from another template is")
        return services.restore(vm, caller)


class ServiceOfferingParams(VmParams):
    serviceofferingid = ObjectField("The new service offering.", visible(ServiceOffering), required=True)
    details = Map(_NO_DETAILS)


@command(since="1.1", roles=EVERYBODY)
class ChangeServiceForVirtualMachine(Command):
    """Give a stopped VM another service offering."""

    params = ServiceOfferingParams
    answer = VM

    def run(self, caller: Caller, params: Values) -> VirtualMachine:
        _refuse_details(params)
        services.change_service(params["id"], params["serviceofferingid"], caller)
        return as_it_is(params["id"])


@command(since="1.1", roles=EVERYBODY)
class ScaleVirtualMachine(AsyncCommand):
    """Give a stopped VM another service offering. One that runs keeps its CPUs and memory."""

    params = ServiceOfferingParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        _refuse_details(params)
        return services.scale(params["id"], params["serviceofferingid"], caller)


@jobs.renders_job("expungeVirtualMachine")
@jobs.renders_job("scaleVirtualMachine")
def _only_success(job: AsyncJob, caller: Caller) -> None:
    """As CloudStack's: no more than that it was done."""


@command(since="1.0", roles=EVERYBODY)
class RecoverVirtualMachine(Command):
    """Take back a destroyed VM that has not been expunged; it is Stopped then."""

    params = VmParams
    answer = VM

    def run(self, caller: Caller, params: Values) -> VirtualMachine:
        services.recover(params["id"], caller)
        return as_it_is(params["id"])


class UpdateVirtualMachineParams(VmParams):
    name = Text("A new host name; the VM must be Stopped.", max_length=63)
    displayname = Text("A new name for people.")
    group = Text("A new word to sort VMs by.")
    ostypeid = Uuid("The operating system that the VM has by its template; another one is not in this product.")
    userdata = Text("New user data in base64; empty: none from now on.", allow_blank=True, **USER_DATA_LIMITS)
    userdataid = Text("Not in this product.")
    userdatadetails = Map("Not in this product.")
    details = Map(_NO_DETAILS)
    configdrive = Choice(_CONFIG_DRIVE, ConfigDriveUse.values)


@command(since="1.0", roles=EVERYBODY)
class UpdateVirtualMachine(Command):
    """Change a VM's names, user data, and whether it has a config drive."""

    params = UpdateVirtualMachineParams
    answer = VM

    def run(self, caller: Caller, params: Values) -> VirtualMachine:
        refuse_stored_user_data(params)
        _refuse_details(params)
        _refuse_another_os_type(params["id"], params["ostypeid"])
        guest_data.update(
            params["id"],
            caller,
            name=params["name"],
            display_name=params["displayname"],
            group_name=params["group"],
            user_data=params["userdata"],
            drive_use=params["configdrive"],
        )
        return as_it_is(params["id"])


def _refuse_another_os_type(vm: VirtualMachine, wanted: UUID | None) -> None:
    known = os_types.by_name(vm.template.guest_os_type)
    if wanted and (known is None or wanted != known.uuid):
        raise NotInThisProduct("An operating system that is not its template's (`ostypeid`) is")


class MigrateVirtualMachineParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)
    hostid = ObjectField("The host to go to; absent: the one of its cluster with the most free memory.", visible(Host))


@command(since="1.0", roles=ROOT_ADMIN)
class MigrateVirtualMachine(AsyncCommand):
    """Migrate a running VM live to another host of its cluster, with its config drive."""

    params = MigrateVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.migrate(params["virtualmachineid"], caller, params["hostid"])
