"""Domains, accounts, users, and their API keys."""

import allauth.account.admin
import allauth.mfa.admin  # noqa: F401 - both register their pages now, so that they can be taken away
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin
from django.contrib.auth import admin as auth
from django.contrib.auth.models import Group
from django.db.models import Field, QuerySet
from django.forms import ChoiceField
from django.http import HttpRequest

from extdhcp_site.accounts.models import Account, ApiKey, Domain, User
from extdhcp_site.accounts.services import keys
from extdhcp_site.console.administration import ModelAdmin, ReadOnlyAdmin, caller


class DomainForm(forms.ModelForm):
    def clean(self) -> None:
        """The path is what isolates domains from each other: each name is one step of it."""
        name, parent = self.cleaned_data.get("name"), self.cleaned_data.get("parent")
        if not name:
            return
        if "/" in name:
            self.add_error("name", "A domain's name has no slash: its path is made of the names.")
        elif not parent:
            self.add_error("parent", "There is one root domain. Name the domain that this one belongs to.")
        elif len(f"{parent.path}{name}/") > Domain._meta.get_field("path").max_length:
            self.add_error("name", "Too deep in the tree: the path is longer than 255 characters.")
        elif Domain.objects.filter(path=f"{parent.path}{name}/").exists():
            self.add_error("name", f"{parent} has a domain of this name already.")


@admin.register(Domain)
class DomainAdmin(ModelAdmin):
    note = "A domain keeps its name and its place: the paths of those below it are made of them."
    form = DomainForm
    fields = ["name", "parent"]
    fixed = ["name", "parent"]
    list_display = ["path", "name", "parent"]
    list_select_related = ["parent"]
    search_fields = ["path"]
    autocomplete_fields = ["parent"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Domain]:
        return super().get_queryset(request).live()

    def has_change_permission(self, request: HttpRequest, obj: Domain | None = None) -> bool:
        return False


@admin.register(Account)
class AccountAdmin(ModelAdmin):
    fields = ["name", "domain", "role", "state"]
    fixed = ["domain"]
    list_display = ["name", "domain", "role", "state"]
    list_filter = ["role", "state"]
    search_fields = ["name", "domain__path"]
    autocomplete_fields = ["domain"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        # Here and not in list_select_related: choosing an account elsewhere lists them too.
        return super().get_queryset(request).live().select_related("domain")

    def formfield_for_choice_field(self, db_field: Field, request: HttpRequest, **kwargs) -> ChoiceField:
        """Removing takes more than the word."""
        if db_field.name == "state":
            kwargs["choices"] = [choice for choice in Account.State.choices if choice[0] != Account.State.REMOVED]
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: Account | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._is_within_reach(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Account | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._is_within_reach(request, obj)

    def _is_within_reach(self, request: HttpRequest, obj: Account | None) -> bool:
        return obj is None or Account.objects.within_reach_of(caller(request)).filter(pk=obj.pk).exists()


# Addresses are the user's own column; of a second factor nobody sees more than that there is one.
for model in (Group, EmailAddress, Authenticator):
    admin.site.unregister(model)


@admin.register(Group)
class GroupAdmin(auth.GroupAdmin):
    """Permissions are power, which a superuser gives out: whoever is in a group could give it to themselves."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser


@admin.register(User)
class UserAdmin(ModelAdmin, auth.UserAdmin):
    list_display = ["username", "account", "email", "is_active", "is_staff", "last_login"]
    list_filter = ["is_active", "is_staff", "is_superuser", "account__role"]
    list_select_related = ["account__domain"]
    search_fields = ["username", "email", "first_name", "last_name", "account__name"]
    autocomplete_fields = ["account"]
    readonly_fields = ["last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "password", "account"]}),
        ("Person", {"fields": ["first_name", "last_name", "email"]}),
        (
            "Access",
            {
                "fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"],
                "description": "Staff of a root admin's account may open the admin; permissions say what they may do.",
            },
        ),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"fields": ["username", "account", "usable_password", "password1", "password2"]})]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        return super().get_queryset(request).live()

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Only a superuser gives out power."""
        power = (
            [] if request.user.is_superuser else ["account", "is_staff", "is_superuser", "groups", "user_permissions"]
        )
        return [*super().get_readonly_fields(request, obj), *(power if obj else ())]

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._is_within_reach(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._is_within_reach(request, obj)

    def _is_within_reach(self, request: HttpRequest, obj: User | None) -> bool:
        return obj is None or request.user.is_superuser or not obj.is_superuser


@admin.register(ApiKey)
class ApiKeyAdmin(ReadOnlyAdmin):
    note = (
        "A key is made by manage.py create_api_key or the API's registerUserKeys, which show its secrets once. "
        "They are never shown again."
    )
    fields = ["beginning", "user", "created_at", "last_used_at", "disabled_at"]
    list_display = ["beginning", "user", "created_at", "last_used_at", "disabled_at"]
    list_select_related = ["user"]
    list_filter = [("disabled_at", admin.EmptyFieldListFilter), "created_at"]
    search_fields = ["user__username"]
    actions = ["disable"]

    @admin.display(description="API key", ordering="key")
    def beginning(self, key: ApiKey) -> str:
        return f"{key.key[:8]}…"

    @admin.action(description="Disable selected API keys", permissions=["disable"])
    def disable(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        in_use = ApiKey.objects.visible_to(caller(request)).filter(pk__in=queryset, disabled_at=None)
        for key in in_use:
            keys.disable(key, caller(request))
        self.message_user(request, f"{len(in_use)} API keys let nobody in any more.")

    def has_disable_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("accounts.change_apikey")

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        is_within_reach = obj is None or ApiKey.objects.visible_to(caller(request)).filter(pk=obj.pk).exists()
        return request.user.has_perm("accounts.delete_apikey") and is_within_reach
