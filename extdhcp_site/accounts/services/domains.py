"""Domains: a tree by whose paths accounts are kept apart."""

import re
from uuid import UUID

from django.db import transaction

from extdhcp_site.accounts.models import Account, Caller, Domain
from extdhcp_site.accounts.services.removal import belongings, refuse_if_removed
from extdhcp_site.errors import InvalidParameter, ResourceInUse
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken

LONGEST_PATH = Domain._meta.get_field("path").max_length
# RFC 1123, section 2.1: labels of letters, digits and inner hyphens.
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
# RFC 1035, section 2.3.4: 255 bytes on the wire.
_LONGEST_DNS_NAME = 253


def create(name: str, parent: Domain, network_domain: str, by: Caller) -> Domain:
    """Raises InvalidParameter for a name that is taken or cannot be a step of a path."""
    name = name.strip()
    if not name or "/" in name:
        raise InvalidParameter("A domain's name must not be empty or contain a slash: its path is made of the names.")
    if len(f"{parent.path}{name}/") > LONGEST_PATH:
        raise InvalidParameter(f"Too deep in the tree: the path would be longer than {LONGEST_PATH} characters.")
    check_network_domain(network_domain)
    domain = Domain(name=name, parent=parent, network_domain=network_domain)
    with transaction.atomic():
        with unless_taken(InvalidParameter(f"{parent} has a domain of this name already.")):
            domain.save()
        refuse_if_removed(parent)
        events.record(EventType.DOMAIN_CREATE, f"Domain {domain} created", account=by.account, on=domain, by=by)
    return domain


def update(domain: Domain, name: str | None, network_domain: str | None, by: Caller) -> Domain:
    """Raises InvalidParameter for another name than it has."""
    if name not in (None, domain.name):
        raise InvalidParameter(
            "A domain is never renamed here: what is below it goes by its path. Make a domain of the new name."
        )
    if network_domain is not None:
        check_network_domain(network_domain)
        with transaction.atomic():
            Domain.objects.filter(pk=domain.pk).update(network_domain=network_domain)
            refuse_if_removed(domain)
            events.record(EventType.DOMAIN_UPDATE, f"Domain {domain} updated", account=by.account, on=domain, by=by)
        domain.network_domain = network_domain
    return domain


def check_network_domain(name: str) -> None:
    """Raises InvalidParameter for what is neither empty nor a DNS name."""
    if name and not (len(name) <= _LONGEST_DNS_NAME and _DNS_NAME.fullmatch(name)):
        raise InvalidParameter("networkdomain must be a DNS domain such as example.com.")


def delete(domain: Domain, by: Caller) -> AsyncJob:
    """Submit the job. Raises ResourceInUse while something is in the domain."""
    if domain.parent_id is None:
        raise InvalidParameter("ROOT cannot be deleted.")
    _refuse_if_in_use(domain)
    with transaction.atomic():
        return jobs.submit("deleteDomain", domain, account=by.account, by=by)


@jobs.handler("deleteDomain", EventType.DOMAIN_DELETE)
def _delete(job: AsyncJob) -> None:
    with transaction.atomic():
        # Out of the tree first: whoever comes to use it meanwhile waits for this row, and is seen below.
        gone = Domain.objects.filter(uuid=job.instance_uuid).update(path=_path_of_the_removed(job.instance_uuid))
        if gone:
            _refuse_if_in_use(Domain.objects.get(uuid=job.instance_uuid))


def _path_of_the_removed(uuid: UUID) -> str:
    """Outside every domain's path: a domain made anew under the same name has none of its history."""
    return f"removed-{uuid}/"


def _refuse_if_in_use(domain: Domain) -> None:
    children = Domain.objects.live().filter(parent=domain).count()
    accounts = Account.objects.live().filter(domain=domain).count()
    rest = belongings(domain, besides=(Domain, Account))
    found = [
        *([f"{children} domain{'s' if children > 1 else ''}"] if children else []),
        *([f"{accounts} account{'s' if accounts > 1 else ''}"] if accounts else []),
        *([rest] if rest else []),
    ]
    if found:
        raise ResourceInUse(f"Domain {domain.name} still has {', '.join(found)}. Delete these first.")
