"""Domains, accounts, users, and their API keys."""

import allauth.account.admin
import allauth.mfa.admin  # noqa: F401 - both register their pages now, so that they can be taken away
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django import forms
from django.contrib import admin
from django.contrib.auth import admin as auth
from django.contrib.auth.models import Group
from django.db.models import OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse

from extdhcp_site.accounts import second_factor
from extdhcp_site.accounts.models import Account, ApiKey, Caller, Domain, Role, User
from extdhcp_site.accounts.services import accounts, domains, keys, users
from extdhcp_site.accounts.services.accounts import NewAccount
from extdhcp_site.accounts.services.users import Changes
from extdhcp_site.console.administration import ModelAdmin, ReadOnlyAdmin, RemovedByJob, caller
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs.models import AsyncJob


@admin.register(Domain)
class DomainAdmin(RemovedByJob):
    note = "A domain keeps its name and its place: the paths of those below it are made of them."
    consequence = "A domain that has domains, accounts or anything else in it is not deleted."
    fields = ["name", "parent", "network_domain"]
    fixed = ["name", "parent"]
    list_display = ["path", "name", "parent", "network_domain"]
    list_select_related = ["parent"]
    search_fields = ["path"]
    autocomplete_fields = ["parent"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Domain]:
        return super().get_queryset(request).live()

    def get_form(self, request: HttpRequest, obj: Domain | None = None, **kwargs) -> type[forms.ModelForm]:
        form = super().get_form(request, obj, **kwargs)
        if "parent" in form.base_fields:
            form.base_fields["parent"].required = True
        return form

    def save_model(self, request: HttpRequest, obj: Domain, form: forms.ModelForm, change: bool) -> None:
        by, network_domain = caller(request), form.cleaned_data["network_domain"]
        if change:
            domains.update(obj, None, network_domain, by)
        else:
            obj.pk = domains.create(form.cleaned_data["name"], form.cleaned_data["parent"], network_domain, by).pk

    @staticmethod
    def submit_removal(row: Domain, by: Caller) -> AsyncJob:
        return domains.delete(row, by)


def _disable(account: Account, by: Caller) -> AsyncJob:
    return accounts.disable(account, False, by)


def _lock(account: Account, by: Caller) -> AsyncJob:
    return accounts.disable(account, True, by)


class WithinReach:
    """Nobody changes who is more powerful."""

    def has_change_permission(self, request: HttpRequest, obj: Account | User | None = None) -> bool:
        return super().has_change_permission(request, obj) and self._is_within_reach(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Account | User | None = None) -> bool:
        return super().has_delete_permission(request, obj) and self._is_within_reach(request, obj)

    def reached(self, request: HttpRequest, rows: QuerySet) -> QuerySet:
        return rows.filter(pk__in=rows.model.objects.within_reach_of(caller(request)).values("pk"))

    def _is_within_reach(self, request: HttpRequest, obj: Account | User | None) -> bool:
        return obj is None or self.reached(request, type(obj).objects.filter(pk=obj.pk)).exists()

    def has_shut_permission(self, request: HttpRequest) -> bool:
        return self.has_change_permission(request)


