from django.contrib import admin

from extdhcp_site.console.administration import ReadOnlyAdmin
from extdhcp_site.locks.models import Lock


@admin.register(Lock)
class LockAdmin(ReadOnlyAdmin):
    fields = ["name", "holder", "token", "expires_at"]
    list_display = ["name", "holder", "token", "expires_at"]
    search_fields = ["name", "holder"]
