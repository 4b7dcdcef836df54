"""Find out whether a hypervisor can be used, before a deploy does."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from networks.checks import tell
from networks.models import Endpoint
from networks.services.endpoint_checks import checks


class Command(BaseCommand):
    help = "Connect to an endpoint and check what a deploy will need: host, storage, bridges. Status 1 if one fails."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("endpoint", help="The endpoint's name.")
        parser.add_argument("--json", action="store_true", help="Print a JSON array of checks.")

    def handle(self, *args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(name=options["endpoint"]).first()
        if endpoint is None:
            names = ", ".join(Endpoint.objects.values_list("name", flat=True)[:20]) or "none yet"
            raise CommandError(f"There is no endpoint {options['endpoint']}. There are: {names}.")
        if tell(self, checks(endpoint), as_json=options["json"]):
            raise SystemExit(1)
