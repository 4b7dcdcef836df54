"""What a cloud admin owns: zone, pod, cluster, host, endpoint, primary storage (admin guide, 3.2)."""

import re
from typing import Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import BigIntegerField, ExpressionWrapper, F, FloatField, Q, Value
from django.db.models.functions import Cast

from extdhcp_site.accounts.models import Caller, Domain, Role, lineage
from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.models import UuidModel
from networks.hypervisors.base import DiskAccess, EndpointAddress, Member, Transport
from networks.volume_label import InvalidLabel, check_label


def volume_label(label: str) -> None:
    """`check_label` as a field's validator."""
    try:
        check_label(label)
    except InvalidLabel as error:
        raise ValidationError(str(error)) from None


class HypervisorType(models.TextChoices):
    KVM = "KVM", "KVM"
    XENSERVER = "XenServer", "XenServer"
    VMWARE = "VMware", "VMware"


class AllocationState(models.TextChoices):
    ENABLED = "Enabled"
    DISABLED = "Disabled"


class ZoneQuerySet(models.QuerySet["Zone"]):
    def visible_to(self, caller: Caller) -> Self:
        """Public zones; a private one to its domain and the domains below it (admin guide, 3.2.4)."""
        if caller.is_root:
            return self
        sees = Q(domain=None) | Q(domain__path__in=lineage(caller.domain_path))
        return self.filter(sees, allocation_state=AllocationState.ENABLED)


class InfrastructureQuerySet(models.QuerySet):
    def visible_to(self, caller: Caller) -> Self:
        """Pods, clusters, hosts and storage are not visible to end users (admin guide, 3.2)."""
        return self if caller.role == Role.ROOT_ADMIN else self.none()


class Zone(UuidModel):
    """An availability zone; its networking is always Advanced."""

    name = models.CharField(max_length=100, unique=True)
    dns1 = models.GenericIPAddressField("DNS 1", null=True, blank=True)
    dns2 = models.GenericIPAddressField("DNS 2", null=True, blank=True)
    internal_dns1 = models.GenericIPAddressField("internal DNS 1", null=True, blank=True)
    domain = models.ForeignKey(
        Domain, on_delete=models.PROTECT, null=True, blank=True, help_text="Private to this domain; empty: public."
    )
    bridge_pattern = models.CharField(
        max_length=15,
        default="cloudbr{vlan}",
        help_text="KVM: the bridge that carries a VLAN on each host, made by the host's admin.",
    )
    config_drive_label = models.CharField(
        max_length=16,
        blank=True,
        validators=[volume_label],
        help_text="For VMs whose template does not say; empty: vm.configdrive.label.",
    )
    allocation_state = models.CharField(max_length=8, choices=AllocationState.choices, default=AllocationState.ENABLED)

    objects = ZoneQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*\{vlan\}[A-Za-z0-9.-]*", self.bridge_pattern):
            raise ValidationError(
                {"bridge_pattern": "A letter, then letters, digits, dots and hyphens around {vlan}: cloudbr{vlan}."}
            )


class Pod(UuidModel):
    zone = models.ForeignKey(Zone, on_delete=models.PROTECT, related_name="pods")
    name = models.CharField(max_length=100)

    objects = InfrastructureQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["zone", "name"], name="pod_name_once_in_zone")]

    def __str__(self) -> str:
        return self.name


class Cluster(UuidModel):
    """Hosts of one hypervisor type that share primary storage and migrate VMs among themselves."""

    pod = models.ForeignKey(Pod, on_delete=models.PROTECT, related_name="clusters")
    name = models.CharField(max_length=100)
    hypervisor = models.CharField(max_length=10, choices=HypervisorType.choices)

    objects = InfrastructureQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [models.UniqueConstraint(fields=["pod", "name"], name="cluster_name_once_in_pod")]

    def __str__(self) -> str:
        return self.name


