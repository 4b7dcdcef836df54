"""Alerts to be looked at: they come and end by themselves, and are acknowledged on the console's page."""

from django.contrib import admin

from extdhcp_site.alerts.models import Alert
from extdhcp_site.console.administration import ReadOnlyAdmin


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    fields = [
        "kind",
        "subject_kind",
        "subject_name",
        "subject_uuid",
        "account",
        "text",
        "advice",
        "first_at",
        "last_at",
        "raised_at",
        "count",
        "acknowledged_at",
        "acknowledged_by",
        "resolved_at",
        "mailed_at",
        "end_mailed_at",
        "archived",
        "uuid",
    ]
    list_display = ["first_at", "kind", "subject_name", "text", "acknowledged_by", "resolved_at", "count"]
    list_filter = ["kind", "first_at", "archived"]
    search_fields = ["text", "subject_name", "subject_uuid"]
