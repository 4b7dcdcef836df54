"""Where each VM's config drive lies."""

from django.db import models
from django.utils import timezone

from networks.models import Host, PrimaryStorage, VirtualMachine


class ConfigDrive(models.Model):
    """One VM's drive. `name` is the ISO that its CD-ROM holds; where it lies is recorded and not looked up."""

    vm = models.OneToOneField(VirtualMachine, on_delete=models.CASCADE, related_name="config_drive")
    generation = models.PositiveIntegerField(default=0)
    # Empty while the VM has no drive on any host.
    name = models.CharField(max_length=100, blank=True)
    path = models.CharField(max_length=255, blank=True)
    host = models.ForeignKey(Host, on_delete=models.PROTECT, null=True, related_name="+")
    # Null: in the host's own cache; else beside the ROOT volumes of this storage.
    storage = models.ForeignKey(PrimaryStorage, on_delete=models.PROTECT, null=True, related_name="+")
    label = models.CharField(max_length=16, blank=True)
    size = models.PositiveIntegerField(default=0)
    sha256 = models.CharField(max_length=64, blank=True)
    # Since when this has been its content: the date of everything on the disc.
    dated = models.DateTimeField(default=timezone.now)
    built_at = models.DateTimeField(null=True)
    # The last power-on or reboot with this disc in the drive; null until there is one.
    booted_at = models.DateTimeField(null=True)
    # Since when the guest is known to have booted with all that is new: from then on, a VM that wants its
    # drive until the first boot needs none.
    served_at = models.DateTimeField(null=True)
    # The address that it tells: the one known when the VM started, for as long as it runs.
    local_ip4 = models.GenericIPAddressField(null=True, protocol="IPv4")
    verified_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["vm"]
        permissions = [("reveal_configdrive", "Can reveal config drives of other accounts' VMs, but for passwords")]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(name="", host=None) | ~models.Q(name="") & models.Q(host__isnull=False),
                name="drive_lies_on_a_host",
            ),
        ]

    def __str__(self) -> str:
        return self.name or f"no drive for {self.vm}"


class Leftover(models.Model):
    """An ISO that may be on a host and that no VM needs: written before it is made, gone after it is deleted.

    What a worker killed half-way leaves behind is found here.
    """

    host = models.ForeignKey(Host, on_delete=models.CASCADE, related_name="+")
    storage = models.ForeignKey(PrimaryStorage, on_delete=models.CASCADE, null=True, related_name="+")
    name = models.CharField(max_length=100)
    since = models.DateTimeField(default=timezone.now)
    tried_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=255, blank=True)

    class Meta:
        ordering = ["since"]
        constraints = [models.UniqueConstraint(fields=["host", "name"], name="leftover_once_on_host")]

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"
