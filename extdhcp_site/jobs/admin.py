import django_q.admin  # noqa: F401 - registers its pages now, so that they can be taken away
from django.contrib import admin
from django_q.models import Failure, OrmQ, Schedule, Success

from extdhcp_site.console.administration import ReadOnlyAdmin, filter_by_known
from extdhcp_site.jobs import services
from extdhcp_site.jobs.models import AsyncJob

# django-q's own pages run any importable function that somebody types, and unpickle rows to show them.
for model in (Schedule, Success, Failure, OrmQ):
    admin.site.unregister(model)


@admin.register(AsyncJob)
class AsyncJobAdmin(ReadOnlyAdmin):
    # Without `secret`, which only the job's caller may read, once.
    fields = [
        "uuid",
        "command",
        "status",
        "progress",
        "progress_for_operator",
        "account",
        "user",
        "instance_name",
        "instance_type",
        "instance_uuid",
        "arguments",
        "attempt",
        "lost_workers",
        "created_at",
        "queued_at",
        "heartbeat_at",
        "completed_at",
        "error_code",
        "error_text",
        "error_for_operator",
    ]
    list_display = ["created_at", "command", "status", "progress", "account", "user", "completed_at", "error_text"]
    list_select_related = ["account__domain", "user"]
    list_filter = ["status", "created_at", filter_by_known("command", "command", services.commands)]
    search_fields = ["command", "uuid", "instance_name", "instance_uuid", "error_text", "user__username"]
