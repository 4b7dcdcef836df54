"""Users."""

from typing import Any

from django.db.models import Q, QuerySet
from rest_framework import serializers

from extdhcp_site.accounts.models import Account, ApiKey, Caller, Role, User
from extdhcp_site.accounts.services import keys
from extdhcp_site.accounts.services import users as services
from extdhcp_site.accounts.services.users import Changes, NewUser
from extdhcp_site.api.answers import Answer, Constant, IdField, Moment
from extdhcp_site.api.owners import OwnedListParams, OwnerParams, ownership
from extdhcp_site.api.parameters import Choice, Int, ObjectField, Params, QuerySetFor, Text, Values, visible
from extdhcp_site.api.registry import ADMINS, EVERYBODY, AsyncCommand, Command, ListCommand, Success, command
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob

# CloudStack's words.
ROLE_TYPES = {Role.USER: "User", Role.ROOT_ADMIN: "Admin", Role.DOMAIN_ADMIN: "DomainAdmin"}
ROLE_NAMES = {Role.USER: "User", Role.ROOT_ADMIN: "Root Admin", Role.DOMAIN_ADMIN: "Domain Admin"}
LONGEST_USERNAME = 100
LONGEST_PASSWORD = 1024


def within_reach() -> QuerySetFor:
    """Whom the caller may change."""
    return lambda caller: User.objects.within_reach_of(caller)


class UserAnswer(Answer):
    id = IdField("The user.")
    username = serializers.CharField(help_text="The name to log in with.")
    firstname = serializers.CharField(source="first_name", help_text="First name.")
    lastname = serializers.CharField(source="last_name", help_text="Last name.")
    email = serializers.CharField(help_text="Where to write to.")
    created = Moment(source="date_joined", help_text="Since when there is the user.")
    state = serializers.SerializerMethodField(help_text="enabled or disabled.")
    account = serializers.CharField(source="account.name", help_text="The user's account.")
    accountid = IdField("That account's id.", source="account.uuid")
    accounttype = serializers.IntegerField(source="account.role", help_text="0 user, 1 root admin, 2 domain admin.")
    roletype = serializers.SerializerMethodField(help_text="User, Admin or DomainAdmin.")
    rolename = serializers.SerializerMethodField(help_text="The same in words.")
    domain = serializers.CharField(source="account.domain.name", help_text="The account's domain.")
    domainid = IdField("That domain's id.", source="account.domain.uuid")
    usersource = Constant("native", "Always native: users are kept here.")
    isdefault = Constant(False, "False: there are no built-in users.")
    timezone = Constant("UTC", "Always UTC.")
    apikey = serializers.SerializerMethodField(help_text="The API key, to the user itself only; never the secret key.")

    def get_state(self, user: User) -> str:
        return "enabled" if user.is_active else "disabled"

    def get_roletype(self, user: User) -> str:
        return ROLE_TYPES[Role(user.account.role)]

    def get_rolename(self, user: User) -> str:
        return ROLE_NAMES[Role(user.account.role)]

    def get_apikey(self, user: User) -> str | None:
        if self.caller is None or user.pk != self.caller.user.pk:
            return None
        key = keys.in_use(user)
        return key.key if key else None


@jobs.renders("User")
def _result(uuid: str, caller: Caller) -> dict[str, Any] | None:
    user = User.objects.visible_to(caller).filter(uuid=uuid).select_related("account__domain").first()
    return {"user": UserAnswer(context={"caller": caller}).to_representation(user)} if user else None


class ListUsersParams(OwnedListParams):
    id = ObjectField("Shows this user only.", visible(User))
    username = Text("Shows the user of this name only.")
    accounttype = Int("Shows only users of accounts of this type: 0 user, 1 root admin, 2 domain admin.", most=2)
    state = Choice("Shows only users in this state.", ["enabled", "disabled"])


