"""What operators have to know of: one open alert for each kind of trouble of each thing."""

from typing import Self

from django.db import models
from django.db.models import Q

from extdhcp_site.accounts.models import Account, Caller
from extdhcp_site.models import UuidModel

LONGEST_TEXT = 1024


class Kind(models.TextChoices):
    """Named as in CloudStack, whose events of the same type tell when one opens and ends; the last four are our own."""

    MEMORY = "ALERT.MEMORY", "Memory is low"
    CPU = "ALERT.CPU", "CPU is low"
    STORAGE = "ALERT.STORAGE", "Storage is low"
    HOST = "ALERT.COMPUTE.HOST", "Host is silent"
    VM = "ALERT.USERVM", "VM is down"
    ENDPOINT = "ALERT.COMPUTE.ENDPOINT", "Endpoint does not answer"
    ADDRESSES = "ALERT.EXTERNAL.DHCP", "Addresses given up"
    PASSES = "ALERT.MANAGEMENT.PASSES", "Passes are late"
    MAIL = "ALERT.MANAGEMENT.MAIL", "Mail is not sent"

    @property
    def number(self) -> int:
        """CloudStack's number of the type; several of ours are one of its."""
        return _NUMBERS[self]


_NUMBERS = {
    Kind.MEMORY: 0,
    Kind.CPU: 1,
    Kind.STORAGE: 2,
    Kind.HOST: 7,
    Kind.ENDPOINT: 7,
    Kind.VM: 8,
    Kind.ADDRESSES: 11,
    Kind.PASSES: 14,
    Kind.MAIL: 14,
}


def kinds() -> list[tuple[str, str]]:
    """By name in the migrations, so that a new kind needs none."""
    return Kind.choices


class AlertQuerySet(models.QuerySet["Alert"]):
    def visible_to(self, caller: Caller) -> Self:
        """Root admins' alone: alerts name hosts. One whose trouble may pass by itself is nobody's yet."""
        return self.raised() if caller.is_root else self.none()

    def raised(self) -> Self:
        return self.exclude(raised_at=None)

    def unresolved(self) -> Self:
        return self.filter(resolved_at=None)

    def open(self) -> Self:
        """Those that nobody has acknowledged."""
        return self.raised().unresolved().filter(acknowledged_at=None)

    def acknowledged(self) -> Self:
        return self.raised().unresolved().exclude(acknowledged_at=None)

    def resolved(self) -> Self:
        return self.exclude(resolved_at=None)


class Alert(UuidModel):
    """Trouble of one kind of one thing, from its first sight to its end. The thing may be gone, so it is named."""

    kind = models.CharField(max_length=64, choices=kinds, db_index=True)
    subject_kind = models.CharField(max_length=40)
    subject_uuid = models.UUIDField()
    subject_name = models.CharField(max_length=255)
    # Kind and subject while it is not resolved, then null: the database lets one of them in.
    open_key = models.CharField(max_length=101, null=True, unique=True, editable=False)  # noqa: DJ001
    # Whom it concerns beside the operators.
    account = models.ForeignKey(Account, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    text = models.CharField(max_length=LONGEST_TEXT)
    advice = models.CharField(max_length=LONGEST_TEXT, blank=True)
    # The path of the list behind it, on this server.
    link = models.CharField(max_length=255, blank=True)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    # When it had lasted long enough to be told.
    raised_at = models.DateTimeField(null=True, blank=True, db_index=True)
    # How often it has begun: what comes back soon after its end is the same alert.
    count = models.PositiveIntegerField(default=1)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True, db_index=True)
    mailed_at = models.DateTimeField(null=True, blank=True)
    end_mailed_at = models.DateTimeField(null=True, blank=True)
    # Until then it is in a mail that somebody is sending.
    mailing_until = models.DateTimeField(null=True, blank=True, editable=False)
    archived = models.BooleanField(default=False)

    objects = AlertQuerySet.as_manager()

    class Meta:
        ordering = ["-first_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(open_key=None, resolved_at__isnull=False) | Q(open_key__isnull=False, resolved_at=None),
                name="resolved_alert_makes_room",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.subject_name}"

    @property
    def state(self) -> str:
        """Open, Acknowledged or Resolved."""
        if self.resolved_at:
            return "Resolved"
        return "Acknowledged" if self.acknowledged_at else "Open"
