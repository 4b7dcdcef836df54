"""Templates."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, ownership
from extdhcp_site.api.parameters import (
    Bool,
    Choice,
    Int,
    Map,
    ObjectField,
    ObjectListField,
    Params,
    Text,
    Uuid,
    Values,
    visible,
)
from extdhcp_site.api.registry import EVERYBODY, ROOT_ADMIN, AsyncCommand, Command, ListCommand, Success, command
from extdhcp_site.errors import InvalidParameter, NotInThisProduct
from extdhcp_site.jobs.models import AsyncJob
from networks import os_types
from networks.api.answers import TemplateAnswer
from networks.api.infrastructure import by_id, containing, given, is_constant, matching
from networks.api.tag_answers import tagged, tags_filter
from networks.models import DriveReader, HypervisorType, Template, Zone
from networks.models.offerings import OsFamily, TemplateFormat
from networks.services import templates as services

TEMPLATE = ("template", TemplateAnswer)
# CloudStack's words for which templates are meant.
TEMPLATE_FILTERS = ("self", "selfexecutable", "executable", "community", "featured", "sharedexecutable", "all")


class ListTemplatesParams(OwnedListParams):
    templatefilter = Choice(
        "self, selfexecutable: one's own; featured, community: public ones; sharedexecutable: none; "
        "executable, all: all that may be used.",
        TEMPLATE_FILTERS,
    )
    id = ObjectField("The template's id.", visible(Template))
    ids = ObjectListField("Several templates' ids.", visible(Template))
    name = Text("The template's name.")
    zoneid = ObjectField("Only templates of this zone.", visible(Zone))
    hypervisor = Choice("Only templates for this hypervisor.", HypervisorType.values)
    isready = Bool("False finds nothing: their images lie on the hosts already.")
    tags = tags_filter()


@command(since="1.0", roles=EVERYBODY)
class ListTemplates(ListCommand):
    """List the templates that the caller may use."""

    params = ListTemplatesParams
    answer = TEMPLATE

    def rows(self, caller: Caller, params: Values) -> QuerySet[Template]:
        templates = Template.objects.visible_to(caller).filter(_meant(caller, params))
        if not is_constant(params, isready=True):
            return templates.none()
        if params["zoneid"]:
            templates = templates.filter(Q(zone=None) | Q(zone=params["zoneid"]))
        asked = matching(params, name="name", hypervisor="hypervisor")
        found = templates.filter(by_id(params) & containing(params, "name", "display_text") & asked)
        return tagged(found, params).for_listing()


def _meant(caller: Caller, params: Values) -> Q:
    """What `templatefilter` means, for the owner that is named, else the caller."""
    names_owner = params["account"] or params["domainid"]
    own = ownership(caller, params) if names_owner else Q(account=caller.account)
    match params["templatefilter"]:
        case "self" | "selfexecutable":
            return own
        case "featured" | "community":
            return Q(public=True)
        case "sharedexecutable":
            return Q(pk__in=[])
        case _:
            return Q(public=True) | own if names_owner else Q()


class GuestParams(Params):
    """Mixed into what registers or changes a template: what is said of its guests."""

    passwordenabled = Bool("True if its guests set the password that the config drive brings.")
    drivereader = Choice(
        "What in its guests reads the config drive, which then gets the label that it looks for (not in CloudStack).",
        DriveReader.values,
    )
    configdrivelabel = Text("The config drive's label; absent: its reader's (not in CloudStack).", max_length=16)
    configdriverequired = Bool("True if its VMs must not start without their config drive (not in CloudStack).")
    ostypeid = Uuid("The guest operating system: see listOsTypes.")
    osfamily = Choice("Linux or Windows; absent: the operating system's (not in CloudStack).", OsFamily.values)
    guestostype = Text("The operating system in words that are not in listOsTypes (not in CloudStack).", max_length=100)

    def validate(self, values: Values) -> Values:
        """`ostypeid` becomes `osfamily` and `guestostype`, where these are not given."""
        values = super().validate(values)
        if id := values.pop("ostypeid", None):
            os_type = os_types.by_id(id)
            if os_type is None:
                raise InvalidParameter(f"Unable to find the guest operating system {id}. See listOsTypes.")
            return {"osfamily": os_type.category.family, "guestostype": os_type.description, **values}
        return values


def of_guest(params: Values) -> Values:
    """What is said of a template's guests, by column; what is not said is left out."""
    return given(
        params,
        passwordenabled="password_enabled",
        drivereader="drive_reader",
        configdrivelabel="config_drive_label",
        configdriverequired="drive_required",
        osfamily="os_family",
        guestostype="guest_os_type",
    )


class RegisterTemplateParams(GuestParams, OwnerParams):
    name = Text("The template's name.", required=True, max_length=100)
    displaytext = Text("The template in words.")
    format = Text(
        "QCOW2 or RAW: an image in the primary storage; KERNEL: kernel and initial RAM disk; VHD and OVA: a template "
        "of XenServer or vSphere.",
        required=True,
    )
    hypervisor = Choice("The hypervisor that it is for.", HypervisorType.values, required=True)
    url = Text(
        "The image's name in the primary storage, as in debian-12.qcow2, or the template's name there. Nothing is "
        "downloaded."
    )
    zoneid = ObjectField("The zone; absent or -1 for all zones.", visible(Zone), nothing=("", "-1"))
    ispublic = Bool("True if every account may use it.")
    size = Int("Bytes of the ROOT volume; absent: the image's own (not in CloudStack).", most=2**47)
    details = Map("kernel, initrd and commandline for the format KERNEL: paths on the host.")


@command(since="1.0", roles=ROOT_ADMIN)
class RegisterTemplate(Command):
    """Register a template by reference to what lies on the hosts already."""

    params = RegisterTemplateParams
    answer = TEMPLATE

    def respond(self, caller: Caller, params: Values) -> Values:
        # A list, as in CloudStack, where one registration may show a row a zone: Terraform and Ansible take its first.
        return {"count": 1, **self.show([self.run(caller, params)], caller, many=True)}

    def run(self, caller: Caller, params: Values) -> Template:
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
            format=wanted,
            size=params["size"] or 0,
            image=params["url"] or "",
            **of_guest(params),
        )
        if wanted == TemplateFormat.KERNEL:
            details = {key.lower(): value[:255] for key, value in (params["details"] or {}).items()}
            template.image = ""
            template.kernel = details.get("kernel", "")
            template.initrd = details.get("initrd", "")
            template.command_line = details.get("commandline", "")
        return services.register_template(template, caller)


class UpdateTemplateParams(GuestParams):
    id = ObjectField("The template's id.", visible(Template), required=True)
    name = Text("A new name.", max_length=100)
    displaytext = Text("New words.")
    ispublic = Bool("Whether every account may use it (in CloudStack a command of its own).")


@command(since="1.1", roles=ROOT_ADMIN)
class UpdateTemplate(Command):
    """Change a template's names, who may use it, and what is said of its guests."""

    params = UpdateTemplateParams
    answer = TEMPLATE

    def run(self, caller: Caller, params: Values) -> Template:
        names = given(params, name="name", displaytext="display_text", ispublic="public")
        return services.update_template(params["id"], caller, **names, **of_guest(params))


class DeleteTemplateParams(Params):
    id = ObjectField("The template's id.", visible(Template), required=True)
    forced = Bool("Accepted: a template that VMs are of is never deleted.")


@command(since="1.1", roles=ROOT_ADMIN)
class DeleteTemplate(AsyncCommand):
    """Delete a template that no VM is of. What it refers to stays on the hosts."""

    params = DeleteTemplateParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.delete_template(params["id"], caller)
