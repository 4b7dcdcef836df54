"""Guest networks: a VLAN, and what an external DHCP server hands out on it."""

from ipaddress import IPv4Network, ip_network
from typing import Self

from django.db import models
from django.db.models import Q
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, Domain, OwnedQuerySet, lineage
from extdhcp_site.models import UuidModel
from networks.hypervisors.base import NetworkRef
from networks.models.infrastructure import Zone
from networks.models.offerings import NetworkOffering


class AclType(models.TextChoices):
    """Who may deploy into a network: one account, or a domain and those below it."""

    ACCOUNT = "Account"
    DOMAIN = "Domain"


class NetworkQuerySet(OwnedQuerySet):
    def visible_to(self, caller: Caller) -> Self:
        """The account's own, and those shared with the caller's domain."""
        if caller.is_root:
            return self
        return self.filter(self.owned_within_reach_of(caller) | self.shared_with(caller.domain_path))

    @staticmethod
    def shared_with(domain_path: str) -> Q:
        """Networks for everybody of a domain: its own and those of the domains above it, in zones that it sees.

        One of the root domain is zone-wide: for all accounts with access to the zone (admin guide, 6.7.1).
        """
        domains = lineage(domain_path)
        sees_zone = Q(zone__domain=None) | Q(zone__domain__path__in=domains)
        return sees_zone & Q(acl_type=AclType.DOMAIN, domain__path__in=domains)

    def for_listing(self) -> Self:
        """With all that a list shows, in a fixed number of queries."""
        return self.select_related("zone", "offering", "account__domain", "domain").prefetch_related(
            "offering__services", "tags"
        )

    def external_dhcp(self) -> Self:
        """Networks on which addresses have to be learned."""
        return self.filter(offering__in=NetworkOffering.objects.external_dhcp())


class Network(UuidModel):
    """A broadcast domain. Its range mirrors the external server's and is never used to assign anything."""

    name = models.CharField(max_length=100)
    display_text = models.CharField(max_length=255, blank=True)
    zone = models.ForeignKey(Zone, on_delete=models.PROTECT, related_name="networks")
    offering = models.ForeignKey(NetworkOffering, on_delete=models.PROTECT, related_name="networks")
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="+")
    acl_type = models.CharField("access", max_length=7, choices=AclType.choices, default=AclType.DOMAIN)
    domain = models.ForeignKey(Domain, on_delete=models.PROTECT, related_name="+")
    is_default = models.BooleanField(
        "may be a VM's default network",
        default=True,
        help_text="A VM has one default network: the first of its networks that may be one.",
    )
    vlan = models.PositiveSmallIntegerField("VLAN", null=True, blank=True)
    cidr = models.CharField("CIDR", max_length=18, blank=True, help_text="Empty only for L2: then any address counts.")
    gateway = models.GenericIPAddressField(null=True, blank=True, protocol="IPv4")
    start_ip = models.GenericIPAddressField(null=True, blank=True, protocol="IPv4")
    end_ip = models.GenericIPAddressField(null=True, blank=True, protocol="IPv4")
    network_domain = models.CharField(max_length=255, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = NetworkQuerySet.as_manager()

    class Meta:
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["zone", "vlan"],
                name="vlan_once_in_zone",
                violation_error_message="Another network of the zone is on this VLAN.",
            ),
            models.UniqueConstraint(fields=["zone", "name"], name="network_name_once_in_zone"),
            models.CheckConstraint(
                condition=Q(vlan=None) | Q(vlan__range=(1, 4094)),
                name="vlan_is_a_vlan",
                violation_error_message="A VLAN is a number from 1 to 4094.",
            ),
            models.CheckConstraint(
                condition=Q(start_ip=None, end_ip=None) | Q(start_ip__isnull=False, end_ip__isnull=False),
                name="range_has_two_ends",
                violation_error_message="A range has a first and a last address.",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def ip4_network(self) -> IPv4Network | None:
        network = ip_network(self.cidr) if self.cidr else None
        return network if isinstance(network, IPv4Network) else None

    @property
    def netmask(self) -> str | None:
        return str(self.ip4_network.netmask) if self.ip4_network else None

    @property
    def on_host(self) -> NetworkRef:
        """How a host knows this network. Needs `zone`."""
        return NetworkRef(self.zone.bridge_pattern.format(vlan=self.vlan or ""), self.vlan)
