"""What a user chooses from: service offerings, templates, network offerings."""

from typing import Self

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, OwnedQuerySet
from extdhcp_site.models import UuidModel
from networks.models.infrastructure import AllocationState, HypervisorType, Zone, volume_label


class ServiceOfferingQuerySet(models.QuerySet["ServiceOffering"]):
    def visible_to(self, caller: Caller) -> Self:
        return self.filter(removed_at=None)


class ServiceOffering(UuidModel):
    """Virtual hardware. It never changes; a deleted one lives on while a VM uses it (admin guide, 4)."""

    name = models.CharField(max_length=100)
    display_text = models.CharField(max_length=255, blank=True)
    cpus = models.PositiveSmallIntegerField(default=1)
    mhz = models.PositiveIntegerField("MHz per CPU", default=500)
    memory_mib = models.PositiveIntegerField("memory (MiB)", default=512)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    removed_at = models.DateTimeField(null=True, editable=False)

    objects = ServiceOfferingQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(cpus__gte=1, mhz__gte=1, memory_mib__gte=1),
                name="service_offering_offers_something",
                violation_error_message="CPUs, MHz and memory are at least 1.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args, **kwargs) -> None:
        if self.pk:
            raise ValidationError("A service offering never changes. Make a new one and delete this one.")
        super().save(*args, **kwargs)

    def delete(self, *args, **kwargs) -> tuple[int, dict[str, int]]:
        """Gone for good, or out of the list for as long as a VM still uses it."""
        if self.virtual_machines.exists():
            ServiceOffering.objects.filter(pk=self.pk, removed_at=None).update(removed_at=timezone.now())
            return 0, {}
        return super().delete(*args, **kwargs)

    @property
    def memory(self) -> int:
        """In bytes."""
        return self.memory_mib * 1024 * 1024

    @property
    def total_mhz(self) -> int:
        return self.cpus * self.mhz


class OsFamily(models.TextChoices):
    LINUX = "Linux"
    WINDOWS = "Windows"


class TemplateFormat(models.TextChoices):
    """As CloudStack names them; each belongs to one hypervisor."""

    QCOW2 = "QCOW2"
    RAW = "RAW"
    KERNEL = "KERNEL", "Kernel and initial RAM disk"
    VHD = "VHD", "VHD (a XenServer template)"
    OVA = "OVA", "OVA (a vSphere template)"

    @property
    def hypervisor(self) -> HypervisorType:
        match self:
            case TemplateFormat.VHD:
                return HypervisorType.XENSERVER
            case TemplateFormat.OVA:
                return HypervisorType.VMWARE
            case _:
                return HypervisorType.KVM


class TemplateQuerySet(OwnedQuerySet):
    def visible_to(self, caller: Caller) -> Self:
        """Public ones and what the caller may see of other accounts' (admin guide, 1.5)."""
        return self if caller.is_root else self.filter(Q(public=True) | self.owned_within_reach_of(caller))

    def for_listing(self) -> Self:
        """With all that a list shows, in a fixed number of queries."""
        return self.select_related("account__domain", "zone").prefetch_related("tags")


class DriveReader(models.TextChoices):
    """What in a guest reads the config drive. All but our own scripts look for one fixed volume label."""

    CLOUD_INIT = "cloud-init", "cloud-init"
    CLOUDBASE_INIT = "cloudbase-init", "cloudbase-init"
    IGNITION = "ignition", "Ignition or Afterburn"
    CLOUDSTACK = "cloudstack", "CloudStack's guest scripts"
    SCRIPTS = "scripts", "the scripts of /guest/"


