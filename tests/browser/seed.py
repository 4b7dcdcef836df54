"""What stands in the database before the first page is opened: `python -m tests.browser.seed`.

Prints two lines of JSON: the users' API keys; their session cookies, and one row of each model.
Runs in a process of its own, on the server's database.
"""

import base64
import json

from tests import seed  # sets Django up

# isort: split
from django.conf import settings
from django.db.models import QuerySet
from django.test import Client

from extdhcp_site.accounts.models import Account, User
from networks.models import VirtualMachine, Zone
from networks.models.infrastructure import AllocationState
from tests.console.worlds import MAKERS

USERS = ("admin", "maria", "olga", "crowd")
# What would run, leave its attribute, or be calculated if a page wrote it as it is.
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "' autofocus onfocus=alert(3) x='",
    "</script><svg onload=alert(4)>",
    "</textarea><iframe src=javascript:alert(5)>",
    "{{ 7|add:7 }}{% debug %}${7*7}",
)
# Fields whose words come from people, guests and hypervisors, and mean nothing to the server.
FREE = frozenset({
    "name", "display_text", "display_name", "group_name", "description", "for_operator", "resource_name",
    "instance_name", "last_error", "last_detail", "error_text", "error_for_operator", "progress",
    "progress_for_operator", "unavailable", "hypervisor_version", "holder", "value", "guest_os_type", "first_name",
    "last_name", "command_line", "changed_by",
})  # fmt: skip
# Here a name is what the server finds the row by.
FOUND_BY_NAME = frozenset({"setting", "lock", "domain"})
USER_DATA = "#cloud-config\nruncmd: ['echo <script>alert(6)</script>']\n"


def main() -> None:
    seed.clients()
    before = {model: set(model._base_manager.values_list("pk", flat=True)) for model in MAKERS}
    rows = {model._meta.model_name: make() for model, make in MAKERS.items()}
    maria = User.objects.get(username="maria").account
    for model, known in before.items():
        _make_hostile(model._base_manager.exclude(pk__in=known), maria)
    Zone.objects.exclude(pk__in=before[Zone]).update(allocation_state=AllocationState.DISABLED)
    cookies = {name: _cookie_of(name) for name in USERS}
    found = {name: {"pk": str(row.pk), "uuid": str(getattr(row, "uuid", ""))} for name, row in rows.items()}
    print(json.dumps({"cookies": cookies, "rows": found}))


def _make_hostile(rows: QuerySet, owner: Account) -> None:
    """Maria's, where somebody owns such; and what is free text in them does harm where it is not escaped."""
    if rows.model._meta.model_name in FOUND_BY_NAME:
        return
    fields = {field.name: field for field in rows.model._meta.concrete_fields}
    free = [field for name, field in fields.items() if name in FREE and not field.choices]
    mine = {"account": owner} if "account" in fields and rows.model is not User else {}
    for number in rows.values_list("pk", flat=True):
        # The number first: names are cut, and some must differ.
        words = {
            field.name: f"{number}{PAYLOADS[(number + at) % len(PAYLOADS)]}"[: field.max_length]
            for at, field in enumerate(free)
        }
        if words or mine:
            rows.model._base_manager.filter(pk=number).update(**words, **mine)
    for vm in rows if rows.model is VirtualMachine else ():
        vm.user_data = base64.b64encode(USER_DATA.encode()).decode()
        vm.save(update_fields=["user_data"])


def _cookie_of(name: str) -> str:
    client = Client()
    client.force_login(User.objects.get(username=name))
    return client.cookies[settings.SESSION_COOKIE_NAME].value


if __name__ == "__main__":
    main()