@command(since="1.1", roles=EVERYBODY)
class ListUsers(ListCommand):
    """List users."""

    params = ListUsersParams
    answer = ("user", UserAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[User]:
        users = User.objects.visible_to(caller).filter(ownership(caller, params), _asked_for(params))
        return users.select_related("account__domain")


def _asked_for(params: Values) -> Q:
    asked = Q(pk=params["id"].pk) if params["id"] else Q()
    if params["username"]:
        asked &= Q(username=params["username"])
    if params["accounttype"] is not None:
        asked &= Q(account__role=params["accounttype"])
    if params["state"]:
        asked &= Q(is_active=params["state"] == "enabled")
    if params["keyword"]:
        word = params["keyword"]
        asked &= Q(username__icontains=word) | Q(email__icontains=word)
    return asked


class GetUserParams(Params):
    userapikey = ObjectField(
        "The API key of the user.",
        lambda caller: ApiKey.objects.visible_to(caller).usable(),
        by="key",
        required=True,
    )


@command(since="1.1", roles=EVERYBODY)
class GetUser(Command):
    """Show the user who has an API key."""

    params = GetUserParams
    answer = ("user", UserAnswer)

    def run(self, caller: Caller, params: Values) -> User:
        return params["userapikey"].user


class NewUserParams(Params):
    """The person, in createUser and createAccount."""

    username = Text("The name to log in with: unique among all domains.", required=True, max_length=LONGEST_USERNAME)
    password = Text("The password: at least ten characters.", required=True, max_length=LONGEST_PASSWORD)
    firstname = Text("First name.", required=True, max_length=150)
    lastname = Text("Last name.", required=True, max_length=150)
    email = Text("Where to write to.", required=True)


def new_user(params: Values) -> NewUser:
    return NewUser(
        username=params["username"],
        password=params["password"],
        first_name=params["firstname"],
        last_name=params["lastname"],
        email=params["email"],
    )


class CreateUserParams(OwnerParams, NewUserParams):
    account = Text("The account that the user is to belong to.", required=True)


@command(since="1.1", roles=ADMINS)
class CreateUser(Command):
    """Make a user of an account."""

    params = CreateUserParams
    answer = ("user", UserAnswer)

    def run(self, caller: Caller, params: Values) -> User:
        account: Account = params["account"]
        return services.create(account, new_user(params), caller)


class UserParams(Params):
    id = ObjectField("The user.", within_reach(), required=True)


class UpdateUserParams(UserParams):
    username = Text("The new name to log in with.", max_length=LONGEST_USERNAME)
    firstname = Text("The new first name.", max_length=150)
    lastname = Text("The new last name.", max_length=150)
    email = Text("The new address.")
    password = Text("The new password. It ends the user's sessions.", max_length=LONGEST_PASSWORD)
    currentpassword = Text("The password as it is, to change one's own.", max_length=LONGEST_PASSWORD)


@command(since="1.1", roles=EVERYBODY)
class UpdateUser(Command):
    """Change a user: oneself, or as an administrator."""

    params = UpdateUserParams
    answer = ("user", UserAnswer)

    def run(self, caller: Caller, params: Values) -> User:
        changes = Changes(
            username=params["username"],
            first_name=params["firstname"],
            last_name=params["lastname"],
            email=params["email"],
            password=params["password"],
            current_password=params["currentpassword"],
        )
        return services.update(params["id"], changes, caller)


@command(since="1.1", roles=ADMINS)
class DisableUser(AsyncCommand):
    """Shut a user out: no log-in, no session, no API key is good any more."""

    params = UserParams
    answer = ("user", UserAnswer)

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.disable(params["id"], caller)


@command(since="1.1", roles=ADMINS)
class EnableUser(Command):
    """Let a disabled user in again."""

    params = UserParams
    answer = ("user", UserAnswer)

    def run(self, caller: Caller, params: Values) -> User:
        return services.enable(params["id"], caller)


@command(since="1.1", roles=ADMINS)
class DeleteUser(Command):
    """Delete a user with its API keys. What the user made stays with the account."""

    params = UserParams
    answer = Success

    def run(self, caller: Caller, params: Values) -> None:
        services.delete(params["id"], caller)


@command(since="1.2", roles=ADMINS)
class RemoveSecondFactor(Command):
    """Let a user who has lost their second factor log in by the password alone again. Ours, not CloudStack's."""

    params = UserParams
    answer = ("user", UserAnswer)

    def run(self, caller: Caller, params: Values) -> User:
        return services.remove_second_factor(params["id"], caller)
