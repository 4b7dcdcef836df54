"""Make a key pair and a bearer token for a user; they are shown this once."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from extdhcp_site.accounts.models import Caller, User, create_api_key
from extdhcp_site.events import models as events


class Command(BaseCommand):
    help = "Make an API key for a user. Key, secret and token are shown once and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--json", action="store_true", help="Print a JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        user = User.objects.select_related("account__domain").filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"There is no user {options['username']}. Make one in the admin, or by createsuperuser.")
        new = create_api_key(user)
        events.record(
            events.EventType.API_KEY_CREATE,
            f"API key {new.api_key[:8]}… made for {user}",
            account=user.account,
            by=Caller.of(user),
        )
        if options["json"]:
            shown = {"api_key": new.api_key, "secret_key": new.secret_key, "token": new.token}
            self.stdout.write(json.dumps(shown))
            return
        self.stdout.write(f"api_key     {new.api_key}\nsecret_key  {new.secret_key}\ntoken       {new.token}")
        self.stderr.write("Keep them: the secret and the token are not shown again.")
