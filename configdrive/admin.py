from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse

from configdrive import upkeep
from configdrive.console import state_of
from configdrive.content import DriveError
from configdrive.facts import shown_files
from configdrive.models import ConfigDrive, Leftover
from configdrive.reveal import is_as_built
from extdhcp_site.console.administration import ReadOnlyAdmin


class DriveForm(forms.ModelForm):
    class Meta:
        labels = {"vm": "VM", "size": "Size in bytes", "sha256": "SHA-256"}


@admin.register(ConfigDrive)
class ConfigDriveAdmin(ReadOnlyAdmin):
    """What lies on the hosts, and what it says; secrets are the guest's alone."""

    form = DriveForm
    note = "A drive is made when its VM starts, and removed when it stops. The actions submit jobs for running VMs."
    fields = [
        "vm",
        "state",
        "last_error",
        "host",
        "storage",
        "path",
        "label",
        "size",
        "sha256",
        "generation",
        "dated",
        "built_at",
        "booted_at",
        "verified_at",
    ]
    list_display = ["vm", "state", "host", "storage", "label", "size", "generation", "built_at", "last_error"]
    list_select_related = ["vm", "host", "storage"]
    list_filter = ["host", "storage", ("last_error", admin.EmptyFieldListFilter)]
    search_fields = ["vm__name", "vm__uuid", "name"]
    actions = ["rebuild", "verify", "eject"]

    @admin.display
    def state(self, drive: ConfigDrive) -> str:
        return state_of(drive.vm, drive).word

    def has_operate_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("configdrive.change_configdrive")

    @admin.action(description="Rebuild selected drives", permissions=["operate"])
    def rebuild(self, request: HttpRequest, queryset: QuerySet[ConfigDrive]) -> None:
        self.submit_each(request, queryset.select_related("vm__account"), upkeep.rebuild)

    @admin.action(description="Verify selected drives", permissions=["operate"])
    def verify(self, request: HttpRequest, queryset: QuerySet[ConfigDrive]) -> None:
        self.submit_each(request, queryset.select_related("vm__account"), upkeep.verify)

    @admin.action(description="Eject selected drives", permissions=["operate"])
    def eject(self, request: HttpRequest, queryset: QuerySet[ConfigDrive]) -> None:
        self.submit_each(request, queryset.select_related("vm__account"), upkeep.eject_now)

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context=None) -> HttpResponse:
        drive = ConfigDrive.objects.filter(pk=object_id).first() if object_id.isdecimal() else None
        return super().change_view(request, object_id, form_url, {**(extra_context or {}), **_content(drive)})


def _content(drive: ConfigDrive | None) -> dict[str, Any]:
    """For the page of one drive: its files, and whether the host has them like that."""
    if drive is None:
        return {}
    try:
        return {"files": shown_files(drive.vm), "as_built": is_as_built(drive.vm, drive)}
    except DriveError as error:
        return {"cannot_build": f"The config drive of {drive.vm} cannot be built: {error}"}


@admin.register(Leftover)
class LeftoverAdmin(ReadOnlyAdmin):
    note = "ISOs that no VM needs any more. They are deleted from their hosts every minute, as soon as these answer."
    fields = ["name", "host", "storage", "since", "last_error"]
    list_display = ["name", "host", "storage", "since", "last_error"]
    list_select_related = ["host", "storage"]
    list_filter = ["host"]
    search_fields = ["name", "last_error"]
