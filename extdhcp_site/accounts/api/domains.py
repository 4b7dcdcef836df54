"""Domains."""

from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet
from rest_framework import serializers

from extdhcp_site.accounts.models import Caller, Domain
from extdhcp_site.accounts.services import domains as services
from extdhcp_site.api.answers import Answer, Constant, IdField, Success
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Bool, Int, ObjectField, Params, Text, Values, visible
from extdhcp_site.api.registry import ADMINS, EVERYBODY, AsyncCommand, Command, ListCommand, command
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob


class DomainAnswer(Answer):
    id = IdField("The domain.")
    name = serializers.CharField(help_text="Its name, the last step of its path.")
    path = serializers.CharField(source="__str__", help_text="The way to it from ROOT.")
    level = serializers.SerializerMethodField(help_text="How many steps that is; 0 for ROOT.")
    parentdomainid = IdField("The domain above it.", source="parent.uuid")
    parentdomainname = serializers.CharField(source="parent.name", help_text="That domain's name.")
    haschild = serializers.BooleanField(source="has_child", help_text="Whether there are domains below it.")
    networkdomain = serializers.SerializerMethodField(help_text="The DNS suffix that its networks are said to have.")
    state = Constant("Active", "Always Active.")

    def get_level(self, domain: Domain) -> int:
        return domain.path.count("/") - 1

    def get_networkdomain(self, domain: Domain) -> str | None:
        return domain.network_domain or None


def shown(domains: QuerySet[Domain]) -> QuerySet[Domain]:
    below = Domain.objects.live().filter(parent=OuterRef("pk"))
    return domains.select_related("parent").annotate(has_child=Exists(below))


def _shown_one(domain: Domain) -> Domain:
    return shown(Domain.objects.filter(pk=domain.pk)).get()


@jobs.renders("Domain")
def _result(uuid: str, caller: Caller) -> dict[str, Any] | None:
    domain = shown(Domain.objects.visible_to(caller).filter(uuid=uuid)).first()
    return {"domain": DomainAnswer(context={"caller": caller}).to_representation(domain)} if domain else None


def _matching(params: Values) -> Q:
    asked = Q(name=params["name"]) if params["name"] else Q()
    if params["keyword"]:
        asked &= Q(name__icontains=params["keyword"])
    return asked


class ListDomainsParams(ListParams):
    id = ObjectField("Shows this domain only.", visible(Domain))
    name = Text("Shows domains of this name only.")
    level = Int("Shows only those so many steps below ROOT.")
    listall = Bool("All that you may see, not only your own.")


@command(since="1.1", roles=EVERYBODY)
class ListDomains(ListCommand):
    """List domains."""

    params = ListDomainsParams
    answer = ("domain", DomainAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Domain]:
        domains = Domain.objects.visible_to(caller).filter(_matching(params))
        if params["id"]:
            domains = domains.filter(pk=params["id"].pk)
        elif not (params["listall"] or params["name"]):
            domains = domains.filter(pk=caller.account.domain_id)
        if params["level"] is not None:
            domains = domains.filter(path__regex=f"^([^/]+/){{{min(params['level'], 255) + 1}}}$")
        return shown(domains)


class ListDomainChildrenParams(ListParams):
    id = ObjectField("The domain whose children are shown; your own if not given.", visible(Domain))
    name = Text("Shows domains of this name only.")
    isrecursive = Bool("Also the children's children, and so on.")
    listall = Bool("Accepted; all that you may see is shown anyway.")


@command(since="1.1", roles=ADMINS)
class ListDomainChildren(ListCommand):
    """List the domains below a domain."""

    params = ListDomainChildrenParams
    answer = ("domain", DomainAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Domain]:
        above = params["id"] or caller.account.domain
        below = Domain.objects.visible_to(caller).filter(_matching(params)).exclude(pk=above.pk)
        within = Q(path__startswith=above.path) if params["isrecursive"] else Q(parent=above)
        return shown(below.filter(within))


class CreateDomainParams(Params):
    name = Text("The domain's name, a step of its path: without a slash.", required=True, max_length=100)
    parentdomainid = ObjectField("The domain above it; your own if not given.", visible(Domain))
    networkdomain = Text("The DNS suffix that its networks are said to have.")


@command(since="1.1", roles=ADMINS)
class CreateDomain(Command):
    """Make a domain."""

    params = CreateDomainParams
    answer = ("domain", DomainAnswer)

    def run(self, caller: Caller, params: Values) -> Domain:
        parent = params["parentdomainid"] or caller.account.domain
        return _shown_one(services.create(params["name"], parent, params["networkdomain"] or "", caller))


class UpdateDomainParams(Params):
    id = ObjectField("The domain.", visible(Domain), required=True)
    name = Text("Its name. It cannot be another than it is: a domain is never renamed.", max_length=100)
    networkdomain = Text("The DNS suffix that its networks are said to have.")


@command(since="1.1", roles=ADMINS)
class UpdateDomain(Command):
    """Change a domain's DNS suffix. Its name stays: what is below it goes by its path."""

    params = UpdateDomainParams
    answer = ("domain", DomainAnswer)

    def run(self, caller: Caller, params: Values) -> Domain:
        return _shown_one(services.update(params["id"], params["name"], params["networkdomain"], caller))


class DeleteDomainParams(Params):
    id = ObjectField("The domain. It has no domains, accounts or networks any more.", visible(Domain), required=True)


@command(since="1.1", roles=ADMINS)
class DeleteDomain(AsyncCommand):
    """Delete a domain in which nothing is any more."""

    params = DeleteDomainParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.delete(params["id"], caller)
