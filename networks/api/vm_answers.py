"""How VMs, their NICs and volumes are shown."""

import uuid
from functools import cache
from ipaddress import ip_network
from typing import Any

from extdhcp_site.api.answers import Answer, Constant, Moment
from extdhcp_site.api.columns import ColumnAnswer
from networks import os_types
from networks.api.fields import computed, flag, number, text
from networks.models import VirtualMachine
from networks.models.vms import instance_name, registered_addresses


class OtherAddressAnswer(Answer):
    id = text("id", "the address's id")
    ipaddress = text("ipaddress", "the address, IPv4 or IPv6")


class NicAnswer(ColumnAnswer):
    id = text("uuid", "the NIC's id")
    deviceid = computed("its place in the VM, from 0", "device_id")
    networkid = text("network.uuid", "its network's id")
    networkname = text("network.name", "its network's name")
    type = text("network.offering.guest_type", "Shared or L2")
    traffictype = Constant("Guest", "always Guest")
    isdefault = flag("is_default", "true for the VM's default NIC")
    macaddress = text("mac_address", "its MAC address, lower case")
    ipaddress = text("ip4_address", "the IPv4 address that the external DHCP server gave; absent until learned")
    ip6address = text("ip6_address", "an IPv6 address that the guest has; absent until learned")
    gateway = text("network.gateway", "its network's gateway")
    netmask = computed("its network's netmask", "network.cidr")
    broadcasturi = computed("the VLAN as a URI, for administrators", "network.vlan")
    isolationuri = computed("the VLAN as a URI, for administrators", "network.vlan")
    addressstate = text(
        "address_state", "unknown, confirmed, unconfirmed, last_known or pinned: set by hand (not in CloudStack)"
    )
    addresssource = text(
        "address_source",
        "who told the address: agent, agent-unsure (it may be another NIC's), lease, webhook, arp, disk, operator or "
        "test-driver (not in CloudStack)",
    )
    addresslastseen = Moment(source="address_seen_at", help_text="when the address was last seen (not in CloudStack)")
    secondaryip = computed(
        "its other addresses, each with an id: those that were registered, and those learned",
        "uuid",
        "secondary_addresses",
        "registered",
        entries=OtherAddressAnswer,
    )
    extradhcpoption = Constant([], "always empty")
    virtualmachineid = text("vm.uuid", "its VM's id")

    for_root = ("broadcasturi", "isolationuri")

    @staticmethod
    def get_deviceid(device_id: int) -> str:
        return str(device_id)

    @staticmethod
    def get_netmask(cidr: str) -> str | None:
        return _netmask(cidr) if cidr else None

    @staticmethod
    def get_broadcasturi(vlan: int | None) -> str | None:
        return f"vlan://{vlan}" if vlan else None

    get_isolationuri = get_broadcasturi

    @staticmethod
    def get_secondaryip(nic: str, learned: list[str], registered: str | None) -> list[dict[str, str]]:
        if not learned and not registered:
            return []
        rows = registered_addresses(registered)
        shown = [{"id": str(row), "ipaddress": address} for address, row in rows.items()]
        # Those learned have no rows: an id lasts for as long as the NIC has the address.
        return shown + [
            {"id": str(uuid.uuid5(uuid.UUID(nic), address)), "ipaddress": address}
            for address in learned
            if address not in rows
        ]


@cache
def _netmask(cidr: str) -> str:
    return str(ip_network(cidr).netmask)


class SecondaryIpAnswer(Answer):
    id = text("uuid", "the address's id, by which it is removed")
    ipaddress = text("address", "the address, IPv4 or IPv6")
    nicid = text("nic.uuid", "the NIC that it is registered for")
    networkid = text("network.uuid", "that NIC's network")
    virtualmachineid = text("nic.vm.uuid", "that NIC's VM")


class VmTagAnswer(ColumnAnswer):
    key = text("key", "the tag's key")
    value = text("value", "its value", allow_blank=True)
    resourcetype = Constant("UserVm", "always UserVm")
    resourceid = text("vm.uuid", "the VM's id")
    account = text("vm.account.name", "the account that owns the VM")


