"""Print a script for templates, as /guest/ serves it."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from configdrive import guest_scripts
from configdrive.configuration import LABEL
from networks.volume_label import InvalidLabel


class Command(BaseCommand):
    help = "Print a script for templates, with the config drive's label filled in; without NAME, list them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", nargs="?", help="The script's file name.")
        parser.add_argument("--label", help="Volume label to look for (default: the setting vm.configdrive.label).")
        parser.add_argument("--json", action="store_true", help="Print a JSON array, or with NAME an object.")

    def handle(self, *args: Any, **options: Any) -> None:
        name, as_json = options["name"], options["json"]
        if name is None:
            listed = [{"name": known, "summary": summary} for known, summary in guest_scripts.scripts().items()]
            width = max(len(script["name"]) for script in listed)
            lines = [f"{script['name']:<{width}}  {script['summary']}" for script in listed]
            self.stdout.write(json.dumps(listed) if as_json else "\n".join(lines))
            return
        label = LABEL.get() if options["label"] is None else options["label"]
        try:
            text = guest_scripts.render(name, label)
        except InvalidLabel as error:
            raise CommandError(str(error)) from error
        except guest_scripts.NoSuchScript as error:
            raise CommandError(f"No script {name!r}. There are: {', '.join(guest_scripts.scripts())}.") from error
        self.stdout.write(json.dumps({"name": name, "label": label, "text": text}) if as_json else text, ending="")
        if as_json:
            self.stdout.write("")
