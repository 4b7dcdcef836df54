"""Virtual machines with their ROOT volume, NICs and keys."""

import base64
import hashlib
import secrets
from typing import Self
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Cast, Concat
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, OwnedQuerySet
from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.models import UuidModel
from networks.hypervisors.base import VmRef
from networks.models.infrastructure import Host, HypervisorType, PrimaryStorage, Zone
from networks.models.networks import Network
from networks.models.offerings import ServiceOffering, Template
from networks.public_keys import NotAPublicKey, public_key_line

# RFC 1123, section 2.1: a host name's label.
host_name = RegexValidator(
    r"\A[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z",
    "A name has 1 to 63 letters, digits and hyphens, and begins and ends with a letter or digit.",
)


class VmState(models.TextChoices):
    """The only words a client's whole list does not break on. Created and Down are Stopped here."""

    RUNNING = "Running"
    STARTING = "Starting"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    MIGRATING = "Migrating"
    DESTROYED = "Destroyed"
    EXPUNGING = "Expunging"
    ERROR = "Error"


class ConfigDriveUse(models.TextChoices):
    """Whether a VM has a config drive."""

    ALWAYS = "Always", "While it runs"
    FIRST_BOOT = "FirstBoot", "Until the guest has booted with what is new on it"
    NEVER = "Never", "No drive"


def instance_name(account_id: int, vm_id: int) -> str:
    return f"i-{account_id}-{vm_id}-VM"


class VirtualMachineQuerySet(OwnedQuerySet):
    def for_listing(self) -> Self:
        """With all that a list shows, in a fixed number of queries."""
        at_work = AsyncJob.objects.filter(busy_with=models.OuterRef("uuid")).values("uuid")
        return (
            self.annotate(pending_job=models.Subquery(at_work))
            .select_related("account__domain", "zone", "service_offering", "template", "host__cluster__pod")
            .prefetch_related(models.Prefetch("nics", Nic.objects.for_listing()), "tags")
        )


class VirtualMachine(UuidModel):
    """`uuid` is also the guest's SMBIOS UUID; `name` is its host name."""

    name = models.CharField(max_length=63, validators=[host_name])
    # The name while it is taken; null once the VM is destroyed, so that the name is free again.
    taken_name = models.CharField(max_length=63, null=True, editable=False)  # noqa: DJ001
    display_name = models.CharField(max_length=255, blank=True)
    # A word that its owners sort VMs by; nothing here depends on it.
    group_name = models.CharField(max_length=255, blank=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="virtual_machines")
    zone = models.ForeignKey(Zone, on_delete=models.PROTECT, related_name="virtual_machines")
    hypervisor = models.CharField(max_length=10, choices=HypervisorType.choices)
    service_offering = models.ForeignKey(ServiceOffering, on_delete=models.PROTECT, related_name="virtual_machines")
    template = models.ForeignKey(Template, on_delete=models.PROTECT, related_name="virtual_machines")
    # Where it runs, and what it holds there is reserved; null when it holds nothing anywhere.
    host = models.ForeignKey(
        Host, on_delete=models.PROTECT, null=True, blank=True, editable=False, related_name="virtual_machines"
    )
    last_host = models.ForeignKey(
        Host, on_delete=models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    # Where a live migration under way has room reserved for it.
    migrating_to = models.ForeignKey(Host, on_delete=models.PROTECT, null=True, editable=False, related_name="+")
    # A host that could not be reached when a start there failed: the VM may be defined, or even run, there.
    stray_on = models.ForeignKey(Host, on_delete=models.PROTECT, null=True, editable=False, related_name="+")
    state = models.CharField(max_length=10, choices=VmState.choices, default=VmState.STOPPED, editable=False)
    state_since = models.DateTimeField(default=timezone.now, editable=False)
    error_text = models.CharField(max_length=1024, blank=True, editable=False)
    ever_started = models.BooleanField(default=False, editable=False)
    ssh_keys = models.JSONField(default=list, blank=True, editable=False)
    # Base64, as the API has it; sealed, because people put secrets into it.
    user_data = EncryptedTextField(null=True, editable=False)
    # Only while it still has to reach the guest.
    password = EncryptedTextField(null=True, editable=False)
    drive_use = models.CharField(
        max_length=9, choices=ConfigDriveUse.choices, default=ConfigDriveUse.ALWAYS, editable=False
    )
    # What the guest is to know has changed, and could not be brought to it while it runs: it is told at the
    # next start, and a reboot becomes a stop and a start.
    needs_restart = models.BooleanField(default=False, editable=False)
    # When the guest last showed that it has booted: its agent answered, or an address of its was seen.
    guest_seen_at = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    destroyed_at = models.DateTimeField(null=True, editable=False)

    objects = VirtualMachineQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["account", "taken_name"], name="vm_name_once_in_account"),
            models.CheckConstraint(
                condition=~Q(state__in=[VmState.RUNNING, VmState.MIGRATING]) | Q(host__isnull=False),
                name="running_vm_has_a_host",
            ),
        ]
        indexes = [models.Index(fields=["state"])]

    def __str__(self) -> str:
        return self.name

    @property
    def instance_name(self) -> str:
        return instance_name(self.account_id, self.pk)

    @property
    def on_host(self) -> VmRef:
        """How a hypervisor knows this VM."""
        macs = tuple(sorted(nic.mac_address for nic in self.nics.all()))
        return VmRef(self.instance_name, str(self.uuid), macs)

    @property
    def user_data_bytes(self) -> bytes | None:
        return base64.b64decode(self.user_data) if self.user_data else None


