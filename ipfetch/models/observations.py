"""Every address that anybody reported for a NIC, and whom is asked in which order."""

from datetime import datetime
from typing import Self

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Case, F, Value, When

from extdhcp_site.accounts.models import Caller
from extdhcp_site.models import UuidModel
from networks.hypervisors.base import Source
from networks.models import HypervisorType, Nic, Zone
from networks.models.offerings import OsFamily

CHAINED = [Source.GUEST_AGENT, Source.LEASE, Source.NEIGHBOUR, Source.DISK]


class Confidence(models.TextChoices):
    """How far a source can be believed."""

    CONFIRMED = "confirmed", "Confirmed"
    UNCONFIRMED = "unconfirmed", "Unconfirmed"


class Flag(models.TextChoices):
    """What is odd about an address; it is kept, and not taken for the NIC's own when it is outside."""

    OUTSIDE = "outside", "Outside the network's CIDR"
    CONFLICT = "conflict", "Another NIC of the network has it too"


class ObservationQuerySet(models.QuerySet["Observation"]):
    def visible_to(self, caller: Caller) -> Self:
        return self if caller.is_root else self.filter(nic__in=Nic.objects.visible_to(caller))

    def current(self) -> Self:
        """What each source said when it was last heard."""
        return self.filter(ended_at=None)

    def end(self, now: datetime) -> int:
        """They are history: no conflict is, but an address outside the network was outside of it."""
        kept = Case(When(flag=Flag.CONFLICT, then=Value("")), default=F("flag"))
        # By key, and without joins: see `IpFetchQuerySet.update_by_key`.
        rows = Observation.objects.filter(pk__in=list(self.order_by("pk").values_list("pk", flat=True)))
        return rows.update(ended_at=now, flag=kept)


class Observation(UuidModel):
    """One address as one source has told it, for as long as it did."""

    nic = models.ForeignKey(Nic, on_delete=models.CASCADE, related_name="observations")
    address = models.GenericIPAddressField()
    family = models.PositiveSmallIntegerField(choices=[(4, "IPv4"), (6, "IPv6")])
    prefix = models.PositiveSmallIntegerField(null=True, blank=True)
    source = models.CharField(max_length=20)
    confidence = models.CharField(max_length=11, choices=Confidence.choices)
    flag = models.CharField(max_length=8, choices=Flag.choices, blank=True)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()
    # The end of the lease, as its server's script has told it.
    expires_at = models.DateTimeField(null=True, blank=True)
    # The source has answered since, without it; or the VM stopped.
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = ObservationQuerySet.as_manager()

    class Meta:
        ordering = ["-last_seen_at", "-id"]
        constraints = [models.UniqueConstraint(fields=["nic", "source", "address"], name="observed_once_by_a_source")]
        indexes = [models.Index(fields=["address"]), models.Index(fields=["expires_at"])]

    def __str__(self) -> str:
        return f"{self.address} by {self.source}"


def check_chain(text: str) -> None:
    """Raises ValidationError."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = [source.value for source in CHAINED]
    if not names or set(names) - set(known) or len(names) != len(set(names)):
        raise ValidationError(f"Some of {', '.join(known)}, each once, with commas between.")


class AddressChain(models.Model):
    """Whom a zone asks for addresses, in which order. Without a row: agent, lease, arp, disk."""

    zone = models.ForeignKey(Zone, on_delete=models.CASCADE, related_name="+")
    hypervisor = models.CharField(max_length=10, choices=HypervisorType.choices, default=HypervisorType.KVM)
    os_family = models.CharField("OS family", max_length=7, choices=OsFamily.choices, default=OsFamily.LINUX)
    sources = models.CharField(
        max_length=100,
        validators=[check_chain],
        help_text="agent, lease, arp and disk, the first to be asked first; what is left out is not asked.",
    )

    class Meta:
        ordering = ["zone", "hypervisor", "os_family"]
        constraints = [
            models.UniqueConstraint(fields=["zone", "hypervisor", "os_family"], name="one_chain_for_a_kind_of_guest"),
        ]

    def __str__(self) -> str:
        return f"{self.zone}, {self.os_family} on {self.hypervisor}: {self.sources}"

    @property
    def ordered(self) -> tuple[Source, ...]:
        return tuple(Source(name.strip()) for name in self.sources.split(",") if name.strip())
