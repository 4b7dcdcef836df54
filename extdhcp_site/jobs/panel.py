"""Jobs on the overview: how many are under way and how many failed, and the last of these."""

from collections.abc import Mapping
from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.kept import kept
from extdhcp_site.console.panels import Panel
from extdhcp_site.jobs.console import Seen, jobs_of
from extdhcp_site.jobs.models import Status

LATELY = timedelta(hours=1)
MOST_ROWS = 5


@kept
def _numbers(caller: Caller) -> dict[str, int]:
    pending = Q(status=Status.PENDING)
    numbers: dict[str, int] = (
        jobs_of(caller)
        .order_by()
        .aggregate(
            waiting=Count("pk", filter=pending & Q(heartbeat_at=None)),
            running=Count("pk", filter=pending & Q(heartbeat_at__isnull=False)),
            failed=Count("pk", filter=Q(status=Status.FAILED)),
            failed_lately=Count("pk", filter=Q(status=Status.FAILED, completed_at__gt=timezone.now() - LATELY)),
        )
    )
    return numbers


def _jobs(caller: Caller, query: Mapping[str, str]) -> dict[str, object]:
    failed = (
        jobs_of(caller)
        .filter(status=Status.FAILED)
        .select_related("account__domain", "user")
        .defer("secret", "arguments")
    )
    return {**_numbers(caller), "failures": [Seen.of(job, caller) for job in failed[:MOST_ROWS]]}


PANEL = Panel("Jobs", "jobs/panel.html", _jobs, order=70)