class Template(UuidModel):
    """An operating system to deploy from, registered by reference to what lies on the hosts already."""

    name = models.CharField(max_length=100)
    display_text = models.CharField(max_length=255, blank=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    public = models.BooleanField(default=False)
    zone = models.ForeignKey(Zone, on_delete=models.PROTECT, null=True, blank=True, help_text="Empty: every zone.")
    hypervisor = models.CharField(max_length=10, choices=HypervisorType.choices, default=HypervisorType.KVM)
    os_family = models.CharField("OS family", max_length=7, choices=OsFamily.choices, default=OsFamily.LINUX)
    guest_os_type = models.CharField(
        "guest OS type", max_length=100, blank=True, help_text="As in Debian GNU/Linux 12."
    )
    password_enabled = models.BooleanField(default=False)
    drive_reader = models.CharField(
        "read by",
        max_length=14,
        choices=DriveReader.choices,
        blank=True,
        help_text="What in the guest reads the config drive. All but the scripts of /guest/ get the label config-2.",
    )
    config_drive_label = models.CharField(
        max_length=16,
        blank=True,
        validators=[volume_label],
        help_text="Empty: what its reader looks for, else the zone's, else vm.configdrive.label.",
    )
    drive_required = models.BooleanField(
        "requires its drive",
        default=False,
        help_text="Without its config drive a VM of it does not start. Others start, and the drive is tried again.",
    )
    format = models.CharField(max_length=6, choices=TemplateFormat.choices, default=TemplateFormat.QCOW2)
    image = models.CharField(
        max_length=255,
        blank=True,
        help_text="The image's name in the primary storage; of VHD and OVA the template's name.",
    )
    size = models.PositiveBigIntegerField("ROOT volume (bytes)", default=0, help_text="0: as large as the image.")
    kernel = models.CharField(max_length=255, blank=True, help_text="Path on the host.")
    initrd = models.CharField(max_length=255, blank=True, help_text="Path on the host.")
    command_line = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = TemplateQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(format=TemplateFormat.KERNEL, image="") & ~Q(kernel="") & ~Q(initrd="")
                | ~Q(format=TemplateFormat.KERNEL) & ~Q(image="") & Q(kernel="", initrd=""),
                name="template_boots_an_image_or_a_kernel",
                violation_error_message="KERNEL needs kernel and initrd only, the others an image only.",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class GuestType(models.TextChoices):
    SHARED = "Shared"
    L2 = "L2"
    ISOLATED = "Isolated"


class Service(models.TextChoices):
    """What an offering can promise; providers of the others are not in this product."""

    USER_DATA = "UserData"
    DHCP = "Dhcp"
    DNS = "Dns"


class Provider(models.TextChoices):
    CONFIG_DRIVE = "ConfigDrive"
    VIRTUAL_ROUTER = "VirtualRouter"


class NetworkOfferingQuerySet(models.QuerySet["NetworkOffering"]):
    def visible_to(self, caller: Caller) -> Self:
        return self if caller.is_root else self.filter(state=AllocationState.ENABLED)

    def external_dhcp(self) -> Self:
        """Offerings whose NICs get their address from a server that is not ours.

        Every L2 network, and a Shared one whose offering has no Dhcp service: with no service at all,
        or with user data only (external DHCP/DNS spec, functional requirements 1 and 2).
        """
        with_dhcp = OfferedService.objects.filter(service=Service.DHCP).values("offering_id")
        return self.filter(Q(guest_type=GuestType.L2) | Q(guest_type=GuestType.SHARED) & ~Q(pk__in=with_dhcp))


class NetworkOffering(UuidModel):
    """What a network promises its guests. No services at all is legal, and is the point."""

    name = models.CharField(max_length=100, unique=True)
    display_text = models.CharField(max_length=255)
    guest_type = models.CharField(max_length=8, choices=GuestType.choices, default=GuestType.SHARED)
    state = models.CharField(max_length=8, choices=AllocationState.choices, default=AllocationState.DISABLED)
    specify_vlan = models.BooleanField("specify VLAN", default=True)
    specify_ip_ranges = models.BooleanField("specify IP ranges", default=True)
    # Kept for the clients that compare it with what they asked for; there is no load balancer to limit.
    max_connections = models.PositiveIntegerField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = NetworkOfferingQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(condition=~Q(guest_type=GuestType.ISOLATED), name="no_isolated_networks_here"),
        ]

    def __str__(self) -> str:
        return self.name


class OfferedService(models.Model):
    """One service of an offering, and who provides it."""

    offering = models.ForeignKey(NetworkOffering, on_delete=models.CASCADE, related_name="services")
    service = models.CharField(max_length=8, choices=Service.choices)
    provider = models.CharField(max_length=13, choices=Provider.choices)

    class Meta:
        ordering = ["service"]
        constraints = [
            models.UniqueConstraint(fields=["offering", "service"], name="service_offered_once"),
            models.CheckConstraint(condition=Q(provider=Provider.CONFIG_DRIVE), name="no_virtual_router_here"),
        ]

    def __str__(self) -> str:
        return f"{self.service} by {self.provider}"
