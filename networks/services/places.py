"""From a host's row to the driver that speaks to it, and from its errors to ours."""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db.models import F
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Role
from extdhcp_site.errors import ApiError, InternalError, ResourceUnavailable
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Level
from networks.elements import Place
from networks.hypervisors import base
from networks.hypervisors.drivers import driver
from networks.models import Endpoint, Host, VirtualMachine
from networks.models.infrastructure import HostState

# Long enough for a slow host, short enough that a stuck one fails its job in this life.
CALL = 30.0
LONG_CALL = 600.0
HEALTH_CALL = 15.0

FIRST_BREAK = timedelta(seconds=5)
LONGEST_BREAK = timedelta(seconds=60)
ALERT_AT = 3


def within(seconds: float) -> float:
    """A deadline on the monotonic clock, as drivers take it."""
    return time.monotonic() + seconds


def hypervisor_at(endpoint: Endpoint) -> Any:
    """The driver that speaks to an endpoint; which protocols it serves is asked with isinstance."""
    return driver(endpoint.kind, endpoint.address)


def hypervisor_behind(kind: str, address: base.EndpointAddress, host: str = "") -> Any:
    """The driver for an endpoint that is perhaps not stored, or for one host of it."""
    return driver(kind, address, host)


def place(host: Host) -> Place:
    return Place(host, driver(host.endpoint.kind, host.endpoint.address, host.name))


@contextlib.contextmanager
def translated(host: Host) -> Iterator[None]:
    """Turn a driver's errors into what a job or an API caller is told; hosts are named to operators only."""
    try:
        yield
    except base.TryAgainLater as error:
        record_failure(host, error)
        raise ResourceUnavailable(
            "The hypervisor did not answer. Try again later, or ask your administrator.",
            for_operator=f"Host {host}: {error} Run: manage.py check_endpoint {host.endpoint}",
        ) from error
    except base.AskTheOperator as error:
        raise ResourceUnavailable(
            "A host is not set up for this. Ask your administrator.", for_operator=f"Host {host}: {error}"
        ) from error
    except base.HypervisorError as error:
        raise InternalError(
            "The hypervisor refused. Ask your administrator.", for_operator=f"Host {host}: {error}"
        ) from error


@contextlib.contextmanager
def tolerated(log, what: str) -> Iterator[None]:
    """For clean-up that must not stop what follows: a failure is logged and the work goes on."""
    try:
        yield
    except (base.HypervisorError, ApiError) as error:
        log.warning(f"{what} failed", error=str(error))


def record_failure(host: Host, error: base.HypervisorError) -> None:
    """What a failed call to a host says of that host and of its endpoint: mostly nothing."""
    match error:
        case base.HostUnavailable():
            record_unavailable(host, str(error))
        case base.DeadlineExceeded():
            # One long operation may take too long at an endpoint that answers everybody else.
            try:
                hypervisor_at(host.endpoint).host_facts(within(HEALTH_CALL))
            except base.HypervisorError:
                record_health(host.endpoint, str(error))
        case base.EndpointUnreachable():
            record_health(host.endpoint, str(error))


def record_unavailable(host: Host, reason: str) -> None:
    """Remember whether one host of an endpoint that answers can be used; it can when there is no `reason` against it.

    Operators hear of each change.
    """
    row = Host.objects.filter(pk=host.pk)
    if reason:
        changed = row.filter(unavailable="").update(state=HostState.DOWN, unavailable=reason[:255])
        text, level = f"{host} cannot be used: {reason}", Level.ERROR
    else:
        changed = row.exclude(unavailable="").update(state=HostState.UP, unavailable="")
        text, level = f"{host} can be used again", Level.INFO
    if changed:
        alert(host, text, level)


def record_health(endpoint: Endpoint, error: str = "", *, stuck_calls: int | None = None) -> None:
    """Remember whether an endpoint answered. One that did not gets no new VMs until it does, and is left alone a
    while by those who ask often: longer with each failure in a row. Operators hear of the third.
    """
    now = timezone.now()
    row = Endpoint.objects.filter(pk=endpoint.pk)
    stuck = {} if stuck_calls is None else {"stuck_calls": stuck_calls}
    if error:
        # One statement alone makes it the third: several may fail at the same moment.
        is_third = row.filter(failures=ALERT_AT - 1).update(failures=ALERT_AT)
        if not is_third:
            row.exclude(failures=ALERT_AT - 1).update(failures=F("failures") + 1)
        failures = row.values_list("failures", flat=True).first() or 1
        retry_at = now + min(FIRST_BREAK * 2 ** min(failures - 1, 10), LONGEST_BREAK)
        row.update(last_error=error[:255], retry_at=retry_at, **stuck)
        if is_third:
            alert(endpoint, f"{endpoint} does not answer: {error}", Level.ERROR)
    elif row.filter(last_error="", up_since__isnull=False).update(last_ok_at=now, **stuck):
        return  # as it was: there is nothing else to write
    else:
        # A call that failed by itself was no outage.
        was_out = row.filter(failures__gte=ALERT_AT).update(failures=0, up_since=now)
        row.filter(up_since=None).update(up_since=now)
        row.update(last_error="", last_ok_at=now, failures=0, retry_at=None, **stuck)
        if was_out:
            alert(endpoint, f"{endpoint} answers again", Level.INFO)
    state = HostState.DOWN if error else HostState.UP
    # One that cannot be used by itself is not up because its endpoint answers.
    Host.objects.filter(endpoint=endpoint, unavailable="").exclude(state=state).update(state=state)


def alert(on: Endpoint | Host | VirtualMachine, text: str, level: Level) -> None:
    """Tell operators, and nobody else."""
    operators = Account.objects.filter(role=Role.ROOT_ADMIN).order_by("pk").first()
    if operators:
        events.record(EventType.HOST_ALERT, text, account=operators, on=on, level=level)