class VmAnswer(ColumnAnswer):
    id = text("uuid", "the VM's id")
    name = text("name", "the VM's host name")
    displayname = computed("the VM's name for people", "display_name", "name")
    group = text("group_name", "the word that its owners sort it by")
    state = text("state", "Running, Starting, Stopping, Stopped, Migrating, Destroyed, Expunging or Error")
    account = text("account.name", "the account that owns it")
    domain = text("account.domain.name", "that account's domain")
    domainid = text("account.domain.uuid", "the id of that domain")
    created = Moment(source="created_at", help_text="when it was deployed")
    zoneid = text("zone.uuid", "the zone's id")
    zonename = text("zone.name", "the zone's name")
    hostid = text("host.uuid", "the host that it runs on, for administrators")
    hostname = text("host.name", "the name of that host, for administrators")
    instancename = computed("its name on the hypervisor, for administrators", "account_id", "id")
    templateid = text("template.uuid", "its template's id")
    templatename = text("template.name", "its template's name")
    templatedisplaytext = text("template.name", "its template in words")
    passwordenabled = flag("template.password_enabled", "true if its guest sets the password that the drive brings")
    serviceofferingid = text("service_offering.uuid", "its service offering's id")
    serviceofferingname = text("service_offering.name", "its service offering's name")
    cpunumber = number("service_offering.cpus", "CPUs")
    cpuspeed = number("service_offering.mhz", "MHz of each CPU")
    memory = number("service_offering.memory_mib", "MiB of memory")
    hypervisor = text("hypervisor", "KVM, XenServer or VMware")
    guestosname = text("template.guest_os_type", "guest operating system")
    ostypeid = computed("that system's id, where it is one of listOsTypes", "template.guest_os_type")
    ipaddress = computed("its default NIC's IPv4 address; absent until it is learned", "nics")
    nic = NicAnswer(source="nics", many=True, help_text="its NICs, the default one first")
    keypairs = computed("names of its SSH key pairs, separated by commas", "ssh_keys")
    keypair = computed("the same, under the name that libcloud reads", "ssh_keys")
    rootdeviceid = Constant(0, "always 0")
    rootdevicetype = Constant("ROOT", "always ROOT")
    haenable = Constant(False, "always false")
    displayvm = Constant(True, "always true")
    isdynamicallyscalable = Constant(False, "always false")
    details = Constant({}, "always empty")
    securitygroup = Constant([], "always empty")
    affinitygroup = Constant([], "always empty")
    tags = VmTagAnswer(many=True, help_text="its tags")
    jobid = text("pending_job", "the job that works on it now")
    jobstatus = computed("0 while a job works on it", "pending_job")
    configdrive = text("drive_use", "whether it has a config drive: Always, FirstBoot or Never (not in CloudStack)")
    needsrestart = flag(
        "needs_restart",
        "true if its guest has yet to learn of a change, by a stop and a start, or a reboot (not in CloudStack)",
    )
    errortext = text("error_text", "why it is in Error, or did not start (not in CloudStack)")

    for_root = ("hostid", "hostname", "instancename")

    @staticmethod
    def get_displayname(display_name: str, name: str) -> str:
        return display_name or name

    @staticmethod
    def get_instancename(account_id: int, pk: int) -> str:
        return instance_name(account_id, pk)

    @staticmethod
    def get_ostypeid(guest_os_type: str) -> str | None:
        os_type = os_types.by_name(guest_os_type)
        return str(os_type.uuid) if os_type else None

    @staticmethod
    def get_ipaddress(nics: list[dict[str, Any]]) -> str | None:
        return next((nic.get("ipaddress") for nic in nics if nic["isdefault"]), None)

    @staticmethod
    def get_keypairs(ssh_keys: list[dict[str, str]]) -> str | None:
        return ",".join(key["name"] for key in ssh_keys) or None

    get_keypair = get_keypairs

    @staticmethod
    def get_jobstatus(pending_job: str | None) -> int | None:
        return 0 if pending_job else None


class UserDataAnswer(Answer):
    virtualmachineid = text("uuid", "the VM's id")
    userdata = computed("its user data, in base64; absent if it has none")

    def get_userdata(self, vm: VirtualMachine) -> str | None:
        return vm.user_data


class VolumeAnswer(Answer):
    id = text("uuid", "the volume's id")
    name = text("name", "the volume's name")
    type = Constant("ROOT", "always ROOT")
    state = text("state", "Allocated or Ready")
    size = number("size", "bytes")
    virtualmachineid = text("vm.uuid", "its VM's id")
    vmname = text("vm.name", "its VM's name")
    vmdisplayname = text("vm.display_name", "its VM's name for people")
    vmstate = text("vm.state", "its VM's state")
    zoneid = text("vm.zone.uuid", "the zone's id")
    zonename = text("vm.zone.name", "the zone's name")
    hypervisor = text("vm.hypervisor", "the VM's hypervisor")
    storage = text("storage.name", "the primary storage that it lies in, for administrators")
    account = text("vm.account.name", "the account that owns it")
    domain = text("vm.account.domain.name", "that account's domain")
    domainid = text("vm.account.domain.uuid", "the id of that domain")
    deviceid = Constant(0, "always 0")
    created = Moment(source="created_at", help_text="when it was made")
    tags = Constant([], "always empty")

    for_root = ("storage",)
