"""Ask now for the address of every NIC that waits for one."""

import json
from typing import Any

from django.core.management.base import CommandParser
from django.utils import timezone
from django_rich.management import RichCommand
from rich.console import Console
from rich.progress import Progress

from ipfetch import sweep
from ipfetch.models import IpFetch


class Command(RichCommand):
    help = "Ask now for the address of every NIC that waits for one. Status 1 if one has none still."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="Print a JSON array, one object a NIC.")

    def handle(self, *args: Any, **options: Any) -> None:
        # Progress goes to stderr and results to stdout, so the output can be piped.
        now = timezone.now()
        rows = sweep.queue(now).waiting()
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("Asking the hypervisors", total=rows.count())
            asked = sweep.run_now(rows, now, done=lambda count: progress.advance(bar, count))
        results = IpFetch.objects.filter(pk__in=asked).select_related("nic__vm", "nic__network")
        shown = [_line(row) for row in results]
        if options["json"]:
            self.stdout.write(json.dumps(shown))
        else:
            for line in shown:
                self.stdout.write(f"{line['virtualmachine']}  {line['macaddress']}  {line['ipaddress'] or line['why']}")
        missing = sum(1 for line in shown if not line["ipaddress"])
        known = IpFetch.objects.filter(state=IpFetch.State.FOUND).count()
        self.stderr.write(
            f"{len(shown) - missing} found now, {missing} still without an address; {known} NICs have theirs in all."
        )
        if missing:
            raise SystemExit(1)


def _line(row: IpFetch) -> dict[str, object]:
    found = row.state == IpFetch.State.FOUND
    return {
        "virtualmachine": row.nic.vm.name,
        "nicid": str(row.nic.uuid),
        "macaddress": row.nic.mac_address,
        "network": row.nic.network.name,
        "ipaddress": row.nic.ip4_address if found else None,
        "outcome": row.last_outcome,
        "why": "" if found else row.explanation,
        "source": row.last_source,
        "retriesleft": row.retries_left,
    }
