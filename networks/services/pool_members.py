"""Who belongs to a pool, written down while it answers: when its coordinator is dead, the others know the new one."""

from datetime import datetime, timedelta

import structlog
from django.db.models import Q

from extdhcp_site.locks.models import Held
from networks.hypervisors.base import HypervisorError, PoolReader
from networks.models import Endpoint, HypervisorType
from networks.services.places import CALL, hypervisor_at, within

log = structlog.get_logger(__name__)

# Hosts join and leave, and their certificates are renewed.
HOLD_FOR = timedelta(hours=1)


def look_at_pools(lock: Held, now: datetime) -> None:
    """Ask the pools that have not told for a while of which hosts they are."""
    due = Q(members_at=None) | Q(members_at__lt=now - HOLD_FOR)
    for endpoint in Endpoint.objects.filter(due, kind=HypervisorType.XENSERVER, retry_at=None):
        if not lock.renew():
            return
        hypervisor = hypervisor_at(endpoint)
        if not isinstance(hypervisor, PoolReader):
            continue
        try:
            members = hypervisor.members(within(CALL))
        except HypervisorError as error:
            log.warning("A pool does not tell of its hosts.", endpoint=endpoint.name, error=str(error))
            continue
        # Who changed the address meanwhile has made it another pool.
        address = {name: getattr(endpoint, name) for name in Endpoint.ADDRESS_FIELDS}
        told = [[member.host, member.fingerprint] for member in members]
        Endpoint.objects.filter(pk=endpoint.pk, **address).update(members=told, members_at=now)
