"""`/api/v1/`: domains, accounts, users and their API keys."""

from django_filters import rest_framework as filters

from extdhcp_site.accounts.api import accounts, domains, keys, users
from extdhcp_site.accounts.models import Account, ApiKey, Domain, User
from extdhcp_site.api import resources, routes


class DomainViewSet(resources.VisibleViewSet):
    """Domains: one's own, and for administrators those below it."""

    queryset = domains.shown(Domain.objects.all())
    serializer_class = domains.DomainAnswer
    filterset_fields = ["name"]


class AccountFilter(filters.FilterSet):
    domain = resources.of(Domain, "domain", "its domain")

    class Meta:
        model = Account
        fields = ("name", "state")


class AccountViewSet(resources.VisibleViewSet):
    """Accounts with their users."""

    queryset = accounts.shown(Account.objects.all())
    serializer_class = accounts.AccountAnswer
    filterset_class = AccountFilter


class UserFilter(filters.FilterSet):
    account = resources.of(Account, "account", "the user's account")

    class Meta:
        model = User
        fields = ("username",)


class UserViewSet(resources.VisibleViewSet):
    """Users."""

    queryset = User.objects.select_related("account__domain")
    serializer_class = users.UserAnswer
    filterset_class = UserFilter


class ApiKeyFilter(filters.FilterSet):
    user = resources.of(User, "user", "whose it is")

    class Meta:
        model = ApiKey
        fields: tuple[str, ...] = ()


class ApiKeyViewSet(resources.VisibleViewSet):
    """API keys with when they were last used. No secret is shown."""

    queryset = ApiKey.objects.select_related("user__account__domain")
    serializer_class = keys.ApiKeyAnswer
    filterset_class = ApiKeyFilter


resources.register("domains", DomainViewSet)
routes.post("domains", domains.CreateDomain)
routes.patch("domains/{id}", domains.UpdateDomain)
routes.delete("domains/{id}", domains.DeleteDomain)

resources.register("accounts", AccountViewSet)
routes.post("accounts", accounts.CreateAccount)
routes.patch("accounts/{id}", accounts.UpdateAccount)
routes.delete("accounts/{id}", accounts.DeleteAccount)
routes.post("accounts/{id}/actions/disable", accounts.DisableAccount)
routes.post("accounts/{id}/actions/enable", accounts.EnableAccount)

resources.register("users", UserViewSet)
routes.post("users", users.CreateUser)
routes.get("users/by-api-key", users.GetUser)
routes.patch("users/{id}", users.UpdateUser)
routes.delete("users/{id}", users.DeleteUser)
routes.post("users/{id}/actions/disable", users.DisableUser)
routes.post("users/{id}/actions/enable", users.EnableUser)
routes.post("users/{id}/api-keys", keys.RegisterUserKeys)

resources.register("api-keys", ApiKeyViewSet)
routes.post("api-keys/{id}/actions/disable", keys.DisableApiKey)