@admin.register(Account)
class AccountAdmin(WithinReach, RemovedByJob):
    note = "An account is shut, opened and deleted by the actions below, as by the API."
    consequence = "Their users are deleted with them. An account that owns something is not deleted."
    fields = ["name", "domain", "role", "state"]
    fixed = ["domain"]
    readonly_fields = ["state"]
    list_display = ["name", "domain", "role", "state"]
    list_filter = ["role", "state"]
    search_fields = ["name", "domain__path"]
    autocomplete_fields = ["domain"]
    actions = ["disable", "lock", "enable"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Account]:
        # Here and not in list_select_related: choosing an account elsewhere lists them too.
        return super().get_queryset(request).live().select_related("domain")

    def removable(self, request: HttpRequest, rows: QuerySet) -> QuerySet:
        return self.reached(request, rows)

    def save_model(self, request: HttpRequest, obj: Account, form: forms.ModelForm, change: bool) -> None:
        by, given = caller(request), form.cleaned_data
        if not change:
            obj.pk = accounts.create_empty(NewAccount(given["name"], given["domain"], Role(given["role"])), by).pk
            return
        stored = Account.objects.get(pk=obj.pk)
        if "name" in form.changed_data:
            accounts.rename(stored, given["name"], by)
        if "role" in form.changed_data:
            accounts.change_role(stored, Role(given["role"]), by)

    @staticmethod
    def submit_removal(row: Account, by: Caller) -> AsyncJob:
        return accounts.delete(row, by)

    @admin.action(description="Disable selected accounts", permissions=["shut"])
    def disable(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        self.submit_each(request, self.reached(request, queryset), _disable)

    @admin.action(description="Lock selected accounts", permissions=["shut"])
    def lock(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        self.submit_each(request, self.reached(request, queryset), _lock)

    @admin.action(description="Enable selected accounts", permissions=["shut"])
    def enable(self, request: HttpRequest, queryset: QuerySet[Account]) -> None:
        for account in self.reached(request, queryset):
            accounts.enable(account, caller(request))
        self.message_user(request, "Their users may log in again.")


# Addresses are the user's own column; of a second factor nobody sees more than that there is one.
for model in (Group, EmailAddress, Authenticator):
    admin.site.unregister(model)


@admin.register(Group)
class GroupAdmin(ModelAdmin, auth.GroupAdmin):
    """Permissions are power, which a superuser gives out: whoever is in a group could give it to themselves."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.is_superuser

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return request.user.is_superuser


# What makes somebody powerful.
POWER = ["account", "is_staff", "is_superuser", "groups", "user_permissions"]
PERSON = {"username", "first_name", "last_name", "email"}


@admin.register(User)
class UserAdmin(WithinReach, ModelAdmin, auth.UserAdmin):
    note = "Users are shut out, let in and freed of a lost second factor by the actions below, as by the API."
    list_display = ["username", "account", "email", "is_active", "is_staff", "second_factor", "last_login"]
    list_filter = ["is_active", "is_staff", "is_superuser", "account__role"]
    list_select_related = ["account__domain"]
    search_fields = ["username", "email", "first_name", "last_name", "account__name"]
    autocomplete_fields = ["account"]
    readonly_fields = ["is_active", "second_factor", "last_login", "date_joined"]
    fieldsets = [
        (None, {"fields": ["username", "password", "account"]}),
        ("Person", {"fields": ["first_name", "last_name", "email"]}),
        (
            "Access",
            {
                "fields": ["is_active", "second_factor", "is_staff", "is_superuser", "groups", "user_permissions"],
                "description": "Staff of a root admin's account may open the admin; permissions say what they may do.",
            },
        ),
        ("Dates", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"fields": ["username", "account", "usable_password", "password1", "password2"]})]
    actions = ["disable", "enable", "remove_second_factor"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        found = second_factor.of(OuterRef("pk"))
        return super().get_queryset(request).live().annotate(has_second_factor=found)

    @admin.display(description="second factor", boolean=True, ordering="has_second_factor")
    def second_factor(self, user: User) -> bool:
        return getattr(user, "has_second_factor", False)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        """Only a superuser gives out power."""
        power = [] if request.user.is_superuser or obj is None else POWER
        return [*super().get_readonly_fields(request, obj), *power]

    def get_deleted_objects(self, objs, request: HttpRequest):
        """No event or job stands in the way: the row stays for those, and nobody is let in by it."""
        refused = {f"user {user}" for user in objs if not self.has_delete_permission(request, user)}
        return [str(user) for user in objs], {"users": len(objs)}, refused, []

    def save_model(self, request: HttpRequest, obj: User, form: forms.ModelForm, change: bool) -> None:
        by, changed = caller(request), set(form.changed_data)
        if not change:
            obj.validate_constraints()
            obj.save()
            users.record(EventType.USER_CREATE, "created", obj, by)
            return
        if person := {name: form.cleaned_data[name] for name in changed & PERSON}:
            users.update(User.objects.get(pk=obj.pk), Changes(**person), by)
        if power := sorted(changed.intersection(POWER)):
            obj.save(update_fields={"account", "is_staff", "is_superuser"}.intersection(power))
            users.record(EventType.USER_UPDATE, f"{', '.join(power).replace('_', ' ')} changed", obj, by)

    def delete_model(self, request: HttpRequest, obj: User) -> None:
        users.delete(obj, caller(request))

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        answer = super().user_change_password(request, id, form_url)
        # It goes on to the user's page when it is done.
        if request.method == "POST" and answer.status_code == 302:
            users.record(EventType.USER_UPDATE, "password changed", User.objects.get(pk=id), caller(request))
        return answer

    @admin.action(description="Disable selected users", permissions=["shut"])
    def disable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.submit_each(request, self.reached(request, queryset), users.disable)

    @admin.action(description="Enable selected users", permissions=["shut"])
    def enable(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        for user in self.reached(request, queryset):
            users.enable(user, caller(request))
        self.message_user(request, "They may log in again.")

    @admin.action(description="Remove the second factor of selected users", permissions=["shut"])
    def remove_second_factor(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        self.submit_each(request, self.reached(request, queryset), users.remove_second_factor)


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
