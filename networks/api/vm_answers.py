"""How VMs, their NICs and volumes are shown."""

import uuid

from extdhcp_site.api.answers import Answer, Constant, Moment
from networks.api.fields import computed, flag, number, text
from networks.api.tag_answers import tags_of
from networks.models import Nic, VirtualMachine


class NicAnswer(Answer):
    id = text("uuid", "the NIC's id")
    deviceid = computed("its place in the VM, from 0")
    networkid = text("network.uuid", "its network's id")
    networkname = text("network.name", "its network's name")
    type = text("network.offering.guest_type", "Shared or L2")
    traffictype = Constant("Guest", "always Guest")
    isdefault = flag("is_default", "true for the VM's default NIC")
    macaddress = text("mac_address", "its MAC address, lower case")
    ipaddress = text("ip4_address", "the IPv4 address that the external DHCP server gave; absent until learned")
    ip6address = text("ip6_address", "an IPv6 address that the guest has; absent until learned")
    gateway = text("network.gateway", "its network's gateway")
    netmask = text("network.netmask", "its network's netmask")
    broadcasturi = computed("the VLAN as a URI, for administrators")
    isolationuri = computed("the VLAN as a URI, for administrators")
    addressstate = text(
        "address_state", "unknown, confirmed, unconfirmed, last_known or pinned: set by an operator (not in CloudStack)"
    )
    addresssource = text(
        "address_source",
        "who told the address: agent, lease, webhook, arp, disk, operator or test-driver (not in CloudStack)",
    )
    addresslastseen = Moment(source="address_seen_at", help_text="when the address was last seen (not in CloudStack)")
    secondaryip = computed("its other addresses, each with an id: those that were registered, and those learned")
    extradhcpoption = Constant([], "always empty")
    virtualmachineid = computed("its VM's id")

    for_root = ("broadcasturi", "isolationuri")

    def get_deviceid(self, nic: Nic) -> str:
        return str(nic.device_id)

    def get_broadcasturi(self, nic: Nic) -> str | None:
        return f"vlan://{nic.network.vlan}" if nic.network.vlan else None

    get_isolationuri = get_broadcasturi

    def get_secondaryip(self, nic: Nic) -> list[dict[str, str]]:
        registered = nic.registered_addresses
        shown = [{"id": str(row), "ipaddress": address} for address, row in registered.items()]
        # Those learned have no rows: an id lasts for as long as the NIC has the address.
        return shown + [
            {"id": str(uuid.uuid5(nic.uuid, address)), "ipaddress": address}
            for address in nic.secondary_addresses
            if address not in registered
        ]

    def get_virtualmachineid(self, nic: Nic) -> str:
        return str(nic.vm.uuid)


class SecondaryIpAnswer(Answer):
    id = text("uuid", "the address's id, by which it is removed")
    ipaddress = text("address", "the address, IPv4 or IPv6")
    nicid = text("nic.uuid", "the NIC that it is registered for")
    networkid = text("network.uuid", "that NIC's network")
    virtualmachineid = text("nic.vm.uuid", "that NIC's VM")


class VmAnswer(Answer):
    id = text("uuid", "the VM's id")
    name = text("name", "the VM's host name")
    displayname = text("display_name", "the VM's name for people")
    state = text("state", "Running, Starting, Stopping, Stopped, Migrating, Destroyed, Expunging or Error")
    account = text("account.name", "the account that owns it")
    domain = text("account.domain.name", "that account's domain")
    domainid = text("account.domain.uuid", "the id of that domain")
    created = Moment(source="created_at", help_text="when it was deployed")
    zoneid = text("zone.uuid", "the zone's id")
    zonename = text("zone.name", "the zone's name")
    hostid = text("host.uuid", "the host that it runs on, for administrators")
    hostname = text("host.name", "the name of that host, for administrators")
    instancename = text("instance_name", "its name on the hypervisor, for administrators")
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
    ipaddress = computed("its default NIC's IPv4 address; absent until it is learned")
    nic = computed("its NICs, the default one first")
    keypairs = computed("names of its SSH key pairs, separated by commas")
    rootdeviceid = Constant(0, "always 0")
    rootdevicetype = Constant("ROOT", "always ROOT")
    haenable = Constant(False, "always false")
    displayvm = Constant(True, "always true")
    isdynamicallyscalable = Constant(False, "always false")
    details = Constant({}, "always empty")
    securitygroup = Constant([], "always empty")
    affinitygroup = Constant([], "always empty")
    tags = computed("its tags")
    jobid = text("pending_job", "the job that works on it now")
    jobstatus = computed("0 while a job works on it")
    configdrive = text("drive_use", "whether it has a config drive: Always, FirstBoot or Never (not in CloudStack)")
    needsrestart = flag(
        "needs_restart",
        "true if its guest has yet to learn of a change, by a stop and a start, or a reboot (not in CloudStack)",
    )
    errortext = text("error_text", "why it is in Error, or did not start (not in CloudStack)")

    for_root = ("hostid", "hostname", "instancename")

    def get_ipaddress(self, vm: VirtualMachine) -> str | None:
        return next((nic.ip4_address for nic in vm.nics.all() if nic.is_default), None)

    def get_nic(self, vm: VirtualMachine) -> list[dict[str, object]]:
        nics = list(vm.nics.all())
        for nic in nics:
            nic.vm = vm
        return list(NicAnswer(nics, many=True, context=self.context).data)

    def get_tags(self, vm: VirtualMachine) -> list[dict[str, str]]:
        return tags_of(vm)

    def get_keypairs(self, vm: VirtualMachine) -> str | None:
        return ",".join(key["name"] for key in vm.ssh_keys) or None

    def get_jobstatus(self, vm: VirtualMachine) -> int | None:
        return 0 if vm.pending_job else None


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