class AddressState(models.TextChoices):
    """How much a NIC's address can be trusted."""

    UNKNOWN = "unknown", "Not known yet"
    CONFIRMED = "confirmed", "Confirmed"
    UNCONFIRMED = "unconfirmed", "Unconfirmed"
    LAST_KNOWN = "last_known", "Last known"
    PINNED = "pinned", "Set by an operator"


class _Joined(models.Aggregate):
    """Texts with commas between them, in no order. SQLite and MariaDB have it under the same name."""

    function = "GROUP_CONCAT"
    output_field = models.TextField()


def registered_addresses(joined: str | None) -> dict[str, UUID]:
    """The addresses that users registered for a NIC, in order, with the rows' uuids; `joined` is `registered`."""
    pairs = [entry.split("=") for entry in (joined or "").split(",") if entry]
    return {address: UUID(row) for row, address in sorted(pairs, key=lambda pair: pair[1])}


class NicQuerySet(models.QuerySet["Nic"]):
    def visible_to(self, caller: Caller) -> Self:
        return self if caller.is_root else self.filter(vm__in=VirtualMachine.objects.visible_to(caller))

    def for_listing(self) -> Self:
        # By a join of its own for each NIC, few of which have any: a prefetch would be a query more for all.
        spelt = Concat(Cast("uuid", models.CharField()), models.Value("="), "address")
        registered = NicSecondaryIp.objects.filter(nic=models.OuterRef("pk")).order_by().values("nic")
        return (
            self.annotate(registered=models.Subquery(registered.values(all=_Joined(spelt))))
            .select_related("network__zone", "network__offering")
            .order_by("-is_default", "device_id")
        )

    def external_dhcp(self) -> Self:
        """NICs whose address comes from a server that is not ours."""
        return self.filter(network__in=Network.objects.external_dhcp())


def new_mac_address() -> str:
    """A locally administered unicast address (IEEE 802, second bit of the first octet), lower case."""
    return ":".join(f"{octet:02x}" for octet in (0x06, *secrets.token_bytes(5)))


