"""Ask now for addresses: of every NIC that waits for one, or of those that are named."""

import json
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet
from django.utils import timezone
from django_rich.management import RichCommand
from rich.console import Console
from rich.progress import Progress

from ipfetch import explanations, sweep
from ipfetch.models import IpFetch
from networks.selection import one_network, one_nic, one_vm


class Command(RichCommand):
    help = (
        "Ask now, and wait for the answers: for the address of every NIC that waits for one, or of those that are "
        "named, found or not. It costs none of a NIC's tries; one that was given up, and is named or among all, gets "
        "all its tries anew. Status 1 if one that was asked has no address."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        whose = parser.add_mutually_exclusive_group()
        whose.add_argument("--vm", help="The NICs of this VM: its name, uuid or instance name.")
        whose.add_argument("--nic", help="This NIC: its uuid or MAC address.")
        whose.add_argument("--network", help="The NICs on this network: its name or uuid.")
        whose.add_argument("--all", action="store_true", help="Every NIC of a running VM.")
        parser.add_argument(
            "--now", action="store_true", help="Ask at once, in this process: it does that with or without this word."
        )
        parser.add_argument("--json", action="store_true", help="Print a JSON array, one object a NIC.")

    def handle(self, *args: Any, **options: Any) -> None:
        # Progress goes to stderr and results to stdout, so the output can be piped.
        now = timezone.now()
        rows = _chosen(sweep.queue(now), options)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task("Asking the hypervisors", total=rows.count())
            asked = sweep.run_now(rows, now, done=lambda count: progress.advance(bar, count))
        results = IpFetch.objects.filter(pk__in=asked).select_related("nic__vm", "nic__network")
        shown = [_answer(row) for row in results]
        if options["json"]:
            self.stdout.write(json.dumps(shown))
        else:
            for answer in shown:
                self.stdout.write(_line(answer))
        missing = sum(1 for answer in shown if not _has_address(answer))
        self.stderr.write(f"{len(shown)} asked, {len(shown) - missing} with an address, {missing} without.")
        if missing:
            raise SystemExit(1)


def _chosen(rows: QuerySet[IpFetch], options: dict[str, Any]) -> QuerySet[IpFetch]:
    """Raises CommandError for a name that is none, and for a VM or NIC of which no address is asked."""
    if options["vm"] is not None:
        vm = one_vm(options["vm"])
        rows, named = rows.filter(nic__vm=vm), f"VM {vm}, which is {vm.state}"
    elif options["nic"] is not None:
        nic = one_nic(options["nic"])
        rows, named = rows.filter(nic=nic), f"{nic}, which is {nic.vm.state}"
    elif options["network"] is not None:
        return rows.filter(nic__network=one_network(options["network"]))
    else:
        return rows if options["all"] else rows.waiting()
    if not rows.exists():
        raise CommandError(
            f"No address is asked for of {named}. That is done for running VMs, on networks whose DHCP is external."
        )
    return rows


def _answer(row: IpFetch) -> dict[str, object]:
    found = row.state == IpFetch.State.FOUND
    return {
        "virtualmachine": row.nic.vm.name,
        "nicid": str(row.nic.uuid),
        "macaddress": row.nic.mac_address,
        "network": row.nic.network.name,
        "ipaddress": row.nic.ip4_address if found else None,
        "ip6address": row.nic.ip6_address if found else None,
        "addressstate": row.nic.address_state,
        "source": row.nic.address_source if found else "",
        "state": row.state,
        "outcome": row.last_outcome,
        "why": explanations.why(row),
        "detail": row.last_detail,
        "retriesleft": row.retries_left,
    }


def _has_address(answer: dict[str, object]) -> bool:
    return bool(answer["ipaddress"] or answer["ip6address"])


def _line(answer: dict[str, object]) -> str:
    address = answer["ipaddress"] or answer["ip6address"] or "-"
    words = [answer["virtualmachine"], answer["macaddress"], address, answer["source"] or "-", answer["outcome"] or "-"]
    reasons = [answer[name] for name in ("why", "detail") if answer[name]]
    return "  ".join(map(str, [*words, *([" ".join(map(str, reasons))] if reasons else [])]))
