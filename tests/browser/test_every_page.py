"""Every page that the console has, as an admin and as a user, with hostile words in all that it shows."""

from collections.abc import Iterator
from itertools import product

import pytest
from django.urls import reverse

from extdhcp_site.accounts.models import Role
from extdhcp_site.api import registry
from extdhcp_site.console import pages, views  # noqa: F401 - views registers pages
from networks.console import hosts, vm_actions
from tests.browser.views import TWO_VIEWS, unseen_focus, visit

ROLES = {"admin": Role.ROOT_ADMIN, "maria": Role.USER}
# Whose UUID stands in a page's route, by the route's first word.
MODELS = {
    "vms": "virtualmachine",
    "nics": "nic",
    "networks": "network",
    "endpoints": "endpoint",
    "hosts": "host",
    "accounts": "account",
    "users": "user",
    "jobs": "asyncjob",
    "events": "event",
}
# What else a route may ask for.
WORDS = {"vm-form": [{"what": it} for it in vm_actions.FORMS], "new_place": [{"kind": it} for it in hosts.PLACES]}


def every_page() -> Iterator[object]:
    for page, (user, role) in product(pages.registered(), ROLES.items()):
        for words in WORDS.get(page.name, [{}]):
            if role in page.roles and ("what" not in words or role in _roles_of(words["what"])):
                yield pytest.param(page, words, user, id="-".join([page.name, *words.values(), user]))


def _roles_of(form: str) -> frozenset[Role]:
    return registry.find(vm_actions.FORMS[form].command).roles


def url_of(page: pages.Page, words: dict[str, str], rows: dict[str, dict[str, str]]) -> str:
    about = {"uuid": rows[MODELS[page.route.split("/")[0]]]["uuid"]} if "<uuid:uuid>" in page.route else {}
    return reverse(page.name, kwargs={**about, **words})


@pytest.mark.parametrize(("it", "words", "user"), list(every_page()))
def test_a_page_looks_right_and_runs_nothing_of_what_it_shows(signed_in, looks_right, site, request, it, words, user):
    url = url_of(it, words, site.rows)
    page = signed_in(user)
    visit(page, url)
    is_piece = page.evaluate("() => document.doctype === null")
    if is_piece or page.url != f"{site.url}{url}":
        return  # seen within the page that fetches it, or that it leads to

    assert page.locator("[onerror], [onfocus], [onload], iframe").count() == 0
    assert unseen_focus(page) == []
    looks_right(page, f"page-{request.node.callspec.id}", TWO_VIEWS)