class Endpoint(UuidModel):
    """A hypervisor's API: a libvirt host, a XenServer pool, a vCenter or a lone ESXi.

    Fields, never a URI: a libvirt URI can run programs and read files of this server.
    """

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=HypervisorType.choices, default=HypervisorType.KVM)
    transport = models.CharField(
        max_length=5,
        choices=[(item.value, item.value) for item in Transport],
        default=Transport.TLS.value,
        help_text="tls verifies the host: libvirt's by its own CA files, others by the fields below. The rest is for "
        "libvirt; tcp is for closed networks and labs.",
    )
    host = models.CharField(max_length=253, blank=True, help_text="Name or address; empty for local and test.")
    port = models.PositiveIntegerField(null=True, blank=True, help_text="Empty: the transport's own.")
    username = models.CharField(max_length=64, blank=True)
    password = EncryptedTextField(null=True, blank=True, editable=False)
    ca_certificates = models.TextField(
        "CA certificates",
        blank=True,
        max_length=65536,
        help_text="PEM. Who signs the certificate of a XenServer pool or a vCenter; empty: whom this server trusts.",
    )
    fingerprint = models.CharField(
        "certificate's fingerprint",
        max_length=95,
        blank=True,
        help_text="SHA-256, of a XenServer pool's or a vCenter's own certificate, instead of a CA.",
    )
    disk_access = models.CharField(
        "read guests' disks",
        max_length=5,
        blank=True,
        default=DiskAccess.NONE.value,
        choices=[
            (DiskAccess.NONE.value, "never"),
            (DiskAccess.LOCAL.value, "from this server, which sees them under the same path"),
            (DiskAccess.SSH.value, "on the host, by ssh"),
        ],
        help_text="Looks for addresses of guests without an agent in the lease files on their disks; slow.",
    )
    last_ok_at = models.DateTimeField(null=True, blank=True, editable=False)
    last_error = models.CharField(max_length=255, blank=True, editable=False)
    # Since when it has answered, but for single failures.
    up_since = models.DateTimeField(null=True, blank=True, editable=False)
    # The circuit breaker: how often in a row it has not answered, and when it is asked again.
    failures = models.PositiveIntegerField(default=0, editable=False)
    retry_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Of a pool: what it told of its hosts, as [address, certificate's fingerprint], and when.
    members = models.JSONField(default=list, blank=True, editable=False)
    members_at = models.DateTimeField(null=True, blank=True, editable=False)
    # Calls of the address readers that were given up and are stuck still.
    stuck_calls = models.PositiveIntegerField(default=0, editable=False)

    objects = InfrastructureQuerySet.as_manager()

    ADDRESS_FIELDS = ("kind", "transport", "host", "port", "username", "ca_certificates", "fingerprint")

    class Meta:
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(transport__in=["local", "test"]) | ~Q(host=""),
                name="remote_endpoint_has_a_host",
                violation_error_message="An endpoint that is not local needs a host.",
            ),
            models.CheckConstraint(condition=Q(port=None) | Q(port__range=(1, 65535)), name="endpoint_port_is_a_port"),
            models.CheckConstraint(
                condition=Q(kind=HypervisorType.KVM) | Q(transport__in=[Transport.TLS.value, Transport.TEST.value]),
                name="only_libvirt_without_tls",
                violation_error_message="XenServer and VMware are reached by tls only.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        if self.transport == Transport.TEST and not settings.ALLOW_TEST_HYPERVISOR:
            raise ValidationError({"transport": "libvirt's test driver and simulators are for demo and tests only."})

    def save(self, *args, **kwargs) -> None:
        before = Endpoint.objects.filter(pk=self.pk).first() if self.pk else None
        if before and self._moved_from(before):
            # A password is for the host it was given for, and for what that said of its pool; nobody may aim it at
            # another.
            self.members, self.members_at = [], None
            if self.password == before.password:
                self.password = None
            if kwargs.get("update_fields") is not None:
                kwargs["update_fields"] = {*kwargs["update_fields"], "password", "members", "members_at"}
        super().save(*args, **kwargs)

    def _moved_from(self, before: "Endpoint") -> bool:
        return any(getattr(self, name) != getattr(before, name) for name in self.ADDRESS_FIELDS)

    def _is_libvirts_own(self) -> bool:
        return self.kind == HypervisorType.KVM and self.transport == Transport.TEST

    @property
    def address(self) -> EndpointAddress:
        return EndpointAddress(
            transport=Transport(self.transport),
            host=self.host,
            port=self.port,
            username=self.username,
            password=self.password or "",
            ca_certificates=self.ca_certificates,
            fingerprint=self.fingerprint.replace(":", "").lower(),
            test_socket=settings.LIBVIRT_TEST_SOCKET if self._is_libvirts_own() else "",
            disk_access=DiskAccess(self.disk_access),
            members=tuple(Member(host, fingerprint) for host, fingerprint in self.members),
        )


class HostState(models.TextChoices):
    UP = "Up"
    DOWN = "Down"


class HostQuerySet(InfrastructureQuerySet):
    def with_room(self, mhz: int, memory: int, cpu_factor: float) -> Self:
        """Hosts that can take one more VM of this size: a condition on the row's own columns alone.

        Sums, no differences: the columns are unsigned, and MariaDB refuses one below zero.
        """
        promised = ExpressionWrapper(F("cpus") * F("mhz") * Value(cpu_factor), FloatField())
        return self.alias(memory_after=F("reserved_memory") + memory, mhz_after=F("reserved_mhz") + mhz).filter(
            state=HostState.UP,
            resource_state=AllocationState.ENABLED,
            memory_after__lte=F("memory"),
            mhz_after__lte=promised,
        )

    def most_free_first(self) -> Self:
        # Signed, unlike the columns: a host that got VMs from elsewhere may have promised more than it has.
        free = Cast(F("memory"), BigIntegerField()) - Cast(F("reserved_memory"), BigIntegerField())
        return self.order_by(free.desc(), "name")


class Host(UuidModel):
    """A machine that runs VMs. What its VMs hold is reserved here, so that two deploys cannot both have it.

    What we schedule is guarded by `HostQuerySet.with_room`, in the update that reserves. No constraint of the
    table's guards it as well: VMs that others moved here hold their room too, whether there was any or not.
    """

    name = models.CharField(
        max_length=100, unique=True, help_text="Of a pool or a vCenter: the host's name as it stands there."
    )
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="hosts")
    endpoint = models.ForeignKey(Endpoint, on_delete=models.PROTECT, related_name="hosts")
    state = models.CharField(max_length=4, choices=HostState.choices, default=HostState.UP)
    resource_state = models.CharField(max_length=8, choices=AllocationState.choices, default=AllocationState.ENABLED)
    cpus = models.PositiveIntegerField(default=1)
    mhz = models.PositiveIntegerField("MHz per CPU", default=1000)
    memory = models.PositiveBigIntegerField("memory (bytes)", default=0)
    reserved_mhz = models.PositiveIntegerField(default=0, editable=False)
    reserved_memory = models.PositiveBigIntegerField(default=0, editable=False)
    hypervisor_version = models.CharField(max_length=50, blank=True)
    # Why it is down while its pool or vCenter answers; empty for a host that is not, or whose endpoint is silent.
    unavailable = models.CharField(max_length=255, blank=True, default="", editable=False)

    objects = HostQuerySet.as_manager()

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class PrimaryStorage(UuidModel):
    """Where a cluster's ROOT volumes lie: a storage pool (KVM, on each host), storage repository or datastore."""

    name = models.CharField(
        max_length=100,
        help_text="Its name there: of a libvirt storage pool, a XenServer storage repository, a vSphere datastore.",
    )
    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="storage")
    shared = models.BooleanField(default=True, help_text="All hosts of the cluster see the same files.")
    # As it was measured last; of storage that each host has for itself, where there is least. Bytes.
    total = models.PositiveBigIntegerField(default=0, editable=False)
    free = models.PositiveBigIntegerField(default=0, editable=False)
    measured_on = models.CharField(max_length=100, blank=True, default="", editable=False)
    measured_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = InfrastructureQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "primary storage"
        constraints = [models.UniqueConstraint(fields=["cluster", "name"], name="storage_name_once_in_cluster")]

    def __str__(self) -> str:
        return self.name
