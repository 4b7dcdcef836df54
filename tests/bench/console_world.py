"""The console out of 100,000 VMs: `python -m tests.bench.console_world STEP`, after `tests.bench.api_world make`.

Runs in a process of its own, on the database of what is measured. What a step finds out it prints as JSON.
"""

import gzip
import json
import re
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from unittest import mock

import django

django.setup()

from datetime import timedelta  # noqa: E402 - models need Django set up

from django.contrib.staticfiles import finders  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.urls import reverse  # noqa: E402
from django.utils import timezone  # noqa: E402

from extdhcp_site.accounts.models import User  # noqa: E402
from extdhcp_site.console import panels  # noqa: E402
from extdhcp_site.events.models import Event, EventType  # noqa: E402
from extdhcp_site.jobs.models import AsyncJob, Status  # noqa: E402
from ipfetch.models import IpFetch, Observation, Outcome, Sweep  # noqa: E402
from networks.models import Nic, VirtualMachine  # noqa: E402

CHUNK = 5000
EVENTS = 100_000
JOBS = 20_000
WARM_UP = 3
# By what a NIC's number leaves over when it is divided by 20: most have their address.
STATES = {0: IpFetch.State.EXHAUSTED, 1: IpFetch.State.WAITING, 2: IpFetch.State.WAITING, 3: IpFetch.State.PAUSED}
# What a page refers to: its own styles and scripts.
REFERENCE = re.compile(r'(?:src|href)="/static/([^"?]+\.(?:css|js|svg))')
# Pages that somebody may come to first, by name.
FIRST = ("overview", "vms", "deploy", "nics", "networks", "hosts", "new_endpoint", "events", "jobs", "settings")


def make() -> None:
    """What the fleet of `api_world` lacks: its queue, what was seen, what happened, and what was done."""
    now = timezone.now()
    nics = list(Nic.objects.values_list("pk", "ip4_address"))
    outcomes = [Outcome.AGENT_ABSENT, Outcome.NONE_YET, Outcome.HOST_UNREACHABLE]
    for first in range(0, len(nics), CHUNK):
        some = nics[first : first + CHUNK]
        IpFetch.objects.bulk_create(
            IpFetch(
                nic_id=pk,
                state=STATES.get(pk % 20, IpFetch.State.FOUND),
                retries_left=pk % 11,
                tries=4,
                next_attempt_at=now + timedelta(seconds=pk % 180),
                entered_at=now - timedelta(seconds=pk),
                found_at=None if pk % 20 in STATES else now - timedelta(seconds=pk * 0.9),
                last_outcome=outcomes[pk // 20 % 3] if pk % 20 in STATES else Outcome.FOUND,
                last_source="agent",
            )
            for pk, _ in some
        )
        Observation.objects.bulk_create(
            Observation(
                nic_id=pk, address=address, family=4, source="agent", confidence="confirmed", first_seen_at=now,
                last_seen_at=now,
            )
            for pk, address in some
        )  # fmt: skip
    _happened()
    Sweep.objects.bulk_create(
        Sweep(
            at=now.replace(second=0, microsecond=0) - timedelta(minutes=minute), batches=9, nics=800, found=700,
            failed=0, seconds=9, slowest=2,
        )
        for minute in range(1, 24 * 60)
    )  # fmt: skip
    if connection.vendor == "mysql":
        tables = ",".join(model._meta.db_table for model in (IpFetch, Observation, Event, AsyncJob))
        with connection.cursor() as cursor:
            cursor.execute(f"ANALYZE TABLE {tables}")


def _happened() -> None:
    vms = list(VirtualMachine.objects.values_list("pk", "uuid", "account_id")[:EVENTS])
    user, now = User.objects.get(is_superuser=True), timezone.now()
    for first in range(0, len(vms), CHUNK):
        some = vms[first : first + CHUNK]
        Event.objects.bulk_create(
            Event(
                type=EventType.VM_START, description="started", account_id=account, resource_type="VirtualMachine",
                resource_uuid=uuid, created_at=now - timedelta(seconds=pk),
            )
            for pk, uuid, account in some
        )  # fmt: skip
    AsyncJob.objects.bulk_create(
        (
            AsyncJob(
                command="startVirtualMachine", status=Status.SUCCEEDED if pk % 50 else Status.FAILED,
                account_id=account, user=user, instance_type="VirtualMachine", instance_uuid=uuid,
                completed_at=now - timedelta(seconds=pk), error_text="" if pk % 50 else "No host has room.",
            )
            for pk, uuid, account in vms[:JOBS]
        ),
        batch_size=CHUNK,
    )  # fmt: skip


def pages(rounds: str) -> dict[str, float]:
    """Server times over that of the same page without panels: medians over rounds, each interleaved."""
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.get(is_superuser=True))
    asked: dict[str, Callable[[], str]] = {
        "shell": lambda: _shell(client),
        "dashboard": lambda: _page(client, "/"),
        "nics": lambda: _page(client, "/nics/"),
        "vms": lambda: _page(client, "/vms/"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for number in range(WARM_UP + int(rounds)):
        for name, ask in asked.items():
            began = perf_counter()
            ask()
            if number >= WARM_UP:
                seconds[name].append(perf_counter() - began)
    over_shell = {
        f"{name}_over_shell": median(a / b for a, b in zip(took, seconds["shell"], strict=True))
        for name, took in seconds.items()
        if name != "shell"
    }
    return {
        **over_shell,
        **{f"{name}_ms": 1000 * median(took) for name, took in seconds.items()},
        "dashboard_queries": _queries(client, "/"),
        "first_load_kb": max(_first_load(client, reverse(name)) for name in FIRST) / 1024,
    }


def _page(client: Client, path: str) -> str:
    answer = client.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code}"
    return str(answer.text)


def _shell(client: Client) -> str:
    """The overview's template, logged in, with no panels."""
    with mock.patch.object(panels, "registered", list):
        return _page(client, "/")


def _queries(client: Client, path: str) -> float:
    with CaptureQueriesContext(connection) as captured:
        _page(client, path)
    return float(len(captured))


def _first_load(client: Client, path: str) -> int:
    """Bytes, compressed, of a page with all that it refers to, for somebody who was never here."""
    page = _page(client, path)
    files = {finders.find(name) for name in REFERENCE.findall(page)}
    assert None not in files, f"{path} refers to a file that is not there."
    contents = [page.encode(), *(open(name, "rb").read() for name in files)]  # noqa: SIM115 - a bench's own files
    return sum(len(gzip.compress(content)) for content in contents)


def panel_times(rounds: str) -> dict[str, float]:
    """Milliseconds of each panel by itself, to find the one that is slow."""
    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.get(is_superuser=True))
    found = {}
    for panel in panels.registered():
        took = []
        for _ in range(int(rounds)):
            began = perf_counter()
            _page(client, f"/?panel={panel.slug}")
            took.append(perf_counter() - began)
        found[panel.slug] = 1000 * median(took)
    return found


STEPS: dict[str, Callable[..., object]] = {"make": make, "pages": pages, "panels": panel_times}

if __name__ == "__main__":
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
