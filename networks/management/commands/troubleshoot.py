"""Find out what is wrong with a VM: its state, its address, its config drive."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from networks import checks
from networks.models import Nic
from networks.selection import one_vm, one_vm_or_nic


class Command(BaseCommand):
    help = (
        "Say what is wrong with a VM, and what to do about it; of a NIC, what concerns its address. Hosts, guests and "
        "DHCP servers' leases are asked. Status 1 if anything is wrong."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "vm", metavar="VM|NIC", help="A VM's name, uuid or instance name; a NIC's uuid or MAC address."
        )
        parser.add_argument("--json", action="store_true", help="Print a JSON array of checks.")

    def handle(self, *args: Any, **options: Any) -> None:
        named = one_vm_or_nic(options["vm"])
        is_nic = isinstance(named, Nic)
        found = checks.of_nic(one_vm(str(named.vm.uuid)), named) if is_nic else checks.of(named)
        if checks.tell(self, found, as_json=options["json"]):
            raise SystemExit(1)
