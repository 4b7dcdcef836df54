"""Asynchronous jobs: what a client polls, and what survives the death of a worker."""

import json
from typing import Self
from uuid import UUID

from django.db import models
from django.utils import timezone

from extdhcp_site.accounts.models import Account, OwnedQuerySet, User
from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.events.models import Subject
from extdhcp_site.models import UuidModel


class Status(models.IntegerChoices):
    """CloudStack's `jobstatus`."""

    PENDING = 0, "Pending"
    SUCCEEDED = 1, "Succeeded"
    FAILED = 2, "Failed"


class AsyncJobQuerySet(OwnedQuerySet):
    def pending(self) -> Self:
        return self.filter(status=Status.PENDING)

    def about(self, kind: str, uuid: UUID) -> Self:
        """The jobs of one object: the pending one first, then the latest."""
        jobs = self.filter(instance_uuid=uuid, instance_type__iexact=kind)
        return jobs.order_by(models.F("busy_with").asc(nulls_last=True), "-created_at", "-id")


class AsyncJob(UuidModel):
    """One command at work on one object.

    `attempt` is a fence: every write of a worker asks for its own attempt, so one that was given up
    for dead changes nothing when it comes back.
    """

    command = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(choices=Status.choices, default=Status.PENDING)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    # Null: the system itself submitted it.
    user = models.ForeignKey(User, on_delete=models.PROTECT, null=True, related_name="+")
    instance_type = models.CharField(max_length=40)
    instance_uuid = models.UUIDField(db_index=True)
    # As it was called when the job was submitted: events say it, also after the object is gone.
    instance_name = models.CharField(max_length=255, blank=True, default="")
    # The object's uuid while the job is pending, then null: one job at a time works on an object.
    busy_with = models.UUIDField(null=True, unique=True)
    arguments = models.JSONField(default=dict)
    attempt = models.PositiveIntegerField(default=1)
    lost_workers = models.PositiveSmallIntegerField(default=0)
    progress = models.CharField(max_length=200, blank=True)
    progress_for_operator = models.CharField(max_length=200, blank=True, default="")
    scheduled_event = models.UUIDField(null=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    queued_at = models.DateTimeField(default=timezone.now)
    heartbeat_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    error_code = models.PositiveSmallIntegerField(null=True)
    error_text = models.CharField(max_length=1024, blank=True)
    error_for_operator = models.CharField(max_length=1024, blank=True)
    # What the result says beside the object as it is: {"passworddelivery": "at the next start"}. No secrets.
    remarks = models.JSONField(default=dict)
    # What only the caller may read, and not for long: {"password": ...}.
    secret = EncryptedTextField(null=True)
    secret_read_at = models.DateTimeField(null=True)

    objects = AsyncJobQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status=Status.PENDING) | models.Q(busy_with=None), name="ended_job_frees_its_object"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.command} {self.uuid}"

    @property
    def subject(self) -> Subject:
        return Subject(self.instance_type, self.instance_uuid, self.instance_name)

    @property
    def secrets(self) -> dict[str, str]:
        return json.loads(self.secret) if self.secret else {}
