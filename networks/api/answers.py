"""How the cloud's objects are shown: CloudStack's field names, each with what it means."""

from extdhcp_site.api.answers import Answer, Constant, Moment
from networks import os_types
from networks.api.fields import computed, flag, number, text
from networks.api.tag_answers import OwnTagAnswer
from networks.models import Network, OfferedService, PrimaryStorage, ServiceOffering, Template


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


class PodAnswer(Answer):
    id = text("uuid", "the pod's id")
    name = text("name", "the pod's name")
    zoneid = text("zone.uuid", "the zone's id")
    zonename = text("zone.name", "the zone's name")
    allocationstate = Constant("Enabled", "always Enabled: zones and hosts are switched off, not pods")


class ClusterAnswer(Answer):
    id = text("uuid", "the cluster's id")
    name = text("name", "the cluster's name")
    hypervisortype = text("hypervisor", "KVM, XenServer or VMware")
    clustertype = Constant("CloudManaged", "always CloudManaged")
    zoneid = text("pod.zone.uuid", "the zone's id")
    zonename = text("pod.zone.name", "the zone's name")
    podid = text("pod.uuid", "the pod's id")
    podname = text("pod.name", "the pod's name")
    allocationstate = Constant("Enabled", "always Enabled: zones and hosts are switched off, not clusters")
    managedstate = Constant("Managed", "always Managed")


class StoragePoolAnswer(Answer):
    id = text("uuid", "the storage pool's id")
    name = text("name", "the storage pool's name, on KVM that of the libvirt pool")
    scope = computed("CLUSTER if all hosts see the same files, HOST if each has its own")
    state = Constant("Up", "always Up")
    hypervisor = text("cluster.hypervisor", "KVM, XenServer or VMware")
    zoneid = text("cluster.pod.zone.uuid", "the zone's id")
    zonename = text("cluster.pod.zone.name", "the zone's name")
    podid = text("cluster.pod.uuid", "the pod's id")
    podname = text("cluster.pod.name", "the pod's name")
    clusterid = text("cluster.uuid", "the cluster's id")
    clustername = text("cluster.name", "the cluster's name")
    tags = Constant("", "always empty: there are no storage tags")

    def get_scope(self, pool: PrimaryStorage) -> str:
        return "CLUSTER" if pool.shared else "HOST"


class HypervisorAnswer(Answer):
    name = computed("KVM, XenServer or VMware")

    def get_name(self, hypervisor: str) -> str:
        return hypervisor


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
    provisioningtype = Constant("thin", "always thin")
    iscustomized = Constant(False, "always false: it says its CPUs and memory")
    issystem = Constant(False, "always false: there are no system VMs")
    isvolatile = Constant(False, "always false: a ROOT volume outlives a reboot")
    defaultuse = Constant(False, "always false")
    limitcpuuse = Constant(False, "always false")
    offerha = Constant(False, "always false")

    def get_displaytext(self, offering: ServiceOffering) -> str:
        return offering.display_text or offering.name


class TemplateAnswer(Answer):
    id = text("uuid", "the template's id")
    name = text("name", "the template's name")
    displaytext = computed("the template in words")
    ispublic = flag("public", "true if every account may use it")
    isfeatured = flag("public", "as ispublic")
    isready = Constant(True, "always true: its image lies on the hosts already")
    status = Constant("Download Complete", "always Download Complete")
    isextractable = Constant(False, "always false")
    crosszones = computed("true if it is in all zones")
    passwordenabled = flag("password_enabled", "true if its guests set the password that the config drive brings")
    drivereader = text("drive_reader", "what in its guests reads the config drive (not in CloudStack)")
    configdrivelabel = text("config_drive_label", "the config drive's label, where it says one (not in CloudStack)")
    configdriverequired = flag("drive_required", "true if no VM starts without its drive (not in CloudStack)")
    format = text("format", "QCOW2, RAW or KERNEL")
    hypervisor = text("hypervisor", "the hypervisor that it is for")
    ostypeid = computed("the id of its operating system, if that is in listOsTypes")
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
    tags = OwnTagAnswer(many=True, help_text="its tags")

    def get_displaytext(self, template: Template) -> str:
        return template.display_text or template.name

    def get_crosszones(self, template: Template) -> bool:
        return template.zone_id is None

    def get_ostypeid(self, template: Template) -> str | None:
        known = os_types.by_name(template.guest_os_type)
        return str(known.uuid) if known else None

    def get_ostypename(self, template: Template) -> str:
        return template.guest_os_type or template.os_family


