"""Templates: registered by reference to what lies on the hosts already, changed, deleted."""

from django.db import transaction
from django.db.models import ProtectedError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.accounts.services.removal import refuse_if_removed
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import HypervisorType, Template
from networks.models.offerings import OsFamily, TemplateFormat
from networks.services.offerings import refuse_if_used
from networks.volume_label import InvalidLabel, check_label


def register_template(template: Template, by: Caller) -> Template:
    """Paths and names are checked: they end up in guests' definitions. Raises InvalidParameter."""
    if template.format not in TemplateFormat.values:
        raise InvalidParameter(
            f"format must be one of {', '.join(TemplateFormat.values)}. (VMs made from an ISO are not in this product.)"
        )
    of = TemplateFormat(template.format).hypervisor
    if template.hypervisor != of:
        raise InvalidParameter(f"Templates of the format {template.format} are for {of}, not {template.hypervisor}.")
    _check_guest(template)
    if template.format == TemplateFormat.KERNEL:
        for what, path in (("kernel", template.kernel), ("initrd", template.initrd)):
            if not path.startswith("/") or ".." in path.split("/") or not path.isascii() or not path.isprintable():
                raise InvalidParameter(f"{what} must be an absolute path on the host, without '..'.")
    elif of != HypervisorType.KVM:
        if not template.image or not template.image.isprintable():
            raise InvalidParameter(f"url must name a template of {of}, as it stands there.")
    elif not template.image or "/" in template.image or not template.image.isascii() or template.image.startswith("."):
        raise InvalidParameter("url must name an image in the primary storage, without a path, as in debian-12.qcow2.")
    with transaction.atomic():
        template.save()
        refuse_if_removed(template.account)
        _record(EventType.TEMPLATE_CREATE, f"Template {template} registered", template, by)
    return template


def update_template(template: Template, by: Caller, **columns: object) -> Template:
    """Change what is said of a template, not what it boots. Raises InvalidParameter."""
    for name, value in columns.items():
        setattr(template, name, value)
    _check_guest(template)
    with transaction.atomic():
        template.save(update_fields=list(columns))
        _record(EventType.TEMPLATE_UPDATE, f"Template {template} changed", template, by)
    return template


def delete_template(template: Template, by: Caller) -> AsyncJob:
    """Forget a template; what it refers to stays on the hosts. Raises ResourceInUse while a VM is of it."""
    _refuse_if_used(template)
    with transaction.atomic():
        return jobs.submit("deleteTemplate", template, account=template.account, by=by)


@jobs.handler("deleteTemplate", EventType.TEMPLATE_DELETE)
def _delete(job: AsyncJob) -> None:
    template = Template.objects.filter(uuid=job.instance_uuid).first()
    if template is None:
        return  # a former attempt came to its end
    try:
        with transaction.atomic():
            template.delete()
    except ProtectedError:
        _refuse_if_used(template)
        raise


def _refuse_if_used(template: Template) -> None:
    refuse_if_used(f"Template {template}", template.virtual_machines.count(), "VMs")


def _check_guest(template: Template) -> None:
    if template.os_family not in OsFamily.values:
        raise InvalidParameter(f"OS family must be {' or '.join(OsFamily.values)}.")
    if template.config_drive_label:
        try:
            check_label(template.config_drive_label)
        except InvalidLabel as error:
            raise InvalidParameter(str(error)) from None


def _record(type: EventType, text: str, template: Template, by: Caller) -> None:
    events.record(type, text, account=template.account, on=template, by=by)
