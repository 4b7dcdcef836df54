from django.contrib import admin
from django.http import HttpRequest

from extdhcp_site.console.administration import ReadOnlyAdmin
from extdhcp_site.events.models import Event, EventQuerySet, EventType


class TypeFilter(admin.SimpleListFilter):
    """By the names that the documentation and the API use."""

    title = parameter_name = "type"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin) -> list[tuple[str, str]]:
        return [(name, name) for name in EventType.values]

    def queryset(self, request: HttpRequest, queryset: EventQuerySet) -> EventQuerySet:
        return queryset.filter(type=self.value()) if self.value() else queryset


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
    list_filter = ["level", "created_at", "state", "archived", TypeFilter]
    search_fields = ["description", "for_operator", "resource_name", "username", "resource_uuid", "parent_uuid"]

    @admin.display(description="type", ordering="type")
    def kind(self, event: Event) -> str:
        return event.type
