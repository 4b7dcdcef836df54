"""The console's pages of SSH key pairs."""

import re

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from extdhcp_site.accounts.models import Role
from networks.models import SshKeyPair
from tests.console.worlds import client_of, make_key_pair
from tests.factories import make_account, make_user

pytestmark = pytest.mark.django_db

LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA1pUyPbfPMvNRpJ5T5vKW1sp2ywDlqXsUBhKSbjPVvh ann@laptop"


@pytest.fixture
def account():
    return make_account(name="ann")


@pytest.fixture
def browser(account):
    return client_of(make_user(account))


def test_a_public_key_is_registered(browser, account):
    answer = browser.post("/key-pairs/register/", {"name": "laptop", "publickey": LINE})
    assert answer["Location"] == "/key-pairs/"
    assert SshKeyPair.objects.get().account == account
    assert "laptop" in browser.get("/key-pairs/").text


@pytest.mark.parametrize("form", [{"name": "laptop", "publickey": "junk"}, {"name": "", "publickey": LINE}, {}])
def test_what_is_no_key_is_refused_on_the_form(browser, form):
    page = browser.post("/key-pairs/register/", form)
    assert page.status_code == 200
    assert 'role="alert"' in page.text
    assert not SshKeyPair.objects.exists()


def test_a_made_keys_private_half_is_shown_once(browser):
    page = browser.post("/key-pairs/new/", {"name": "fresh"})
    [pem] = re.findall(r"-----BEGIN RSA PRIVATE KEY-----.*-----END RSA PRIVATE KEY-----", page.text, re.S)
    assert load_pem_private_key(pem.encode(), None).key_size == 3072
    assert "no-store" in page["Cache-Control"]
    for path in ("/key-pairs/", "/key-pairs/new/", "/key-pairs/?export=json"):
        again = browser.get(path)
        text = again.getvalue().decode() if again.streaming else again.text
        assert "PRIVATE KEY" not in text


def test_a_taken_name_is_said_beside_it(browser, account):
    make_key_pair(account)
    page = browser.post("/key-pairs/new/", {"name": "laptop"})
    assert "laptop" in page.text
    assert 'role="alert"' in page.text


def test_one_is_deleted_by_its_button(browser, account):
    pair = make_key_pair(account)
    page = browser.get("/key-pairs/").text
    assert f"cmk delete sshkeypair name={pair.name}" in page
    browser.post("/do/deleteSSHKeyPair", {"name": pair.name, "_then": "/key-pairs/"})
    assert not SshKeyPair.objects.exists()


def test_others_are_not_there(browser):
    make_key_pair(make_account(name="bob"))
    assert "laptop" not in browser.get("/key-pairs/").text


def test_an_administrators_button_names_the_owner():
    pair = make_key_pair(make_account(name="bob"))
    root = client_of(make_user(make_account(Role.ROOT_ADMIN)))
    assert "account=bob" in root.get("/key-pairs/").text
    owner = {"account": "bob", "domainid": str(pair.account.domain.uuid)}
    root.post("/do/deleteSSHKeyPair", {"name": pair.name, **owner})
    assert not SshKeyPair.objects.exists()


def test_the_list_costs_the_same_whatever_its_length(browser, account):
    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            browser.get(reverse("key-pairs"))
        return len(captured)

    make_key_pair(account)
    few = cost()
    SshKeyPair.objects.bulk_create(
        SshKeyPair(account=account, name=f"key-{number}", public_key=LINE, fingerprint="00") for number in range(30)
    )
    assert cost() == few
