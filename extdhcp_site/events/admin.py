from django.contrib import admin

from extdhcp_site.console.administration import ReadOnlyAdmin
from extdhcp_site.events.models import Event


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    fields = [
        "created_at",
        "level",
        "type",
        "state",
        "description",
        "for_operator",
        "account",
        "username",
        "resource_type",
        "resource_name",
        "resource_uuid",
        "parent_uuid",
        "uuid",
        "archived",
    ]
    list_display = ["created_at", "level", "type", "state", "description", "resource_name", "account", "username"]
    list_select_related = ["account__domain"]
    list_filter = ["level", "created_at", "state", "archived", "type"]
    search_fields = ["description", "for_operator", "resource_name", "username", "resource_uuid", "parent_uuid"]
