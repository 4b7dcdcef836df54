"""Accounts."""

from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from rest_framework import serializers

from extdhcp_site.accounts.api.users import ROLE_NAMES, ROLE_TYPES, NewUserParams, UserAnswer, new_user
from extdhcp_site.accounts.models import Account, Caller, Domain, Role, User
from extdhcp_site.accounts.services import accounts as services
from extdhcp_site.accounts.services.accounts import NewAccount
from extdhcp_site.api.answers import Answer, Constant, IdField, Success
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Bool, Choice, Int, ObjectField, Params, QuerySetFor, Text, Values, visible
from extdhcp_site.api.registry import ADMINS, EVERYBODY, AsyncCommand, Command, ListCommand, command
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.models import called

LONGEST_NAME = 100
STATES = [Account.State.ENABLED, Account.State.DISABLED, Account.State.LOCKED]


def within_reach() -> QuerySetFor:
    """Those that the caller may change."""
    return lambda caller: Account.objects.within_reach_of(caller).select_related("domain")


class AccountAnswer(Answer):
    id = IdField("The account.")
    name = serializers.CharField(help_text="Its name, unique in its domain.")
    accounttype = serializers.IntegerField(source="role", help_text="0 user, 1 root admin, 2 domain admin.")
    roletype = serializers.SerializerMethodField(help_text="User, Admin or DomainAdmin.")
    rolename = serializers.SerializerMethodField(help_text="The same in words.")
    state = serializers.CharField(help_text="enabled, disabled or locked.")
    domain = serializers.CharField(source="domain.name", help_text="The domain's name.")
    domainid = IdField("The domain that it is in.", source="domain.uuid")
    domainpath = serializers.CharField(source="domain.__str__", help_text="The way to the domain from ROOT.")
    isdefault = Constant(False, "False: there are no built-in accounts.")
    user = UserAnswer(source="people", many=True, help_text="Its users.")

    def get_roletype(self, account: Account) -> str:
        return ROLE_TYPES[Role(account.role)]

    def get_rolename(self, account: Account) -> str:
        return ROLE_NAMES[Role(account.role)]


def shown(accounts: QuerySet[Account]) -> QuerySet[Account]:
    people = User.objects.live().select_related("account__domain")
    return accounts.select_related("domain").prefetch_related(Prefetch("users", people, to_attr="people"))


def _shown_one(account: Account) -> Account:
    return shown(Account.objects.filter(pk=account.pk)).get()


@jobs.renders("Account")
def _result(uuid: str, caller: Caller) -> dict[str, Any] | None:
    account = shown(Account.objects.visible_to(caller).filter(uuid=uuid)).first()
    return {"account": AccountAnswer(context={"caller": caller}).to_representation(account)} if account else None


class ListAccountsParams(ListParams):
    id = ObjectField("Shows this account only.", visible(Account))
    name = Text("Shows accounts of this name only.")
    domainid = ObjectField("Shows only accounts in this domain.", visible(Domain))
    isrecursive = Bool("With domainid: also in the domains below it.")
    listall = Bool("All that you may see, not only your own.")
    accounttype = Int("Shows only accounts of this type: 0 user, 1 root admin, 2 domain admin.", most=2)
    state = Choice("Shows only accounts in this state.", STATES)


@command(since="1.1", roles=EVERYBODY)
class ListAccounts(ListCommand):
    """List accounts with their users."""

    params = ListAccountsParams
    answer = ("account", AccountAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[Account]:
        return shown(Account.objects.visible_to(caller).filter(_within(caller, params), _asked_for(params)))


def _within(caller: Caller, params: Values) -> Q:
    domain = params["domainid"]
    if domain:
        return Q(domain__path__startswith=domain.path) if params["isrecursive"] else Q(domain=domain)
    if params["listall"] or params["id"] or params["name"]:
        return Q()
    return Q(pk=caller.account.pk)


def _asked_for(params: Values) -> Q:
    exact = {
        "pk": params["id"] and params["id"].pk,
        "name": params["name"],
        "role": params["accounttype"],
        "state": params["state"],
    }
    asked = Q(**{column: value for column, value in exact.items() if value is not None})
    return asked & Q(name__icontains=params["keyword"]) if params["keyword"] else asked


class CreateAccountParams(NewUserParams):
    account = Text("The account's name; the user's, if not given.", max_length=LONGEST_NAME)
    accounttype = Int("0 user (if not given), 1 root admin, 2 domain admin.", most=2)
    domainid = ObjectField("The domain that it is to be in; your own if not given.", visible(Domain))


@command(since="1.1", roles=ADMINS)
class CreateAccount(Command):
    """Make an account with its first user."""

    params = CreateAccountParams
    answer = ("account", AccountAnswer)

    def run(self, caller: Caller, params: Values) -> Account:
        new = NewAccount(
            name=params["account"] or params["username"],
            domain=params["domainid"] or caller.account.domain,
            role=Role(params["accounttype"] or Role.USER),
        )
        return _shown_one(services.create(new, new_user(params), caller))


class AccountParams(Params):
    """One account: by its id, or by its name and, when it is not your own, its domain."""

    id = ObjectField("The account.", within_reach())
    account = Text("The account's name, instead of id.")
    domainid = ObjectField("The account's domain, with account; your own if not given.", visible(Domain))

    def validate(self, values: Values) -> Values:
        values = super().validate(values)
        if "id" not in values:
            values["id"] = self._named(values.get("account"), values.get("domainid") or self.caller.account.domain)
        return values

    def _named(self, name: str | None, domain: Domain) -> Account:
        if not name:
            raise InvalidParameter("Name the account: by id, or by account and domainid.")
        found = called(name, within_reach()(self.caller).filter(domain=domain))
        if found is None:
            raise InvalidParameter(f"Unable to find account {name} in domain {domain.uuid}.")
        return found


class UpdateAccountParams(AccountParams):
    newname = Text("The account's new name.", max_length=LONGEST_NAME)


@command(since="1.1", roles=ADMINS)
class UpdateAccount(Command):
    """Rename an account."""

    params = UpdateAccountParams
    answer = ("account", AccountAnswer)

    def run(self, caller: Caller, params: Values) -> Account:
        account: Account = params["id"]
        return _shown_one(services.rename(account, params["newname"] or account.name, caller))


class DisableAccountParams(AccountParams):
    lock = Bool("true: its state is said to be locked, else disabled. Both shut its users out.")


@command(since="1.1", roles=ADMINS)
class DisableAccount(AsyncCommand):
    """Shut an account's users out. Its VMs go on running: stop them first if they are to stop."""

    params = DisableAccountParams
    answer = ("account", AccountAnswer)

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.disable(params["id"], bool(params["lock"]), caller)


@command(since="1.1", roles=ADMINS)
class EnableAccount(Command):
    """Let the users of a disabled or locked account in again."""

    params = AccountParams
    answer = ("account", AccountAnswer)

    def run(self, caller: Caller, params: Values) -> Account:
        return _shown_one(services.enable(params["id"], caller))


class DeleteAccountParams(Params):
    id = ObjectField(
        "The account. It owns no VM, network, template or key pair any more.", within_reach(), required=True
    )


@command(since="1.1", roles=ADMINS)
class DeleteAccount(AsyncCommand):
    """Delete an account that owns nothing any more, with its users and their API keys."""

    params = DeleteAccountParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.delete(params["id"], caller)
