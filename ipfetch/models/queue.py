"""Which NIC waits for its address, and when it is asked for next: the queue is this table."""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from ipfetch.schedule import Pace
from ipfetch.writing.bulk import batched
from networks.hypervisors.base import Outcome as ReadOutcome
from networks.models import Nic


class Outcome(models.TextChoices):
    """What came of the last try, in words for the person who waits."""

    FOUND = ReadOutcome.FOUND.value, "Found"
    NONE_YET = ReadOutcome.NONE_YET.value, "The guest has no address yet"
    AGENT_ABSENT = ReadOutcome.AGENT_ABSENT.value, "No guest agent answers in the VM"
    AGENT_SILENT = ReadOutcome.AGENT_SILENT.value, "The guest agent stopped answering"
    HOST_UNREACHABLE = ReadOutcome.HOST_UNREACHABLE.value, "The host does not answer"
    AMBIGUOUS = ReadOutcome.AMBIGUOUS.value, "Several addresses, none clearly its own"
    NOT_RUNNING = ReadOutcome.NOT_RUNNING.value, "The VM is not running on its host"

    @property
    def advice(self) -> str:
        """Why there is no address, and what to do, in one sentence each."""
        return " ".join(filter(None, [f"{self.label}.", NEXT_STEP.get(self, "")]))


NEXT_STEP: dict[Outcome, str] = {
    Outcome.NONE_YET: "Check the VLAN, and that the DHCP server has free addresses for it.",
    Outcome.AGENT_ABSENT: "Install and start qemu-guest-agent (XenServer, VMware: its tools) in the template.",
    Outcome.AGENT_SILENT: "Look at the VM's console: the guest may hang.",
    Outcome.HOST_UNREACHABLE: "An administrator can find out why with check_endpoint.",
    Outcome.AMBIGUOUS: "Compare the network's CIDR with the DHCP server's range.",
    Outcome.NOT_RUNNING: "Stop the VM, then start it.",
}


class IpFetchQuerySet(models.QuerySet["IpFetch"]):
    def visible_to(self, caller: Caller) -> Self:
        return self if caller.is_root else self.filter(nic__in=Nic.objects.visible_to(caller))

    def waiting(self) -> Self:
        return self.filter(state=IpFetch.State.WAITING)

    def settled(self) -> Self:
        """NICs that are looked at again only slowly: those that have their address, and those given up."""
        return self.filter(state__in=[IpFetch.State.FOUND, IpFetch.State.EXHAUSTED])

    def free(self, now: datetime) -> Self:
        """Those that no batch holds."""
        return self.filter(Q(claimed_until=None) | Q(claimed_until__lte=now))

    def due(self, now: datetime) -> Self:
        """Free NICs whose next try has come, the longest overdue first."""
        return self.free(now).filter(next_attempt_at__lte=now).order_by("next_attempt_at")

    def on_endpoint(self, endpoint_id: int) -> Self:
        return self.filter(nic__vm__host__endpoint_id=endpoint_id)

    def claimed(self, now: datetime) -> Self:
        """Those that a batch holds now."""
        return self.filter(claimed_until__gt=now)

    def pks(self) -> list[int]:
        return list(self.order_by("pk").values_list("pk", flat=True))

    def update_by_key(self, **changes: object) -> int:
        """`update`, in statements that name the rows by their keys, some at a time.

        Through joins, MariaDB would lock VMs and NICs after the rows: the other way round than a start or stop does,
        and the two would wait for each other.
        """
        return sum(IpFetch.objects.filter(pk__in=some).update(**changes) for some in batched(self.pks(), 5_000))

    def begin_anew(self, pace: Pace, now: datetime) -> int:
        """Give NICs all their tries. The new attempt number shuts out a batch that is still under way."""
        first = now + pace.delay(0)
        return self.update_by_key(
            state=IpFetch.State.WAITING,
            retries_left=pace.max_retry,
            tries=0,
            next_attempt_at=first,
            scheduled_at=first,
            eager_until=None,
            claimed_until=None,
            last_outcome="",
            last_detail="",
            entered_at=now,
            found_at=None,
            attempt=F("attempt") + 1,
        )


class IpFetch(models.Model):
    """One NIC's place in the queue. It replaces the spec's map of NIC to remaining count."""

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        FOUND = "found", "Found"
        EXHAUSTED = "exhausted", "Given up"
        PAUSED = "paused", "Paused"

    class Claim(models.TextChoices):
        """What the present claim took, and what a NIC that is not reached gets back."""

        EARLY = "early", "An early try, which is not counted"
        COUNTED = "counted", "One of the tries that are counted"
        ASKED = "asked", "Nothing: a person asked"
        PUSHED = "pushed", "Nothing: the hypervisor told that the guest is ready"
        REFRESH = "refresh", "Nothing: it is looked at again"

    nic = models.OneToOneField(Nic, on_delete=models.CASCADE, related_name="ip_fetch")
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING)
    retries_left = models.PositiveIntegerField()
    # Tries since the NIC entered the queue; the early ones come quickly.
    tries = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    # When its next try is due by the schedule. Who is asked before that, because something was told, spends nothing.
    scheduled_at = models.DateTimeField(null=True)
    # The guest is about to have its address: until then it is asked each second.
    eager_until = models.DateTimeField(null=True)
    # The fence: grows with each claim, and every write of a batch asks for its own.
    attempt = models.PositiveIntegerField(default=0)
    claimed_until = models.DateTimeField(null=True)
    # A reader has begun with it. A claim that ran out before that has cost nothing.
    begun = models.BooleanField(default=False)
    claim = models.CharField(max_length=7, choices=Claim.choices, blank=True)
    last_attempt_at = models.DateTimeField(null=True)
    last_outcome = models.CharField(max_length=16, choices=Outcome.choices, blank=True)
    last_source = models.CharField(max_length=20, blank=True)
    last_detail = models.CharField(max_length=255, blank=True)
    entered_at = models.DateTimeField(default=timezone.now)
    found_at = models.DateTimeField(null=True)

    objects = IpFetchQuerySet.as_manager()

    class Meta:
        ordering = ["nic"]
        verbose_name = "address fetch"
        verbose_name_plural = "address fetches"
        indexes = [
            models.Index(fields=["state", "next_attempt_at"]),
            models.Index(fields=["claimed_until"]),
        ]
        constraints = [
            models.CheckConstraint(
                condition=~Q(state="waiting") | Q(next_attempt_at__isnull=False), name="waiting_nic_has_a_next_try"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.nic}: {self.state}"

    @property
    def explanation(self) -> str:
        """Why there is no address, and what to do, in one sentence each."""
        if not self.last_outcome:
            return "Not tried yet."
        return Outcome(self.last_outcome).advice
