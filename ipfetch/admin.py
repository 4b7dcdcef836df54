from django.contrib import admin

from extdhcp_site.console.administration import ModelAdmin, ReadOnlyAdmin, filter_by_known
from ipfetch import lease_admin  # noqa: F401 - it registers its pages
from ipfetch.models import AddressChain, IpFetch, Observation, Sweep
from networks.hypervisors.base import Source


@admin.register(IpFetch)
class IpFetchAdmin(ReadOnlyAdmin):
    fields = [
        "nic",
        "state",
        "explanation",
        "last_detail",
        "retries_left",
        "tries",
        "next_attempt_at",
        "eager_until",
        "last_attempt_at",
        "last_outcome",
        "last_source",
        "entered_at",
        "found_at",
        "attempt",
        "claim",
        "claimed_until",
        "begun",
    ]
    list_display = [
        "mac_address",
        "vm",
        "network",
        "state",
        "retries_left",
        "tries",
        "next_attempt_at",
        # It begins with the last outcome.
        "explanation",
    ]
    list_select_related = ["nic__vm", "nic__network"]
    list_filter = ["state", "last_outcome", filter_by_known("last source", "last_source", lambda: list(Source))]
    search_fields = ["nic__mac_address", "nic__vm__name", "nic__network__name"]

    @admin.display(description="NIC", ordering="nic__mac_address")
    def mac_address(self, row: IpFetch) -> str:
        return row.nic.mac_address

    @admin.display(description="VM", ordering="nic__vm__name")
    def vm(self, row: IpFetch) -> str:
        return str(row.nic.vm)

    @admin.display(ordering="nic__network__name")
    def network(self, row: IpFetch) -> str:
        return str(row.nic.network)


@admin.register(Observation)
class ObservationAdmin(ReadOnlyAdmin):
    note = "Every address as one source has told it of a NIC, for as long as it did."
    fields = [
        "nic",
        "address",
        "family",
        "prefix",
        "source",
        "confidence",
        "flag",
        "first_seen_at",
        "last_seen_at",
        "ended_at",
        "uuid",
    ]
    list_display = ["address", "mac_address", "vm", "source", "confidence", "flag", "last_seen_at", "ended_at"]
    list_select_related = ["nic__vm"]
    list_filter = [
        filter_by_known("source", "source", lambda: list(Source)),
        "confidence",
        "flag",
        ("ended_at", admin.EmptyFieldListFilter),
    ]
    search_fields = ["address", "nic__mac_address", "nic__vm__name", "nic__network__name"]

    @admin.display(description="NIC", ordering="nic__mac_address")
    def mac_address(self, row: Observation) -> str:
        return row.nic.mac_address

    @admin.display(description="VM", ordering="nic__vm__name")
    def vm(self, row: Observation) -> str:
        return str(row.nic.vm)


@admin.register(AddressChain)
class AddressChainAdmin(ModelAdmin):
    note = "Whom a zone asks for addresses, in which order. A kind of guest without a row: agent, lease, arp, disk."
    fixed = ["zone", "hypervisor", "os_family"]
    fieldsets = [
        (None, {"fields": ["zone", "hypervisor", "os_family"]}),
        (
            "Sources",
            {
                "fields": ["sources"],
                # Django shows it as HTML.
                "description": "<b>agent</b>: the guest itself, by its agent or tools.<br>"
                "<b>lease</b>: the DHCP servers whose lease files are read here.<br>"
                "<b>arp</b>: the host's neighbour table, a hint that never ends the wait; only after the agent.<br>"
                "<b>disk</b>: the lease files on the guest's disk, where its endpoint allows that; slow, and so at the "
                "counted tries only.<br>"
                "Who stands behind another is asked while that one has told no address of the network. "
                "What a DHCP server reports by itself is always taken.",
            },
        ),
    ]
    list_display = ["zone", "hypervisor", "os_family", "sources"]
    list_select_related = ["zone"]
    list_filter = ["zone", "hypervisor", "os_family"]
    search_fields = ["zone__name", "sources"]


@admin.register(Sweep)
class SweepAdmin(ReadOnlyAdmin):
    note = "What reading addresses has cost each process, minute by minute, for a day."
    fields = ["at", "nics", "found", "batches", "failed", "seconds", "slowest"]
    list_display = ["at", "nics", "found", "batches", "failed", "seconds", "slowest"]
    list_filter = ["at"]
