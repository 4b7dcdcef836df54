"""What the fetch loop found, as the demo's table has it: printed as JSON by a process on the demo's database."""

import json

import django

django.setup()

from ipfetch.models import IpFetch  # noqa: E402 - models need Django set up


def row_of(fetch: IpFetch) -> list[str]:
    nic = fetch.nic
    took = f"{(fetch.found_at - fetch.entered_at).total_seconds():.1f} s" if fetch.found_at else ""
    address = nic.ip4_address or fetch.explanation
    return [nic.vm.name, str(nic.device_id), nic.mac_address, address, fetch.last_source, str(fetch.tries), took]


if __name__ == "__main__":
    fetches = IpFetch.objects.select_related("nic__vm").order_by("nic__vm__name", "nic__device_id")
    print(json.dumps([row_of(fetch) for fetch in fetches]))
