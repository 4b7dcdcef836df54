"""Service offerings, templates and network offerings."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import ListParams, OwnedListParams, OwnerParams
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    CommaList,
    Int,
    Map,
    MapList,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Values,
    visible,
)
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, Command, ListCommand, Success, command
from extdhcp_site.errors import InvalidParameter, NotInThisProduct
from networks.api.answers import NetworkOfferingAnswer, ServiceOfferingAnswer, TemplateAnswer
from networks.api.infrastructure import by_id, matching
from networks.models import DriveReader, GuestType, HypervisorType, NetworkOffering, ServiceOffering, Template, Zone
from networks.models.offerings import OsFamily, TemplateFormat
from networks.services import offerings as services


class ListServiceOfferingsParams(ListParams):
    id = ObjectField("The service offering's id.", visible(ServiceOffering))
    name = Text("The service offering's name.")
    zoneid = ObjectField("Accepted: every service offering is for every zone.", visible(Zone))


@command(since="1.0", roles=EVERYBODY)
class ListServiceOfferings(ListCommand):
    """List the service offerings that a new VM may have."""

    params = ListServiceOfferingsParams
    answer = ("serviceoffering", ServiceOfferingAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[ServiceOffering]:
        offerings = ServiceOffering.objects.visible_to(caller)
        if params["keyword"]:
            offerings = offerings.filter(name__icontains=params["keyword"])
        return offerings.filter(by_id(params) & matching(params, name="name"))


# CloudStack's words for which templates are meant; all but the first two narrow nothing here.
TEMPLATE_FILTERS = ("self", "selfexecutable", "executable", "community", "featured", "sharedexecutable", "all")


class ListTemplatesParams(OwnedListParams):
    templatefilter = Choice("Which templates: self for one's own, else all that may be used.", TEMPLATE_FILTERS)
    id = ObjectField("The template's id.", visible(Template))
    ids = ObjectListField("Several templates' ids.", visible(Template))
    name = Text("The template's name.")
    zoneid = ObjectField("Only templates of this zone.", visible(Zone))
    hypervisor = Choice("Only templates for this hypervisor.", HypervisorType.values)


@command(since="1.0", roles=EVERYBODY)
class ListTemplates(ListCommand):
    """List the templates that the caller may use."""

    params = ListTemplatesParams
    answer = ("template", TemplateAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Template]:
        templates = Template.objects.visible_to(caller).select_related("account__domain", "zone")
        if params["templatefilter"] in ("self", "selfexecutable"):
            templates = templates.filter(account=caller.account)
        if params["keyword"]:
            templates = templates.filter(name__icontains=params["keyword"])
        if params["zoneid"]:
            templates = templates.filter(Q(zone=None) | Q(zone=params["zoneid"]))
        return templates.filter(
            by_id(params) & matching(params, name="name", hypervisor="hypervisor", account="account")
        )


class RegisterTemplateParams(OwnerParams):
    name = Text("The template's name.", required=True, max_length=100)
    displaytext = Text("The template in words.")
    format = Text("QCOW2 or RAW: an image in the primary storage; KERNEL: kernel and initial RAM disk.", required=True)
    hypervisor = Choice("The hypervisor that it is for.", HypervisorType.values, required=True)
    url = Text("The image's name in the primary storage, as in debian-12.qcow2. Nothing is downloaded.")
    zoneid = ObjectField("The zone; absent or -1 for all zones.", visible(Zone), nothing=("", "-1"))
    ispublic = Bool("True if every account may use it. Root admins only.")
    passwordenabled = Bool("True if its guests set the password that the config drive brings.")
    drivereader = Choice(
        "What in its guests reads the config drive, which then gets the label that it looks for (not in CloudStack).",
        DriveReader.values,
    )
    configdrivelabel = Text("The config drive's label; absent: its reader's (not in CloudStack).", max_length=16)
    configdriverequired = Bool("True if its VMs must not start without their config drive (not in CloudStack).")
    osfamily = Choice("Linux or Windows (not in CloudStack).", OsFamily.values)
    guestostype = Text("The operating system in words (not in CloudStack).", max_length=100)
    ostypeid = Text("Accepted and ignored: say osfamily and guestostype.")
    size = Int("Bytes of the ROOT volume; absent: the image's own (not in CloudStack).", most=2**47)
    details = Map("kernel, initrd and commandline for the format KERNEL: paths on the host.")


@command(since="1.0", roles=ROOT_ADMIN)
class RegisterTemplate(Command):
    """Register a template by reference to what lies on the hosts already."""

    params = RegisterTemplateParams
    answer = ("template", TemplateAnswer)

    def run(self, caller: Caller, params: Values) -> Template:
        details = {key.lower(): value for key, value in (params["details"] or {}).items()}
        wanted = params["format"].upper()
        if wanted == "ISO":
            raise NotInThisProduct("VMs made from an ISO are")
        template = Template(
            name=params["name"],
            display_text=params["displaytext"] or params["name"],
            account=params["account"] or caller.account,
            public=bool(params["ispublic"]),
            zone=params["zoneid"],
            hypervisor=params["hypervisor"],
            os_family=params["osfamily"] or OsFamily.LINUX,
            guest_os_type=params["guestostype"] or "",
            password_enabled=bool(params["passwordenabled"]),
            drive_reader=params["drivereader"] or "",
            config_drive_label=params["configdrivelabel"] or "",
            drive_required=bool(params["configdriverequired"]),
            format=wanted,
            size=params["size"] or 0,
            image=params["url"] or "",
        )
        if wanted == TemplateFormat.KERNEL:
            template.image = ""
            template.kernel = details.get("kernel", "")[:255]
            template.initrd = details.get("initrd", "")[:255]
            template.command_line = details.get("commandline", "")[:255]
        return services.register_template(template, caller)


def services_of(pairs: list[Values], names: list[str]) -> dict[str, str]:
    """Services with their providers; one that is named without a provider is refused by the service layer."""
    providers = {pair["service"]: pair["provider"] for pair in pairs}
    return {**dict.fromkeys(names, ""), **providers}


class ServiceProvider(Params):
    service = Text("The service.", required=True)
    provider = Text("Who provides it.", required=True)


class CreateNetworkOfferingParams(Params):
    name = Text("The network offering's name.", required=True, max_length=100)
    displaytext = Text("The network offering in words.", required=True)
    guestiptype = Text("Shared or L2.", required=True)
    traffictype = Text("Guest; there is no other.", required=True)
    supportedservices = CommaList("UserData, or nothing: DHCP and DNS are external.")
    serviceproviderlist = MapList("Who provides each service: ConfigDrive for UserData.", ServiceProvider)
    specifyvlan = Bool("True if a network of it names its VLAN; the default for Shared.")
    specifyipranges = Bool("True if a network of it names the external server's range; the default for Shared.")
    enable = Bool("True to enable it at once; else it begins Disabled.")


@command(since="1.0", roles=ROOT_ADMIN)
class CreateNetworkOffering(Command):
    """Create a network offering. Without services it is for networks whose DHCP and DNS are external."""

    params = CreateNetworkOfferingParams
    answer = ("networkoffering", NetworkOfferingAnswer)

    def run(self, caller: Caller, params: Values) -> NetworkOffering:
        if params["traffictype"].lower() != "guest":
            raise InvalidParameter("traffictype must be Guest.")
        # What a network of this kind needs anyway is not asked for twice.
        is_shared = params["guestiptype"] == GuestType.SHARED
        return services.create_offering(
            name=params["name"],
            display_text=params["displaytext"],
            guest_type=params["guestiptype"],
            services=services_of(params["serviceproviderlist"] or [], params["supportedservices"] or []),
            specify_vlan=is_shared if params["specifyvlan"] is None else params["specifyvlan"],
            specify_ip_ranges=is_shared if params["specifyipranges"] is None else params["specifyipranges"],
            enable=bool(params["enable"]),
            by=caller,
        )


class UpdateNetworkOfferingParams(Params):
    id = ObjectField("The network offering's id.", visible(NetworkOffering), required=True)
    name = Text("A new name.", max_length=100)
    displaytext = Text("New words.")
    state = Choice("Enabled or Disabled.", ("Enabled", "Disabled"))


@command(since="1.0", roles=ROOT_ADMIN)
class UpdateNetworkOffering(Command):
    """Rename, enable or disable a network offering."""

    params = UpdateNetworkOfferingParams
    answer = ("networkoffering", NetworkOfferingAnswer)

    def run(self, caller: Caller, params: Values) -> NetworkOffering:
        return services.update_offering(
            params["id"],
            by=caller,
            name=params["name"] or "",
            display_text=params["displaytext"] or "",
            state=params["state"] or "",
        )


class DeleteNetworkOfferingParams(Params):
    id = ObjectField("The network offering's id.", visible(NetworkOffering), required=True)


@command(since="1.0", roles=ROOT_ADMIN)
class DeleteNetworkOffering(Command):
    """Delete a network offering that no network uses."""

    params = DeleteNetworkOfferingParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        services.delete_offering(params["id"], caller)


class ListNetworkOfferingsParams(ListParams):
    id = ObjectField("The network offering's id.", visible(NetworkOffering))
    name = Text("The network offering's name.")
    displaytext = Text("The network offering's words.")
    guestiptype = Choice("Shared or L2.", ("Shared", "L2", "Isolated"))
    state = Choice("Enabled or Disabled.", ("Enabled", "Disabled"))
    specifyvlan = Bool("Only offerings whose networks name their VLAN.")
    specifyipranges = Bool("Only offerings whose networks name a range.")
    zoneid = ObjectField("Accepted: every network offering is for every zone.", visible(Zone))
    supportedservices = CommaList("Only offerings with all these services.")
    traffictype = Text("Guest; there is no other.")
    forvpc = Bool("True finds nothing: there are no VPCs.")


@command(since="1.0", roles=EVERYBODY)
class ListNetworkOfferings(ListCommand):
    """List the network offerings."""

    params = ListNetworkOfferingsParams
    answer = ("networkoffering", NetworkOfferingAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[NetworkOffering]:
        offerings = NetworkOffering.objects.visible_to(caller).prefetch_related("services")
        if params["forvpc"] or (params["traffictype"] or "guest").lower() != "guest":
            return offerings.none()
        if params["keyword"]:
            offerings = offerings.filter(name__icontains=params["keyword"])
        for service in params["supportedservices"] or []:
            offerings = offerings.filter(services__service=service)
        return offerings.filter(
            by_id(params)
            & matching(
                params,
                name="name",
                displaytext="display_text",
                guestiptype="guest_type",
                state="state",
                specifyvlan="specify_vlan",
                specifyipranges="specify_ip_ranges",
            )
        )
