"""How the cloud's objects are shown: CloudStack's field names, each with what it means."""

import uuid

from rest_framework import serializers

from extdhcp_site.api.answers import Answer, Constant, Moment
from networks.models import Network, NetworkOffering, Nic, ServiceOffering, Template, VirtualMachine


class _From:
    """Lets every field name its source, also where it is called the same: DRF forbids the repetition."""

    def bind(self, field_name: str, parent: serializers.Serializer) -> None:
        if self.source == field_name:
            self.source = None
        super().bind(field_name, parent)


class _Text(_From, serializers.CharField):
    def to_representation(self, value: object) -> str | None:
        return str(value) or None


class _Number(_From, serializers.IntegerField):
    pass


class _Flag(_From, serializers.BooleanField):
    pass


def text(source: str, help_text: str) -> serializers.Field:
    """A text; an empty one is left out."""
    return _Text(source=source, help_text=help_text)


def number(source: str, help_text: str) -> serializers.Field:
    return _Number(source=source, help_text=help_text)


def flag(source: str, help_text: str) -> serializers.Field:
    return _Flag(source=source, help_text=help_text)


def computed(help_text: str) -> serializers.SerializerMethodField:
    return serializers.SerializerMethodField(help_text=help_text)


class ZoneAnswer(Answer):
    id = text("uuid", "the zone's id")
    name = text("name", "the zone's name")
    dns1 = text("dns1", "first DNS server, external")
    dns2 = text("dns2", "second DNS server, external")
    internaldns1 = text("internal_dns1", "first DNS server for hosts")
    networktype = Constant("Advanced", "always Advanced")
    securitygroupsenabled = Constant(False, "always false")
    localstorageenabled = Constant(False, "always false")
    allocationstate = text("allocation_state", "Enabled or Disabled")
    domainid = text("domain.uuid", "the domain that a private zone belongs to")
    domainname = text("domain.name", "the name of that domain")
    tags = Constant([], "always empty")


class HostAnswer(Answer):
    id = text("uuid", "the host's id")
    name = text("name", "the host's name")
    type = Constant("Routing", "always Routing: a host that runs VMs")
    state = text("state", "Up or Down")
    resourcestate = text("resource_state", "Enabled or Disabled")
    hypervisor = text("cluster.hypervisor", "KVM, XenServer or VMware")
    hypervisorversion = text("hypervisor_version", "the hypervisor's version")
    ipaddress = text("endpoint.host", "where the host's endpoint is")
    zoneid = text("cluster.pod.zone.uuid", "the zone's id")
    zonename = text("cluster.pod.zone.name", "the zone's name")
    podid = text("cluster.pod.uuid", "the pod's id")
    podname = text("cluster.pod.name", "the pod's name")
    clusterid = text("cluster.uuid", "the cluster's id")
    clustername = text("cluster.name", "the cluster's name")
    cpunumber = number("cpus", "CPUs")
    cpuspeed = number("mhz", "MHz of each CPU")
    memorytotal = number("memory", "bytes of memory")
    memoryallocated = number("reserved_memory", "bytes of memory promised to VMs")


class ServiceOfferingAnswer(Answer):
    id = text("uuid", "the service offering's id")
    name = text("name", "the service offering's name")
    displaytext = computed("what it offers, in words")
    cpunumber = number("cpus", "CPUs")
    cpuspeed = number("mhz", "MHz of each CPU")
    memory = number("memory_mib", "MiB of memory")
    created = Moment(source="created_at", help_text="when it was made")
    storagetype = Constant("shared", "always shared")
    iscustomized = Constant(False, "always false")
    offerha = Constant(False, "always false")

    def get_displaytext(self, offering: ServiceOffering) -> str:
        return offering.display_text or offering.name


class TemplateAnswer(Answer):
    id = text("uuid", "the template's id")
    name = text("name", "the template's name")
    displaytext = computed("the template in words")
    ispublic = flag("public", "true if every account may use it")
    isready = Constant(True, "always true: its image lies on the hosts already")
    passwordenabled = flag("password_enabled", "true if its guests set the password that the config drive brings")
    drivereader = text("drive_reader", "what in its guests reads the config drive (not in CloudStack)")
    configdrivelabel = text("config_drive_label", "the config drive's label, where it says one (not in CloudStack)")
    configdriverequired = flag("drive_required", "true if no VM starts without its drive (not in CloudStack)")
    format = text("format", "QCOW2, RAW or KERNEL")
    hypervisor = text("hypervisor", "the hypervisor that it is for")
    ostypename = computed("guest operating system")
    oscategoryname = text("os_family", "Linux or Windows")
    size = number("size", "bytes of the ROOT volume, 0 for the image's own")
    zoneid = text("zone.uuid", "the zone that it is in, absent for all zones")
    zonename = text("zone.name", "the name of that zone")
    account = text("account.name", "the account that owns it")
    domain = text("account.domain.name", "that account's domain")
    domainid = text("account.domain.uuid", "the id of that domain")
    created = Moment(source="created_at", help_text="when it was registered")
    templatetype = Constant("USER", "always USER")
    tags = Constant([], "always empty")

    def get_displaytext(self, template: Template) -> str:
        return template.display_text or template.name

    def get_ostypename(self, template: Template) -> str:
        return template.guest_os_type or template.os_family