class Nic(UuidModel):
    """A VM's interface on a network. `ip4_address` is null until it has been learned."""

    vm = models.ForeignKey(VirtualMachine, on_delete=models.CASCADE, related_name="nics")
    network = models.ForeignKey(Network, on_delete=models.PROTECT, related_name="nics")
    device_id = models.PositiveSmallIntegerField()
    is_default = models.BooleanField(default=False)
    # Not unique: what guests and other clouds do with addresses is not ours to forbid.
    mac_address = models.CharField("MAC address", max_length=17, db_index=True, default=new_mac_address)
    ip4_address = models.GenericIPAddressField(
        "IPv4 address", null=True, blank=True, protocol="IPv4", db_index=True, editable=False
    )
    ip6_address = models.GenericIPAddressField("IPv6 address", null=True, blank=True, protocol="IPv6", editable=False)
    address_state = models.CharField(
        max_length=11, choices=AddressState.choices, default=AddressState.UNKNOWN, editable=False
    )
    address_source = models.CharField(max_length=20, blank=True, editable=False)
    address_seen_at = models.DateTimeField(null=True, blank=True, editable=False)
    # What else it has on the network, as the guest or the DHCP server tells it.
    secondary_addresses = models.JSONField(default=list, blank=True, editable=False)
    plugged = models.BooleanField(
        default=True, editable=False, help_text="Whether the running guest has it; all are plugged in at a start."
    )

    objects = NicQuerySet.as_manager()

    class Meta:
        ordering = ["vm", "device_id"]
        verbose_name = "NIC"
        constraints = [
            models.UniqueConstraint(fields=["vm", "device_id"], name="nic_device_once_in_vm"),
            models.UniqueConstraint(fields=["vm", "network"], name="nic_once_in_network"),
            models.CheckConstraint(
                condition=Q(mac_address__regex=r"^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"), name="mac_address_is_lower_case"
            ),
        ]

    def __str__(self) -> str:
        return f"NIC {self.device_id} of {self.vm}"


class NicSecondaryIpQuerySet(models.QuerySet["NicSecondaryIp"]):
    def visible_to(self, caller: Caller) -> Self:
        return self if caller.is_root else self.filter(nic__in=Nic.objects.visible_to(caller))


class NicSecondaryIp(UuidModel):
    """A further address that a user has set up in the guest and says so here. Nothing is assigned by it."""

    nic = models.ForeignKey(Nic, on_delete=models.CASCADE, related_name="secondary_ips")
    # The NIC's own: what is registered is registered once on a network.
    network = models.ForeignKey(Network, on_delete=models.CASCADE, related_name="+")
    address = models.GenericIPAddressField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = NicSecondaryIpQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        verbose_name = "secondary IP address"
        constraints = [
            models.UniqueConstraint(fields=["network", "address"], name="secondary_ip_once_in_network"),
        ]

    def __str__(self) -> str:
        return self.address


class VolumeState(models.TextChoices):
    ALLOCATED = "Allocated"
    READY = "Ready"


class VolumeQuerySet(models.QuerySet["Volume"]):
    def visible_to(self, caller: Caller) -> Self:
        return self if caller.is_root else self.filter(vm__in=VirtualMachine.objects.visible_to(caller))


class Volume(UuidModel):
    """A VM's ROOT volume. A guest that boots a kernel has one of no size and no storage."""

    vm = models.OneToOneField(VirtualMachine, on_delete=models.CASCADE, related_name="root_volume")
    storage = models.ForeignKey(PrimaryStorage, on_delete=models.PROTECT, null=True, blank=True)
    size = models.PositiveBigIntegerField("size (bytes)", default=0)
    state = models.CharField(max_length=9, choices=VolumeState.choices, default=VolumeState.ALLOCATED)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = VolumeQuerySet.as_manager()

    class Meta:
        ordering = ["vm"]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        return f"ROOT-{self.vm_id}"


class SshKeyPair(UuidModel):
    """A public key under a name. The private half is never ours."""

    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    name = models.CharField(max_length=100)
    public_key = models.TextField(max_length=16384)
    fingerprint = models.CharField(max_length=100, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name = "SSH key pair"
        constraints = [models.UniqueConstraint(fields=["account", "name"], name="key_pair_name_once_in_account")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        try:
            self.public_key = public_key_line(self.public_key)
        except NotAPublicKey as error:
            raise ValidationError({"public_key": str(error)}) from None

    def save(self, *args, **kwargs) -> None:
        # As `ssh-keygen -l -E md5` shows it, and CloudStack too.
        key = base64.b64decode(self.public_key.split()[1])
        self.fingerprint = ":".join(f"{byte:02x}" for byte in hashlib.md5(key, usedforsecurity=False).digest())
        super().save(*args, **kwargs)
