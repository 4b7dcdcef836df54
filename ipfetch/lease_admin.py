"""DHCP servers whose leases are read, and the tokens by which they report leases themselves."""

from django.contrib import admin
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone

from extdhcp_site.console.administration import ModelAdmin
from ipfetch.models import LeaseServer, LeaseToken


@admin.register(LeaseServer)
class LeaseServerAdmin(ModelAdmin):
    fields = ["name", "kind", "path", "networks", "enabled", "last_read_at", "last_error"]
    readonly_fields = ["last_read_at", "last_error"]
    list_display = ["name", "kind", "path", "enabled", "last_read_at", "last_error"]
    list_filter = ["kind", "enabled"]
    search_fields = ["name", "path", "networks__name"]
    autocomplete_fields = ["networks"]


@admin.register(LeaseToken)
class LeaseTokenAdmin(ModelAdmin):
    note = "A token lets a DHCP server report the leases of one network. It is shown once, when it is made."
    fields = ["network", "name", "created_at", "last_used_at", "disabled_at"]
    readonly_fields = ["created_at", "last_used_at", "disabled_at"]
    fixed = ["network"]
    list_display = ["name", "network", "created_at", "last_used_at", "disabled_at"]
    list_select_related = ["network"]
    list_filter = [("disabled_at", admin.EmptyFieldListFilter), "created_at"]
    search_fields = ["name", "network__name"]
    autocomplete_fields = ["network"]
    actions = ["disable"]

    def save_model(self, request: HttpRequest, obj: LeaseToken, form: ModelForm, change: bool) -> None:
        if not change:
            request.new_token = obj.new_token()
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: LeaseToken, post_url_continue: str | None = None) -> HttpResponse:
        """The token on the page that answers: a message to the next page would lie in a cookie or the database."""
        words = {"title": "New lease token", "row": obj, "token": request.new_token, "opts": self.opts}
        return TemplateResponse(
            request, "ipfetch/new_lease_token.html", {**self.admin_site.each_context(request), **words}
        )

    @admin.action(description="Disable selected lease tokens", permissions=["change"])
    def disable(self, request: HttpRequest, queryset: QuerySet[LeaseToken]) -> None:
        disabled = queryset.filter(disabled_at=None).update(disabled_at=timezone.now())
        self.message_user(request, f"{disabled} lease tokens let nobody in any more.")
