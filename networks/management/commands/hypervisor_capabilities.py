"""Print the table in docs/hypervisors.md."""

from typing import Any

from django.core.management.base import BaseCommand

from networks.capabilities import capability_table


class Command(BaseCommand):
    help = "Print what is served on which kind of hypervisor, in Markdown: the table in docs/hypervisors.md."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(capability_table(), ending="")
