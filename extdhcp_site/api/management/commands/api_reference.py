"""Print docs/api-reference.md."""

from typing import Any

from django.core.management.base import BaseCommand

from extdhcp_site.api.reference import reference


class Command(BaseCommand):
    help = "Print the reference page of the CloudStack API, in Markdown: docs/api-reference.md is made of it."

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(reference(), ending="")
