"""Find out what is wrong with a VM: its state, its address, its config drive."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from networks import checks
from networks.selection import one_vm_or_nic


class Command(BaseCommand):
    help = "Say what is wrong with a VM, and what to do about it. Hosts and guests are asked. Status 1 if anything is."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "vm", metavar="VM|NIC", help="A VM's name, uuid or instance name; a NIC's uuid or MAC address."
        )
        parser.add_argument("--json", action="store_true", help="Print a JSON array of checks.")

    def handle(self, *args: Any, **options: Any) -> None:
        vm = one_vm_or_nic(options["vm"])
        if checks.tell(self, checks.of(vm), as_json=options["json"]):
            raise SystemExit(1)
