"""Every page by every role: what one may not see answers like what is not there, word for word.

The cases are made from the register of pages: a new page is in them by itself, and one about a kind of object that is
not known here fails.
"""

import re
from uuid import UUID, uuid4

import pytest
from django.db.models import Model

from extdhcp_site.accounts.models import Account, Role, User
from extdhcp_site.console import pages
from tests import factories
from tests.console.worlds import client_of, make_event, make_job, make_root

pytestmark = pytest.mark.django_db

NOBODYS = UUID(int=0)
TOKEN = re.compile(r'value="[A-Za-z0-9]{64}"')
PAGES = {it.name: it for it in pages.registered()}
ABOUT_ONE = {name: it for name, it in PAGES.items() if "<uuid:" in it.route}
# Further names in a page's route, with a value that leads somewhere.
WORDS = {"<slug:what>": "password", "<slug:kind>": "zone"}


def _chain(account: Account) -> Model:
    event = make_event(account=account)
    type(event).objects.filter(pk=event.pk).update(parent_uuid=event.uuid)
    return event


def _job(account: Account) -> Model:
    job = make_job()
    job.account = account
    job.save()
    return job


# What the page's first word is about: one that belongs to the account.
OBJECTS = {
    "vms": lambda account: factories.make_running_vm(account=account),
    "nics": lambda account: factories.make_running_vm(account=account).nics.get(),
    "networks": lambda account: factories.make_network(account=account),
    "jobs": _job,
    "events": _chain,
    "accounts": lambda account: account,
    "users": lambda account: factories.make_user(account),
    "endpoints": lambda account: factories.make_endpoint(),
    "hosts": lambda account: factories.make_host(),
}


def url_of(it: pages.Page, uuid: UUID | str) -> str:
    route = it.route.replace("<uuid:uuid>", str(uuid))
    for name, word in WORDS.items():
        route = route.replace(name, word)
    assert "<" not in route, f"Say in WORDS what stands for the name in {it.route}."
    return f"/{route}"


def users() -> dict[Role, User]:
    """One of each role; the admin of a domain is not above the accounts that the tests make."""
    return {
        Role.USER: factories.make_user(factories.make_account()),
        Role.DOMAIN_ADMIN: factories.make_user(
            factories.make_account(role=Role.DOMAIN_ADMIN, domain=factories.make_domain())
        ),
        Role.ROOT_ADMIN: make_root(),
    }


def answer(client, url: str) -> tuple[int, str]:
    response = client.get(url)
    return response.status_code, TOKEN.sub("", response.text) if not response.streaming else ""


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_there_for_its_roles_only(name):
    it = PAGES[name]
    for role, user in users().items():
        if role not in it.roles:
            uuid = OBJECTS[it.route.split("/")[0]](user.account).uuid if name in ABOUT_ONE else ""
            assert answer(client_of(user), url_of(it, uuid))[0] == 404


@pytest.mark.parametrize(
    ("name", "role"),
    [(name, role) for name, it in ABOUT_ONE.items() for role in it.roles - {Role.ROOT_ADMIN}],
)
def test_what_belongs_to_others_answers_like_what_is_not_there(name, role):
    it = ABOUT_ONE[name]
    client = client_of(users()[role])
    others = OBJECTS[it.route.split("/")[0]](factories.make_account(domain=factories.make_domain()))

    assert answer(client, url_of(it, others.uuid)) == answer(client, url_of(it, NOBODYS))
    assert answer(client, url_of(it, NOBODYS))[0] == 404


@pytest.mark.parametrize("name", ABOUT_ONE)
def test_what_belongs_to_oneself_is_there(name):
    it = ABOUT_ONE[name]
    role = Role.USER if Role.USER in it.roles else Role.ROOT_ADMIN
    user = users()[role]
    own = OBJECTS[it.route.split("/")[0]](user.account)

    assert answer(client_of(user), url_of(it, own.uuid))[0] != 404


@pytest.mark.parametrize("name", ABOUT_ONE)
def test_a_root_admin_sees_everybodys(name):
    it = ABOUT_ONE[name]
    others = OBJECTS[it.route.split("/")[0]](factories.make_account())

    assert answer(client_of(make_root()), url_of(it, others.uuid))[0] != 404


@pytest.mark.parametrize("name", PAGES)
def test_whoever_is_not_logged_in_is_led_to_the_log_in(name, client):
    url = url_of(PAGES[name], uuid4())

    assert client.get(url).status_code == 302
    assert client.get(url)["Location"].startswith("/login/?next=")


@pytest.mark.parametrize("name", PAGES)
def test_a_fragment_of_a_session_that_ended_reloads_its_page(name, client):
    response = client.get(url_of(PAGES[name], uuid4()), headers={"HX-Request": "true"})

    assert (response.status_code, response["HX-Refresh"]) == (401, "true")
