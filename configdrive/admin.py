from django.contrib import admin

from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.console.administration import ReadOnlyAdmin


@admin.register(ConfigDrive)
class ConfigDriveAdmin(ReadOnlyAdmin):
    """What lies on the hosts. Its content is the guest's alone."""

    fields = ["vm", "generation", "name", "host", "path", "label", "size", "sha256", "built_at"]
    list_display = ["vm", "host", "name", "label", "size", "generation", "built_at"]
    list_select_related = ["vm", "host"]
    list_filter = ["host", "label"]
    search_fields = ["vm__name", "name"]


@admin.register(Leftover)
class LeftoverAdmin(ReadOnlyAdmin):
    note = "ISOs that no VM needs any more. They are deleted from their hosts every minute, as soon as these answer."
    fields = ["name", "host", "since", "last_error"]
    list_display = ["name", "host", "since", "last_error"]
    list_select_related = ["host"]
    list_filter = ["host"]
    search_fields = ["name", "last_error"]