class ProviderAnswer(Answer):
    name = text("provider", "the provider: ConfigDrive")


class ServiceAnswer(Answer):
    name = text("service", "the service: UserData, Dhcp or Dns")
    provider = computed("its one provider", entries=ProviderAnswer)
    capability = Constant([], "always empty")

    def get_provider(self, offered: OfferedService) -> list[dict[str, str]]:
        return [ProviderAnswer(context=self.context).to_representation(offered)]


class NetworkOfferingAnswer(Answer):
    id = text("uuid", "the network offering's id")
    name = text("name", "the network offering's name")
    displaytext = text("display_text", "the network offering in words")
    guestiptype = text("guest_type", "Shared or L2")
    state = text("state", "Enabled or Disabled")
    specifyvlan = flag("specify_vlan", "true if a network of it names its VLAN")
    specifyipranges = flag("specify_ip_ranges", "true if a network of it names the external server's range")
    service = ServiceAnswer(
        source="services", many=True, help_text="its services; empty where DHCP, DNS and user data are all external"
    )
    traffictype = Constant("Guest", "always Guest")
    availability = Constant("Optional", "always Optional")
    conservemode = Constant(True, "always true")
    forvpc = Constant(False, "always false")
    isdefault = Constant(False, "always false")
    ispersistent = Constant(False, "always false")
    maxconnections = number("max_connections", "what was asked for; there is no load balancer to limit")
    networkrate = Constant(-1, "always -1: not limited")
    serviceofferingid = Constant("", "empty: there is no router")
    tags = Constant("", "always empty")
    created = Moment(source="created_at", help_text="when it was made")


class NetworkAnswer(Answer):
    id = text("uuid", "the network's id")
    name = text("name", "the network's name")
    displaytext = computed("the network in words")
    type = text("offering.guest_type", "Shared or L2")
    state = Constant("Implemented", "always Implemented: nothing of it is made or shut down by us")
    traffictype = Constant("Guest", "always Guest")
    isdefault = flag("is_default", "true if it may be a VM's default network")
    zoneid = text("zone.uuid", "the zone's id")
    zonename = text("zone.name", "the zone's name")
    networkofferingid = text("offering.uuid", "its offering's id")
    networkofferingname = text("offering.name", "its offering's name")
    networkofferingdisplaytext = text("offering.display_text", "its offering in words")
    networkofferingavailability = Constant("Optional", "always Optional")
    networkofferingconservemode = Constant(True, "always true")
    service = ServiceAnswer(source="offering.services", many=True, help_text="its offering's services")
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
    subdomainaccess = Constant(True, "always true: a domain's network is also for the domains below it")
    account = text("account.name", "the account that owns it")
    domain = text("domain.name", "the domain that may use it")
    domainid = text("domain.uuid", "that domain's id")
    canusefordeploy = Constant(True, "always true")
    displaynetwork = Constant(True, "always true")
    issystem = Constant(False, "always false")
    ispersistent = Constant(False, "always false")
    restartrequired = Constant(False, "always false")
    redundantrouter = Constant(False, "always false: there is no router")
    specifyipranges = flag("offering.specify_ip_ranges", "true if it names the external server's range")
    specifyvlan = flag("offering.specify_vlan", "true if it names its VLAN")
    created = Moment(source="created_at", help_text="when it was made")
    tags = OwnTagAnswer(many=True, help_text="its tags")

    for_root = ("vlan", "broadcasturi")

    def get_displaytext(self, network: Network) -> str:
        return network.display_text or network.name

    def get_vlan(self, network: Network) -> str | None:
        return str(network.vlan) if network.vlan else None

    def get_broadcasturi(self, network: Network) -> str | None:
        return f"vlan://{network.vlan}" if network.vlan else None
