"""Virtual machines, their NICs and ROOT volumes."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Account, Caller, Role
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, ownership
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    CommaList,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Values,
    visible,
)
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, AsyncCommand, Command, ListCommand, command
from extdhcp_site.errors import InvalidParameter, NotInThisProduct, PermissionDenied
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
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
    ServiceOffering,
    Template,
    VirtualMachine,
    VmState,
    Zone,
)
from networks.services import guest_data
from networks.services import vms as services

_CONFIG_DRIVE = (
    "Its config drive (not in CloudStack): Always, while it runs; FirstBoot, until the guest has booted with what is "
    "new on it; Never."
)


@jobs.renders("VirtualMachine")
def shown_as_result(uuid: str, caller: Caller) -> dict[str, object] | None:
    vm = VirtualMachine.objects.for_listing().filter(uuid=uuid).first()
    return {"virtualmachine": VmAnswer(vm, context={"caller": caller}).data} if vm else None


class ListVirtualMachinesParams(OwnedListParams):
    id = ObjectField("The VM's id.", visible(VirtualMachine))
    ids = ObjectListField("Several VMs' ids.", visible(VirtualMachine))
    name = Text("Part of the VM's name.")
    state = Choice("The VM's state.", VmState.values)
    zoneid = ObjectField("Only VMs of this zone.", visible(Zone))
    networkid = ObjectField("Only VMs with a NIC on this network.", visible(Network))
    hostid = ObjectField("Only VMs on this host. Root admins only.", visible(Host))
    podid = ObjectField("Only VMs in this pod. Root admins only.", visible(Pod))
    clusterid = ObjectField("Only VMs in this cluster. Root admins only.", visible(Cluster))
    templateid = ObjectField("Only VMs of this template.", visible(Template))
    serviceofferingid = ObjectField("Only VMs of this service offering.", visible(ServiceOffering))
    hypervisor = Choice("Only VMs of this hypervisor.", HypervisorType.values)
    tags = tags_filter()
    details = CommaList("Accepted: all that is cheap is always shown.")


@command(since="1.0", roles=EVERYBODY)
class ListVirtualMachines(ListCommand):
    """List VMs with their NICs and the addresses that have been learned."""

    params = ListVirtualMachinesParams
    answer = VM

    def rows(self, caller: Caller, params: Values) -> QuerySet[VirtualMachine]:
        vms = VirtualMachine.objects.visible_to(caller).filter(ownership(caller, params))
        if params["keyword"]:
            vms = vms.filter(Q(name__icontains=params["keyword"]) | Q(display_name__icontains=params["keyword"]))
        if params["name"]:
            vms = vms.filter(name__icontains=params["name"])
        if params["networkid"]:
            vms = vms.filter(nics__network=params["networkid"])
        asked = matching(
            params,
            state="state",
            zoneid="zone",
            hostid="host",
            podid="host__cluster__pod",
            clusterid="host__cluster",
            templateid="template",
            serviceofferingid="service_offering",
            hypervisor="hypervisor",
        )
        return tagged(vms, params).filter(by_id(params) & asked).for_listing()


class IpToNetwork(Params):
    networkid = ObjectField("The network.", visible(Network), required=True)
    ip = Text("Not accepted: the external DHCP server gives the address.")


class DeployVirtualMachineParams(OwnerParams):
    zoneid = ObjectField("The zone.", visible(Zone), required=True)
    templateid = ObjectField("The template.", visible(Template), required=True)
    serviceofferingid = ObjectField("The service offering.", visible(ServiceOffering), required=True)
    networkids = ObjectListField("The networks, the default one first.", visible(Network))
    iptonetworklist = MapList("The networks, spelt iptonetworklist[0].networkid=...", IpToNetwork)
    name = Text("The VM's host name.", max_length=63)
    displayname = Text("The VM's name for people.")
    userdata = Text("User data in base64.", **USER_DATA_LIMITS)
    userdataid = Text("Not in this product.")
    keypair = Text("The name of an SSH key pair.")
    keypairs = CommaList("Names of SSH key pairs.")
    password = Text("The password that a password enabled template's guest is to set.", max_length=128)
    startvm = Bool("False to leave it stopped.")
    hostid = ObjectField("The host. Root admins only.", visible(Host))
    configdrive = Choice(_CONFIG_DRIVE, ConfigDriveUse.values)
    hypervisor = Choice("The template's hypervisor.", HypervisorType.values)
    ipaddress = Text("Not accepted: the external DHCP server gives the address.")
    diskofferingid = Text("Not in this product.")
    extraconfig = Text("Not in this product.", max_length=5120)


@command(since="1.0", roles=EVERYBODY)
class DeployVirtualMachine(AsyncCommand):
    """Deploy a VM and start it. Its address appears some time after it runs: listNics shows it."""

    params = DeployVirtualMachineParams
    answer = VM
    creates = True

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        account: Account = params["account"] or caller.account
        networks = list(params["networkids"] or []) + [entry["networkid"] for entry in params["iptonetworklist"] or []]
        _refuse_what_is_not_here(params)
        if params["hypervisor"] and params["hypervisor"] != params["templateid"].hypervisor:
            raise InvalidParameter(f"Template {params['templateid']} is for {params['templateid'].hypervisor}.")
        wanted = services.Deployment(
            zone=params["zoneid"],
            template=params["templateid"],
            service_offering=params["serviceofferingid"],
            networks=networks,
            name=params["name"] or "",
            display_name=params["displayname"] or "",
            user_data=params["userdata"] or "",
            key_pairs=key_pairs(account, params["keypair"], params["keypairs"]),
            password=params["password"] or "",
            host=params["hostid"],
            start=params["startvm"] is not False,
            drive_use=params["configdrive"] or ConfigDriveUse.ALWAYS,
        )
        _, job = services.deploy(wanted, account, caller)
        return job


def _refuse_what_is_not_here(params: Values) -> None:
    if params["ipaddress"] or any(entry["ip"] for entry in params["iptonetworklist"] or []):
        raise InvalidParameter("The external DHCP server gives the address; leave ipaddress out.")
    if params["diskofferingid"]:
        raise NotInThisProduct("Volumes beyond ROOT are")
    if params["extraconfig"]:
        raise NotInThisProduct("extraconfig is")
    refuse_stored_user_data(params)


class StartVirtualMachineParams(VmParams):
    hostid = ObjectField("The host. Root admins only.", visible(Host))


@command(since="1.0", roles=EVERYBODY)
class StartVirtualMachine(AsyncCommand):
    """Start a stopped VM, with a config drive built anew."""

    params = StartVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.start(params["id"], caller, params["hostid"])


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
    userdata = Text("New user data in base64; empty: none from now on.", allow_blank=True, **USER_DATA_LIMITS)
    userdataid = Text("Not in this product.")
    configdrive = Choice(_CONFIG_DRIVE, ConfigDriveUse.values)


@command(since="1.0", roles=EVERYBODY)
class UpdateVirtualMachine(Command):
    """Change a VM's names, user data, and whether it has a config drive."""

    params = UpdateVirtualMachineParams
    answer = VM

    def run(self, caller: Caller, params: Values) -> VirtualMachine:
        refuse_stored_user_data(params)
        guest_data.update(
            params["id"],
            caller,
            name=params["name"],
            display_name=params["displayname"],
            user_data=params["userdata"],
            drive_use=params["configdrive"],
        )
        return as_it_is(params["id"])


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
