"""What the overview says of endpoints and hosts. A root admin's alone."""

from collections.abc import Mapping

from django.db.models import Count, Q, Sum

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console.kept import kept
from extdhcp_site.console.panels import Panel
from networks.console.endpoints import HEALTH
from networks.console.hosts import FULL, full, memory_use
from networks.models import Endpoint, Host
from networks.models.infrastructure import AllocationState, HostState

MOST_ROWS = 5


def hosts(caller: Caller, query: Mapping[str, str]) -> dict[str, object] | None:
    return _hosts(caller) if caller.is_root else None


@kept
def _hosts(caller: Caller) -> dict[str, object]:
    trouble = ~Q(last_error="")
    endpoints = Endpoint.objects.aggregate(
        answers=Count("pk", filter=~trouble & Q(last_ok_at__isnull=False)),
        trouble=Count("pk", filter=trouble),
        unasked=Count("pk", filter=~trouble & Q(last_ok_at=None)),
    )
    found = Host.objects.aggregate(
        up=Count("pk", filter=Q(state=HostState.UP)),
        down=Count("pk", filter=Q(state=HostState.DOWN)),
        disabled=Count("pk", filter=Q(resource_state=AllocationState.DISABLED)),
        memory=Sum("memory", default=0),
        reserved_memory=Sum("reserved_memory", default=0),
    )
    sick = Endpoint.objects.filter(trouble).defer("password").order_by("-failures", "name")
    alone = Host.objects.filter(state=HostState.DOWN).exclude(unavailable="").order_by("name")
    return {
        "endpoints": [(health, label, endpoints[health]) for health, label in HEALTH],
        "hosts": found,
        "full": full(Host.objects).count(),
        "full_percent": FULL,
        "memory": memory_use(Host(memory=found["memory"], reserved_memory=found["reserved_memory"])),
        "sick": list(sick[:MOST_ROWS]),
        "alone": list(alone[:MOST_ROWS]),
    }


PANEL = Panel("Endpoints and hosts", "networks/hosts_panel.html", hosts, order=30)