def _services(offering: NetworkOffering) -> list[dict[str, object]]:
    return [
        {"name": offered.service, "provider": [{"name": offered.provider}], "capability": []}
        for offered in offering.services.all()
    ]


class NetworkOfferingAnswer(Answer):
    id = text("uuid", "the network offering's id")
    name = text("name", "the network offering's name")
    displaytext = text("display_text", "the network offering in words")
    guestiptype = text("guest_type", "Shared or L2")
    state = text("state", "Enabled or Disabled")
    specifyvlan = flag("specify_vlan", "true if a network of it names its VLAN")
    specifyipranges = flag("specify_ip_ranges", "true if a network of it names the external server's range")
    service = computed("its services with their providers; empty where DHCP, DNS and user data are all external")
    traffictype = Constant("Guest", "always Guest")
    availability = Constant("Optional", "always Optional")
    conservemode = Constant(True, "always true")
    forvpc = Constant(False, "always false")
    isdefault = Constant(False, "always false")
    ispersistent = Constant(False, "always false")
    networkrate = Constant(-1, "always -1: not limited")
    serviceofferingid = Constant("", "empty: there is no router")
    tags = Constant("", "always empty")
    created = Moment(source="created_at", help_text="when it was made")

    def get_service(self, offering: NetworkOffering) -> list[dict[str, object]]:
        return _services(offering)


class NetworkAnswer(Answer):
    id = text("uuid", "the network's id")
    name = text("name", "the network's name")
    displaytext = computed("the network in words")
    type = text("offering.guest_type", "Shared or L2")
    state = Constant("Implemented", "always Implemented: nothing of it is made or shut down by us")
    traffictype = Constant("Guest", "always Guest")
    zoneid = text("zone.uuid", "the zone's id")
    zonename = text("zone.name", "the zone's name")
    networkofferingid = text("offering.uuid", "its offering's id")
    networkofferingname = text("offering.name", "its offering's name")
    networkofferingdisplaytext = text("offering.display_text", "its offering in words")
    service = computed("its offering's services")
    vlan = computed("the VLAN, for administrators")
    broadcasturi = computed("the VLAN as a URI, for administrators")
    broadcastdomaintype = Constant("Vlan", "always Vlan")
    cidr = text("cidr", "the external DHCP server's subnet")
    gateway = text("gateway", "the gateway that the DHCP server tells")
    netmask = text("netmask", "the subnet's netmask")
    startip = text("start_ip", "first address of the external server's range; never used to assign")
    endip = text("end_ip", "last address of that range")
    dns1 = text("zone.dns1", "first DNS server, external")
    dns2 = text("zone.dns2", "second DNS server, external")
    networkdomain = text("network_domain", "DNS domain of its guests")
    acltype = text("acl_type", "Account or Domain: who may deploy into it")
    account = text("account.name", "the account that owns it")
    domain = text("domain.name", "the domain that may use it")
    domainid = text("domain.uuid", "that domain's id")
    canusefordeploy = Constant(True, "always true")
    issystem = Constant(False, "always false")
    ispersistent = Constant(False, "always false")
    restartrequired = Constant(False, "always false")
    specifyipranges = flag("offering.specify_ip_ranges", "true if it names the external server's range")
    created = Moment(source="created_at", help_text="when it was made")
    tags = Constant([], "always empty")

    for_root = ("vlan", "broadcasturi")

    def get_displaytext(self, network: Network) -> str:
        return network.display_text or network.name

    def get_service(self, network: Network) -> list[dict[str, object]]:
        return _services(network.offering)

    def get_vlan(self, network: Network) -> str | None:
        return str(network.vlan) if network.vlan else None

    def get_broadcasturi(self, network: Network) -> str | None:
        return f"vlan://{network.vlan}" if network.vlan else None


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
    secondaryip = computed("its other addresses, each with an id of its own")
    extradhcpoption = Constant([], "always empty")
    virtualmachineid = computed("its VM's id")

    for_root = ("broadcasturi", "isolationuri")

    def get_deviceid(self, nic: Nic) -> str:
        return str(nic.device_id)

    def get_broadcasturi(self, nic: Nic) -> str | None:
        return f"vlan://{nic.network.vlan}" if nic.network.vlan else None

    get_isolationuri = get_broadcasturi

    def get_secondaryip(self, nic: Nic) -> list[dict[str, str]]:
        # They have no rows: an id lasts for as long as the NIC has the address.
        return [{"id": str(uuid.uuid5(nic.uuid, address)), "ipaddress": address} for address in nic.secondary_addresses]

    def get_virtualmachineid(self, nic: Nic) -> str:
        return str(nic.vm.uuid)


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
    tags = Constant([], "always empty")
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
