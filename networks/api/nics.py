"""VMs' NICs and ROOT volumes."""

import re

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import ListParams, OwnedListParams, ownership
from extdhcp_site.api.parameters import ObjectField, Params, Text, Values, visible
from extdhcp_site.api.registry import EVERYBODY, AsyncCommand, ListCommand, Success, command
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.api.guest_data import VM
from networks.api.infrastructure import by_id, matching
from networks.api.vm_answers import NicAnswer, SecondaryIpAnswer, VolumeAnswer
from networks.models import Network, Nic, NicSecondaryIp, VirtualMachine, Volume, Zone
from networks.services import nics, secondary_ips
from networks.services import vms as services


class AddNicToVirtualMachineParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)
    networkid = ObjectField("The network.", visible(Network), required=True)
    ipaddress = Text("Not accepted: the external DHCP server gives the address.")
    macaddress = Text("Not accepted: MAC addresses are made here.")


@command(since="1.0", roles=EVERYBODY)
class AddNicToVirtualMachine(AsyncCommand):
    """Give a VM, running or stopped, a NIC on another network."""

    params = AddNicToVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        vm = params["virtualmachineid"]
        if params["ipaddress"] or params["macaddress"]:
            raise InvalidParameter("Leave ipaddress and macaddress out: the DHCP server gives the one, we the other.")
        services.check_scope(vm.account, params["networkid"])
        return nics.add_nic(vm, params["networkid"], caller)


class RemoveNicFromVirtualMachineParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)
    nicid = ObjectField("The NIC's id.", visible(Nic), required=True)


@command(since="1.0", roles=EVERYBODY)
class RemoveNicFromVirtualMachine(AsyncCommand):
    """Take a NIC other than the default one from a VM, running or stopped."""

    params = RemoveNicFromVirtualMachineParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return nics.remove_nic(params["virtualmachineid"], params["nicid"], caller)


class UpdateDefaultNicParams(Params):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)
    nicid = ObjectField("The NIC that is to be the default one.", visible(Nic), required=True)


@command(since="1.1", roles=EVERYBODY)
class UpdateDefaultNicForVirtualMachine(AsyncCommand):
    """Make another NIC of a VM, running or stopped, its default one."""

    params = UpdateDefaultNicParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return nics.make_default(params["virtualmachineid"], params["nicid"], caller)


class UpdateVmNicIpParams(Params):
    nicid = ObjectField("The NIC's id.", visible(Nic), required=True)
    ipaddress = Text("The address that its guest has, as you know it; absent: it is learned again.")


@command(since="1.1", roles=EVERYBODY)
class UpdateVmNicIp(AsyncCommand):
    """Set a NIC's IPv4 address by hand: nothing that is learned overwrites it. The guest is told nothing."""

    params = UpdateVmNicIpParams
    answer = VM

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return nics.update_address(params["nicid"], params["ipaddress"], caller)


class AddIpToNicParams(Params):
    nicid = ObjectField("The NIC's id.", visible(Nic), required=True)
    ipaddress = Text("The IPv4 or IPv6 address. Required here: the external DHCP server gives none for this.")


@command(since="1.1", roles=EVERYBODY)
class AddIpToNic(AsyncCommand):
    """Register a further address for a NIC. Its guest sets it up by itself."""

    params = AddIpToNicParams
    answer = ("nicsecondaryip", SecondaryIpAnswer)
    creates = True

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        if not params["ipaddress"]:
            raise InvalidParameter("Name the address in ipaddress: the external DHCP server gives none for this.")
        return secondary_ips.add(params["nicid"], params["ipaddress"], caller)


@jobs.renders("NicSecondaryIp")
def shown_as_result(uuid: str, caller: Caller) -> dict[str, object] | None:
    row = NicSecondaryIp.objects.select_related("nic__vm", "network").filter(uuid=uuid).first()
    return {"nicsecondaryip": SecondaryIpAnswer(row, context={"caller": caller}).data} if row else None


class RemoveIpFromNicParams(Params):
    id = ObjectField("The id of the address, as addIpToNic gave it.", visible(NicSecondaryIp), required=True)


@command(since="1.1", roles=EVERYBODY)
class RemoveIpFromNic(AsyncCommand):
    """Take an address from a NIC that was registered for it. One that was learned is not ours to take."""

    params = RemoveIpFromNicParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return secondary_ips.remove(params["id"], caller)


class ListNicsParams(ListParams):
    virtualmachineid = ObjectField("The VM's id.", visible(VirtualMachine), required=True)
    nicid = ObjectField("The NIC's id.", visible(Nic))
    networkid = ObjectField("Only NICs on this network.", visible(Network))


@command(since="1.0", roles=EVERYBODY)
class ListNics(ListCommand):
    """List the NICs of a VM, with the addresses that have been learned."""

    params = ListNicsParams
    answer = ("nic", NicAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Nic]:
        nics = Nic.objects.filter(vm=params["virtualmachineid"])
        if params["nicid"]:
            nics = nics.filter(pk=params["nicid"].pk)
        return nics.filter(matching(params, networkid="network")).for_listing().select_related("vm")


class ListVolumesParams(OwnedListParams):
    id = ObjectField("The volume's id.", visible(Volume))
    virtualmachineid = ObjectField("Only this VM's volume.", visible(VirtualMachine))
    name = Text("The volume's name, as in ROOT-7, or part of its VM's name.")
    type = Text("ROOT; there is no other.")
    zoneid = ObjectField("Only volumes of this zone.", visible(Zone))


@command(since="1.0", roles=EVERYBODY)
class ListVolumes(ListCommand):
    """List ROOT volumes."""

    params = ListVolumesParams
    answer = ("volume", VolumeAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Volume]:
        volumes = Volume.objects.visible_to(caller)
        if not params["virtualmachineid"]:
            volumes = volumes.filter(ownership(caller, params, account="vm__account"))
        if (params["type"] or "ROOT").upper() != "ROOT":
            return volumes.none()
        for text in filter(None, (params["keyword"], params["name"])):
            own = re.fullmatch(r"root-(\d{1,18})", text.lower(), re.ASCII)
            volumes = volumes.filter(Q(vm=own[1]) if own else Q(vm__name__icontains=text))
        return volumes.filter(
            by_id(params) & matching(params, virtualmachineid="vm", zoneid="vm__zone")
        ).select_related("vm__account__domain", "vm__zone", "storage")
