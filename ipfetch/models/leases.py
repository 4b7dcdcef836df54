"""DHCP servers whose leases are looked at, and the tokens by which such servers report a lease themselves."""

import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Self

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from extdhcp_site.accounts.models import hash_token
from extdhcp_site.models import UuidModel
from networks.models import Network

NOTED_EVERY = timedelta(minutes=1)
_STEP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


def check_path(text: str) -> None:
    """Raises ValidationError."""
    if not all(_STEP.fullmatch(step) for step in text.split("/")):
        raise ValidationError(
            "A path below the directory for lease files: names of letters, digits, dots, hyphens and underscores, "
            "with slashes between, none of which begins with a dot."
        )


class LeaseServerQuerySet(models.QuerySet["LeaseServer"]):
    def serving(self, network_ids: Collection[int]) -> Self:
        """Enabled servers that hand out addresses on some of these networks, with all their networks."""
        return self.filter(enabled=True, networks__in=network_ids).distinct().prefetch_related("networks")


class LeaseServer(models.Model):
    """A DHCP server that keeps its leases in a file which this server can read."""

    class Kind(models.TextChoices):
        DNSMASQ = "dnsmasq", "dnsmasq"
        ISC = "isc", "ISC dhcpd"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=7, choices=Kind.choices)
    path = models.CharField(
        "lease file",
        max_length=255,
        validators=[check_path],
        help_text="Below the directory for lease files (LEASE_DIR): dnsmasq.leases, or site-a/dhcpd.leases.",
    )
    networks = models.ManyToManyField(Network, related_name="lease_servers")
    enabled = models.BooleanField(default=True)
    last_read_at = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=255, blank=True, editable=False)

    objects = LeaseServerQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = "DHCP server"

    def __str__(self) -> str:
        return self.name

    def note(self, error: str, now: datetime, *, was_read: bool) -> None:
        """At most one write a minute while nothing goes wrong."""
        changes: dict[str, object] = {}
        if error != self.last_error:
            changes["last_error"] = error
        if was_read and (self.last_read_at is None or now - self.last_read_at >= NOTED_EVERY):
            changes["last_read_at"] = now
        if changes:
            LeaseServer.objects.filter(pk=self.pk).update(**changes)


class LeaseTokenQuerySet(models.QuerySet["LeaseToken"]):
    def usable(self) -> Self:
        return self.filter(disabled_at=None)


class LeaseToken(UuidModel):
    """Lets a DHCP server report the leases of one network, and nothing else. Only the token's hash is kept."""

    network = models.ForeignKey(Network, on_delete=models.CASCADE, related_name="lease_tokens")
    name = models.CharField(max_length=100, help_text="Who uses it, for instance the DHCP server's host name.")
    token_hash = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = LeaseTokenQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.name} on {self.network}"

    def new_token(self) -> str:
        """A new secret for this row, to be saved with it; in clear for this one time."""
        token = secrets.token_urlsafe(48)
        self.token_hash = hash_token(token)
        return token

    def note_use(self, now: datetime) -> None:
        """At most one write a minute, however many reports come."""
        before = now - NOTED_EVERY
        if self.last_used_at is None or self.last_used_at < before:
            unnoted = Q(last_used_at=None) | Q(last_used_at__lt=before)
            LeaseToken.objects.filter(unnoted, pk=self.pk).update(last_used_at=now)


def create_lease_token(network: Network, name: str) -> str:
    """A new token for the network's DHCP server, in clear for the one time that it is shown."""
    row = LeaseToken(network=network, name=name)
    token = row.new_token()
    row.save()
    return token
