from django.contrib import admin

from extdhcp_site.console.administration import ReadOnlyAdmin, filter_by_known
from extdhcp_site.events.models import Event, EventType


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    fields = [
        "created_at",
        "level",
        "kind",
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
    list_display = ["created_at", "level", "kind", "state", "description", "account", "username"]
    list_select_related = ["account__domain"]
    list_filter = [
        "level",
        "created_at",
        "state",
        "archived",
        filter_by_known("type", "type", lambda: EventType.values),
    ]
    search_fields = ["description", "for_operator", "resource_name", "username", "resource_uuid", "parent_uuid"]

    @admin.display(description="type", ordering="type")
    def kind(self, event: Event) -> str:
        return event.type
