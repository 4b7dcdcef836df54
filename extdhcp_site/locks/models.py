"""A lock that one process of the whole farm holds, on any database.

Taken, renewed and given back by one conditional UPDATE each: read-then-save loses most updates under
load, and MariaDB's GET_LOCK belongs to a connection and is not replicated. The fencing token grows at
every take-over, so a holder that slept past its time can be told from the present one.
"""

import contextlib
from dataclasses import dataclass
from datetime import timedelta

from django.db import IntegrityError, models, transaction
from django.db.models import ExpressionWrapper, F, Q
from django.db.models.functions import Now

LIFE = timedelta(seconds=10)


class Lock(models.Model):
    name = models.CharField(max_length=64, unique=True)
    holder = models.CharField(max_length=100, blank=True)
    token = models.PositiveBigIntegerField(default=0)
    # By the database's clock, so that the farm's clocks may differ.
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Held:
    """A lock as its holder knows it."""

    name: str
    holder: str
    token: int

    def renew(self) -> bool:
        """Ten more seconds; False if somebody else has it by now."""
        return bool(self._mine().filter(expires_at__gt=Now()).update(expires_at=_end()))

    def release(self) -> None:
        self._mine().update(expires_at=None, holder="")

    def _mine(self) -> models.QuerySet[Lock]:
        return Lock.objects.filter(name=self.name, holder=self.holder, token=self.token)


def _end():
    return ExpressionWrapper(Now() + LIFE, output_field=models.DateTimeField())


def acquire(name: str, holder: str) -> Held | None:
    """Take the lock for ten seconds, or None while another holds it. `holder` names a process."""
    free = Q(expires_at=None) | Q(expires_at__lte=Now())
    taken = Lock.objects.filter(free, name=name).update(holder=holder, token=F("token") + 1, expires_at=_end())
    if not taken:
        if Lock.objects.filter(name=name).exists():
            return None
        # Two may see that the row is missing; one makes it.
        with contextlib.suppress(IntegrityError), transaction.atomic():
            Lock.objects.create(name=name)
        return acquire(name, holder)
    token = Lock.objects.filter(name=name, holder=holder).values_list("token", flat=True).first()
    # None: we slept for ten seconds between the two statements and another took over.
    return None if token is None else Held(name, holder, token)
