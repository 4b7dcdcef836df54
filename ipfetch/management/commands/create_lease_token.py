"""Make a token by which a DHCP server reports a network's leases; it is shown this once."""

import json
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ipfetch.models import create_lease_token
from networks.models import Network


class Command(BaseCommand):
    help = "Make a token by which a DHCP server reports a network's leases. It is shown once and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("network", help="The network's name or id.")
        parser.add_argument("--name", default="DHCP server", help="Who will use it, to tell tokens apart.")
        parser.add_argument("--json", action="store_true", help="Print a JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        network = _find(options["network"])
        if not options["name"] or len(options["name"]) > 100:
            raise CommandError("A name has 1 to 100 characters.")
        token = create_lease_token(network, options["name"])
        if options["json"]:
            self.stdout.write(json.dumps({"networkid": str(network.uuid), "name": options["name"], "token": token}))
            return
        self.stdout.write(f"token  {token}")
        self.stderr.write(f"Keep it: it is not shown again. It reports leases on the network {network}.")


def _find(text: str) -> Network:
    """Raises CommandError."""
    try:
        found = list(Network.objects.filter(uuid=UUID(text)))
    except ValueError:
        found = list(Network.objects.filter(name=text))
    if len(found) > 1:
        raise CommandError(f"Several zones have a network {text}. Give its id.")
    if not found:
        raise CommandError(f"There is no network {text}.")
    return found[0]
