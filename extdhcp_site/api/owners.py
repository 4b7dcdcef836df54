"""Whose things a request is about: `account`, `domainid`, `projectid`, `listall`, `isrecursive`."""

from django.db.models import Q, QuerySet

from extdhcp_site.accounts.models import Account, Caller, Domain
from extdhcp_site.api.parameters import Bool, Int, ObjectField, Params, Text, Values
from extdhcp_site.configuration.models import PAGE_SIZE
from extdhcp_site.errors import InvalidParameter, NotInThisProduct
from extdhcp_site.models import called


def domains_of(caller: Caller) -> QuerySet[Domain]:
    return Domain.objects.visible_to(caller)


def accounts_of(caller: Caller) -> QuerySet[Account]:
    """The accounts whose things the caller may see and act on."""
    return Account.objects.visible_to(caller).select_related("domain")


class OwnerParams(Params):
    """Mixed into a command that acts for an owner: `params["account"]` is the Account, None if not given."""

    account = Text("The owning account's name; with domainid when it is of another domain.")
    domainid = ObjectField("The owning account's domain.", domains_of)
    projectid = Text("Projects are not in this product; -1 is accepted and means all.")

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if values.pop("projectid", "-1") != "-1":
            raise NotInThisProduct("Projects are")
        if "account" in values:
            values["account"] = self._account(values["account"], values.get("domainid"))
        return values

    def _account(self, name: str, domain: Domain | None) -> Account:
        domain = domain or self.caller.account.domain
        account = called(name, accounts_of(self.caller).filter(domain=domain))
        if account is None:
            raise InvalidParameter(f"Unable to find account {name} in domain {domain.uuid}.")
        return account


class ListParams(Params):
    """What every list takes."""

    keyword = Text("Shows only what contains this text.")
    page = Int("The page, from 1; goes with pagesize.", least=1)
    pagesize = Int("Rows in a page, at most default.page.size; goes with page. -1: as many as allowed.", least=-1)

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        page, size = values.get("page"), values.get("pagesize")
        if size == -1 and page is None:
            del values["pagesize"]
            return values
        if (page is None) != (size is None):
            raise InvalidParameter("page and pagesize must be given together.")
        if size is not None and not 1 <= size <= PAGE_SIZE.get():
            raise InvalidParameter(f"pagesize must be from 1 to {PAGE_SIZE.get()} (default.page.size).")
        return values


class OwnedListParams(OwnerParams, ListParams):
    """What a list of things takes that belong to accounts."""

    listall = Bool("Administrators: everybody's, not only what is your account's own.")
    isrecursive = Bool("With domainid: also the domains below it.")


def ownership(caller: Caller, params: Values, account: str = "account") -> Q:
    """Which owners' rows a list shows, out of those that `visible_to(caller)` leaves.

    `account` is the way from a row to its account, as in "vm__account". As in CloudStack, an
    administrator who names neither an owner nor an object sees others' things only with listall.
    """
    domain = params["domainid"]
    if params["account"]:
        return Q(**{account: params["account"]})
    if domain and params["isrecursive"]:
        return Q(**{f"{account}__domain__path__startswith": domain.path})
    if domain:
        return Q(**{f"{account}__domain": domain})
    if params["listall"] or params.get("id") or params.get("ids"):
        return Q()
    return Q(**{account: caller.account})
