"""API keys of users."""

from django.db.models import Q, QuerySet
from rest_framework import serializers

from extdhcp_site.accounts.api.users import UserParams
from extdhcp_site.accounts.models import ApiKey, Caller, NewApiKey, User
from extdhcp_site.accounts.services import keys as services
from extdhcp_site.api.answers import Answer, IdField, Moment
from extdhcp_site.api.owners import ListParams
from extdhcp_site.api.parameters import Bool, ObjectField, Params, Values, visible
from extdhcp_site.api.registry import EVERYBODY, Command, ListCommand, command


class NewKeysAnswer(Answer):
    apikey = serializers.CharField(source="api_key", help_text="The key that each request names.")
    secretkey = serializers.CharField(source="secret_key", help_text="What requests are signed with. Shown this once.")
    token = serializers.CharField(help_text="The bearer token for /api/v1/. Shown this once. Ours, not CloudStack's.")


@command(since="1.1", roles=EVERYBODY)
class RegisterUserKeys(Command):
    """Make a user's API keys anew. The answer has the secret key, this once; the keys before are good no more."""

    params = UserParams
    answer = ("userkeys", NewKeysAnswer)

    def run(self, caller: Caller, params: Values) -> NewApiKey:
        return services.register(params["id"], caller)


def _oneself(caller: Caller) -> QuerySet[User]:
    return User.objects.filter(pk=caller.user.pk)


class GetUserKeysParams(Params):
    id = ObjectField("The user: yourself.", _oneself, required=True)


class UserKeysAnswer(Answer):
    apikey = serializers.CharField(source="key", help_text="The key in use. Its secret is never shown again.")


@command(since="1.1", roles=EVERYBODY)
class GetUserKeys(Command):
    """Show one's own API key. The secret key was shown once, when it was made."""

    params = GetUserKeysParams
    answer = ("userkeys", UserKeysAnswer)

    def run(self, caller: Caller, params: Values) -> ApiKey | dict[str, str]:
        return services.in_use(params["id"]) or {}


class ApiKeyAnswer(Answer):
    id = IdField("The key pair.")
    apikey = serializers.SerializerMethodField(help_text="The key to its user, its beginning to others.")
    userid = IdField("Whose it is.", source="user.uuid")
    username = serializers.CharField(source="user.username", help_text="That user's name.")
    account = serializers.CharField(source="user.account.name", help_text="The user's account.")
    domainid = IdField("That account's domain.", source="user.account.domain.uuid")
    created = Moment(source="created_at", help_text="When it was made.")
    lastused = Moment(source="last_used_at", help_text="When it last let somebody in, to the minute; absent if never.")
    disabled = Moment(source="disabled_at", help_text="Since when it lets nobody in; absent while it does.")

    def get_apikey(self, key: ApiKey) -> str:
        own = self.caller is not None and self.caller.user.pk == key.user_id
        return key.key if own else f"{key.key[:8]}…"


class ListApiKeysParams(ListParams):
    id = ObjectField("Shows this key only.", visible(ApiKey))
    userid = ObjectField("Shows this user's keys.", lambda caller: User.objects.within_reach_of(caller))
    listall = Bool("Administrators: everybody's, not only your own.")


@command(since="1.1", roles=EVERYBODY)
class ListApiKeys(ListCommand):
    """List API keys with when they were last used, the newest first. No secret is shown. Ours, not CloudStack's."""

    params = ListApiKeysParams
    answer = ("apikey", ApiKeyAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[ApiKey]:
        keys = ApiKey.objects.visible_to(caller).filter(_asked_for(caller, params))
        if params["keyword"]:
            keys = keys.filter(user__username__icontains=params["keyword"])
        return keys.select_related("user__account__domain")


def _asked_for(caller: Caller, params: Values) -> Q:
    if params["id"]:
        return Q(pk=params["id"].pk)
    if params["userid"]:
        return Q(user=params["userid"])
    return Q() if params["listall"] else Q(user=caller.user)


class DisableApiKeyParams(Params):
    id = ObjectField("The key.", visible(ApiKey), required=True)


@command(since="1.1", roles=EVERYBODY)
class DisableApiKey(Command):
    """Make an API key let nobody in any more. Ours, not CloudStack's."""

    params = DisableApiKeyParams
    answer = ("apikey", ApiKeyAnswer)

    def run(self, caller: Caller, params: Values) -> ApiKey:
        return services.disable(params["id"], caller)
