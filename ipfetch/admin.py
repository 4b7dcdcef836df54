from django.contrib import admin

from extdhcp_site.console.administration import ReadOnlyAdmin
from ipfetch import lease_admin  # noqa: F401 - it registers its pages
from ipfetch.models import IpFetch


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
        "last_attempt_at",
        "last_outcome",
        "last_source",
        "entered_at",
        "found_at",
        "attempt",
        "claimed_until",
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
    list_filter = ["state", "last_outcome", "last_source"]
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
