"""What happened, for the people it happened to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from uuid import UUID

from django.db import models
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, OwnedQuerySet
from extdhcp_site.bulk import insert_all
from extdhcp_site.models import UuidModel

LONGEST_DESCRIPTION = 1024


class EventType(models.TextChoices):
    """The admin guide's list (15.1.3), as far as this product does these things, and the spec's.

    What the guide's list lacks is spelt as in CloudStack 4.19; VM.CONFIGDRIVE, DELETE.SSH.KEYPAIR, DISABLE.USER.KEY,
    what becomes of endpoints, hosts and their places and of an address after it was fetched, and the alerts of this
    product (`Kind` in alerts/models.py) are our own.
    """

    VM_CREATE = "VM.CREATE"
    VM_DESTROY = "VM.DESTROY"
    VM_EXPUNGE = "VM.EXPUNGE"
    VM_START = "VM.START"
    VM_STOP = "VM.STOP"
    VM_REBOOT = "VM.REBOOT"
    VM_MIGRATE = "VM.MIGRATE"
    VM_UPDATE = "VM.UPDATE"
    VM_RECOVER = "VM.RECOVER"
    VM_RESETPASSWORD = "VM.RESETPASSWORD"
    VM_RESETSSHKEY = "VM.RESETSSHKEY"
    VM_RESETUSERDATA = "VM.RESETUSERDATA"
    VM_UPGRADE = "VM.UPGRADE"
    VM_RESTORE = "VM.RESTORE"
    VM_CONFIGDRIVE = "VM.CONFIGDRIVE"
    NIC_CREATE = "NIC.CREATE"
    NIC_DELETE = "NIC.DELETE"
    NIC_UPDATE = "NIC.UPDATE"
    SECONDARY_IP_ASSIGN = "NIC.SECONDARY.IP.ASSIGN"
    SECONDARY_IP_UNASSIGN = "NIC.SECONDARY.IP.UNASSIGN"
    NETWORK_CREATE = "NETWORK.CREATE"
    NETWORK_UPDATE = "NETWORK.UPDATE"
    NETWORK_DELETE = "NETWORK.DELETE"
    NETWORK_RESTART = "NETWORK.RESTART"
    NETWORK_OFFERING_CREATE = "NETWORK.OFFERING.CREATE"
    NETWORK_OFFERING_EDIT = "NETWORK.OFFERING.EDIT"
    NETWORK_OFFERING_DELETE = "NETWORK.OFFERING.DELETE"
    SERVICE_OFFERING_CREATE = "SERVICE.OFFERING.CREATE"
    SERVICE_OFFERING_EDIT = "SERVICE.OFFERING.EDIT"
    SERVICE_OFFERING_DELETE = "SERVICE.OFFERING.DELETE"
    TEMPLATE_CREATE = "TEMPLATE.CREATE"
    TEMPLATE_UPDATE = "TEMPLATE.UPDATE"
    TEMPLATE_DELETE = "TEMPLATE.DELETE"
    TAGS_CREATE = "CREATE_TAGS"
    TAGS_DELETE = "DELETE_TAGS"
    CONFIGURATION_EDIT = "CONFIGURATION.VALUE.EDIT"
    DOMAIN_CREATE = "DOMAIN.CREATE"
    DOMAIN_UPDATE = "DOMAIN.UPDATE"
    DOMAIN_DELETE = "DOMAIN.DELETE"
    ACCOUNT_CREATE = "ACCOUNT.CREATE"
    ACCOUNT_UPDATE = "ACCOUNT.UPDATE"
    ACCOUNT_DISABLE = "ACCOUNT.DISABLE"
    ACCOUNT_ENABLE = "ACCOUNT.ENABLE"
    ACCOUNT_DELETE = "ACCOUNT.DELETE"
    USER_CREATE = "USER.CREATE"
    USER_UPDATE = "USER.UPDATE"
    USER_DISABLE = "USER.DISABLE"
    USER_ENABLE = "USER.ENABLE"
    USER_DELETE = "USER.DELETE"
    USER_LOGIN = "USER.LOGIN"
    USER_LOGOUT = "USER.LOGOUT"
    API_KEY_CREATE = "REGISTER.USER.KEY"
    API_KEY_DISABLE = "DISABLE.USER.KEY"
    ZONE_CREATE = "ZONE.CREATE"
    POD_CREATE = "POD.CREATE"
    CLUSTER_CREATE = "CLUSTER.CREATE"
    STORAGE_POOL_CREATE = "STORAGE.POOL.CREATE"
    ENDPOINT_CREATE = "ENDPOINT.CREATE"
    ENDPOINT_UPDATE = "ENDPOINT.UPDATE"
    ENDPOINT_DELETE = "ENDPOINT.DELETE"
    ENDPOINT_CHECK = "ENDPOINT.CHECK"
    HOST_CREATE = "HOST.CREATE"
    HOST_UPDATE = "HOST.UPDATE"
    HOST_DELETE = "HOST.DELETE"
    SSH_KEY_PAIR_REGISTER = "REGISTER.SSH.KEYPAIR"
    SSH_KEY_PAIR_DELETE = "DELETE.SSH.KEYPAIR"
    IP_FETCH = "EXTERNAL.DHCP.VM.IP.FETCH"
    IP_CHANGE = "EXTERNAL.DHCP.VM.IP.CHANGE"
    IP_CONFLICT = "EXTERNAL.DHCP.VM.IP.CONFLICT"
    IP_OUTSIDE = "EXTERNAL.DHCP.VM.IP.OUTSIDE"
    HOST_ALERT = "ALERT.COMPUTE.HOST"
    ENDPOINT_ALERT = "ALERT.COMPUTE.ENDPOINT"
    MEMORY_ALERT = "ALERT.MEMORY"
    CPU_ALERT = "ALERT.CPU"
    STORAGE_ALERT = "ALERT.STORAGE"
    VM_ALERT = "ALERT.USERVM"
    ADDRESSES_ALERT = "ALERT.EXTERNAL.DHCP"
    PASSES_ALERT = "ALERT.MANAGEMENT.PASSES"
    MAIL_ALERT = "ALERT.MANAGEMENT.MAIL"


def event_types() -> list[tuple[str, str]]:
    """By name in the migrations, so that a new type needs none."""
    return EventType.choices


class Level(models.TextChoices):
    INFO = "INFO"
    WARN = "WARN"
    ERROR = "ERROR"


class State(models.TextChoices):
    """A job leaves a Scheduled, a Started and a Completed event with one parent; all else is Created."""

    CREATED = "Created"
    SCHEDULED = "Scheduled"
    STARTED = "Started"
    COMPLETED = "Completed"


@dataclass(frozen=True)
class Subject:
    """What an event is about, as it was called at the time: it may be gone."""

    kind: str
    uuid: UUID
    name: str

    @classmethod
    def of(cls, resource: UuidModel) -> "Subject":
        return cls(type_name(resource), resource.uuid, str(resource)[:255])


class EventQuerySet(OwnedQuerySet):
    def about(self, resource: UuidModel) -> Self:
        return self.filter(resource_uuid=resource.uuid)


class Event(UuidModel):
    """One line of the log. The resource may be gone, so it is named, not referenced."""

    type = models.CharField(max_length=64, choices=event_types)
    level = models.CharField(max_length=5, choices=Level.choices, default=Level.INFO)
    state = models.CharField(max_length=9, choices=State.choices, default=State.CREATED)
    description = models.CharField(max_length=LONGEST_DESCRIPTION)
    # What only root admins read: hosts and storage are not visible to users.
    for_operator = models.CharField(max_length=LONGEST_DESCRIPTION, blank=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+", db_index=False)
    username = models.CharField(max_length=150, default="system")
    resource_type = models.CharField(max_length=40, blank=True, default="")
    resource_uuid = models.UUIDField(null=True, blank=True, db_index=True)
    resource_name = models.CharField(max_length=255, blank=True, default="")
    parent_uuid = models.UUIDField(null=True, blank=True, db_index=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    archived = models.BooleanField(default=False)

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        # The last ones are what is looked at: with the account or the type alone, all of its would be sorted.
        indexes = [
            models.Index(fields=["account", "created_at"], name="event_account_created"),
            models.Index(fields=["type", "created_at"], name="event_type_created"),
        ]

    def __str__(self) -> str:
        return f"{self.type}: {self.description}"

    def text_for(self, caller: Caller) -> str:
        return f"{self.description} {self.for_operator}".strip() if caller.is_root else self.description


def record(
    type: EventType,
    text: str,
    *,
    account: Account,
    on: UuidModel | Subject | None = None,
    by: Caller | None = None,
    level: Level = Level.INFO,
    state: State = State.CREATED,
    parent: UUID | None = None,
    for_operator: str = "",
) -> Event:
    """Write one event, in the caller's transaction.

    `account` is whom it concerns and who will see it; `by` is who did it, None for the system itself; `parent`
    is the event that began what this one goes on with.
    """
    event = unsaved(
        type,
        text,
        account_id=account.pk,
        on=on,
        by=by,
        level=level,
        state=state,
        parent=parent,
        for_operator=for_operator,
    )
    event.save(force_insert=True)
    return event


def unsaved(
    type: EventType,
    text: str,
    *,
    account_id: int,
    on: UuidModel | Subject | None = None,
    by: Caller | None = None,
    level: Level = Level.INFO,
    state: State = State.CREATED,
    parent: UUID | None = None,
    for_operator: str = "",
) -> Event:
    """One event for `record_all`."""
    about = Subject.of(on) if isinstance(on, UuidModel) else on
    return Event(
        type=type,
        description=text[:LONGEST_DESCRIPTION],
        account_id=account_id,
        username=by.user.username if by else "system",
        level=level,
        state=state,
        for_operator=for_operator[:LONGEST_DESCRIPTION],
        parent_uuid=parent,
        resource_type=about.kind if about else "",
        resource_uuid=about.uuid if about else None,
        resource_name=about.name if about else "",
    )


def record_all(events: Sequence[Event]) -> None:
    """Write many events at once, in the caller's transaction."""
    insert_all(events)


def type_name(resource: UuidModel) -> str:
    """CloudStack's word for a kind of resource: the model's class name."""
    return type(resource).__name__
