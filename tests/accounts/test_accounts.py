"""The commands that make, change, shut and remove accounts."""

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Account, ApiKey, Role, User
from extdhcp_site.accounts.services import accounts as services
from extdhcp_site.accounts.services import users
from extdhcp_site.accounts.services.removal import belongings
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from tests.accounts.conftest import PASSWORD, result_of
from tests.api.client import Signer
from tests.factories import make_account, make_domain, make_network, make_template, make_user, make_vm

pytestmark = pytest.mark.django_db

PERSON = {
    "username": "bob",
    "password": "correct horse battery",
    "firstname": "Bob",
    "lastname": "Builder",
    "email": "bob@example.com",
}


def names(reply) -> set[str]:
    assert reply.status == 200, reply
    return {account["name"] for account in reply.body.get("account", [])}


def test_an_account_is_made_with_its_first_user(root, domain):
    made = root.call("createAccount", domainid=domain.uuid, account="builders", accounttype=0, **PERSON).body["account"]

    [person] = made.pop("user")
    account = Account.objects.get(name="builders")
    assert made == {
        "id": str(account.uuid),
        "name": "builders",
        "accounttype": 0,
        "roletype": "User",
        "rolename": "User",
        "state": "enabled",
        "domain": "sales",
        "domainid": str(domain.uuid),
        "domainpath": "ROOT/sales",
        "isdefault": False,
    }
    assert person["created"].endswith("+0000")
    assert {name: person[name] for name in ("username", "firstname", "lastname", "email", "state", "account")} == {
        "username": "bob",
        "firstname": "Bob",
        "lastname": "Builder",
        "email": "bob@example.com",
        "state": "enabled",
        "account": "builders",
    }
    assert (person["accountid"], person["domainid"]) == (str(account.uuid), str(domain.uuid))
    assert User.objects.get(username="bob").check_password(PERSON["password"])
    assert set(Event.objects.values_list("type", flat=True)) == {EventType.ACCOUNT_CREATE, EventType.USER_CREATE}


def test_an_account_is_called_as_its_user_is_unless_told(admin):
    made = admin.call("createAccount", **PERSON).body["account"]
    assert (made["name"], made["domainpath"]) == ("bob", "ROOT/sales")


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "short"},
        {"password": "password123"},
        {"username": "a b"},
        {"username": "system"},
        {"username": "SYSTEM"},
        {"email": "nobody"},
        {"account": "ann"},
        {"account": "ANN"},
        {"account": " "},
        {"accounttype": 3},
    ],
    ids=str,
)
def test_an_account_that_cannot_be_is_not_half_made(admin, user, changes):
    before = (Account.objects.count(), User.objects.count(), Event.objects.count())

    assert admin.call("createAccount", **{**PERSON, **changes}).status == 431
    assert (Account.objects.count(), User.objects.count(), Event.objects.count()) == before


def test_two_at_once_do_not_take_one_name_in_two_cases(user):
    with pytest.raises(IntegrityError):
        make_account(domain=user.user.account.domain, name="ANN")


def test_a_user_name_that_is_taken_makes_no_account(admin, user):
    assert "already exists" in admin.call("createAccount", **{**PERSON, "username": user.user.username}).text
    assert not Account.objects.filter(name=user.user.username).exists()


def test_nobody_gives_more_power_than_they_have(admin, root):
    """CVE-2025-47713 and its family: a domain admin made of a root admin what they liked."""
    assert admin.call("createAccount", accounttype=1, **PERSON).status == 531
    assert admin.call("createAccount", accounttype=2, **PERSON).body["account"]["roletype"] == "DomainAdmin"
    assert root.call("createAccount", accounttype=1, **{**PERSON, "username": "root2"}).status == 200


@pytest.mark.parametrize(
    ("who", "asked", "seen"),
    [
        ("root", {}, {"root"}),
        ("root", {"listall": "true"}, {"root", "boss", "ann", "beside"}),
        ("root", {"name": "beside"}, {"beside"}),
        ("root", {"listall": "true", "accounttype": 2}, {"boss"}),
        ("root", {"listall": "true", "state": "locked"}, set()),
        ("root", {"listall": "true", "keyword": "SI"}, {"beside"}),
        ("admin", {}, {"boss"}),
        ("admin", {"listall": "true"}, {"boss", "ann"}),
        ("admin", {"name": "beside"}, set()),
        ("user", {"listall": "true"}, {"ann"}),
    ],
)
def test_accounts_are_listed(request, root, admin, user, who, asked, seen):
    make_account(domain=make_domain(name="sales-2"), name="beside")
    assert names(request.getfixturevalue(who).call("listAccounts", **asked)) == seen


def test_accounts_are_listed_by_domain(root, admin, user, domain):
    make_account(domain=make_domain(domain), name="below")
    assert names(root.call("listAccounts", domainid=domain.uuid)) == {"boss", "ann"}
    assert names(root.call("listAccounts", domainid=domain.uuid, isrecursive="true")) == {"boss", "ann", "below"}


def test_listing_accounts_takes_the_same_queries_for_one_and_for_many(root):
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert root.call("listAccounts", listall="true").status == 200
        return len(captured)

    queries()
    few = queries()
    for _ in range(5):
        make_user(make_account())
    assert queries() == few <= 6


def test_an_account_is_renamed(admin, user):
    account = user.user.account
    assert admin.call("updateAccount", id=account.uuid, newname="anna").body["account"]["name"] == "anna"
    assert admin.call("updateAccount", id=account.uuid, newname="BOSS").status == 431


def test_an_account_goes_by_its_name_too(root, user, domain):
    """Ansible names the account to enable, lock and disable by account and domainid."""
    named = {"account": "ann", "domainid": domain.uuid}
    assert result_of(root, root.call("disableAccount", lock="false", **named))["account"]["state"] == "disabled"
    assert root.call("enableAccount", **named).body["account"]["state"] == "enabled"
    assert root.call("enableAccount", account="nobody", domainid=domain.uuid).status == 431
    assert root.call("enableAccount").status == 431


@pytest.mark.parametrize(("lock", "state"), [("true", "locked"), ("false", "disabled")])
def test_a_disabled_account_lets_nobody_in_until_it_is_enabled(admin, user, lock, state):
    account = user.user.account

    assert result_of(admin, admin.call("disableAccount", id=account.uuid, lock=lock))["account"]["state"] == state
    assert user.call("listZones").status == 401
    assert admin.call("enableAccount", id=account.uuid).body["account"]["state"] == "enabled"
    assert user.call("listZones").status == 200


@pytest.mark.parametrize("command", ["disableAccount", "deleteAccount"])
def test_nobody_shuts_their_own_account(admin, command):
    assert "your own" in admin.call(command, id=admin.user.account.uuid).text


@pytest.mark.parametrize(
    ("give", "what"),
    [
        (lambda account: make_vm(account), "1 virtual machine"),
        (lambda account: make_network(account=account), "1 network"),
        (lambda account: [make_template(account) for _ in range(2)], "2 templates"),
    ],
)
def test_an_account_that_owns_something_stays(admin, user, give, what):
    account = user.user.account
    give(account)

    refused = admin.call("deleteAccount", id=account.uuid)

    assert refused.status == 536
    assert f"still owns {what}" in refused.text


def test_what_an_account_comes_to_own_while_the_job_waits_keeps_it(admin, user):
    reply = admin.call("deleteAccount", id=user.user.account.uuid)
    make_network(account=user.user.account)

    assert result_of(admin, reply)["errorcode"] == 536
    assert user.call("listZones").status == 200


def test_a_deleted_account_is_gone_with_its_users_and_keys(admin, user):
    account = user.user.account

    assert result_of(admin, admin.call("deleteAccount", id=account.uuid)) == {"success": True}

    assert user.call("listZones").status == 401
    assert not ApiKey.objects.filter(user=user.user).exists()
    assert names(admin.call("listAccounts", listall="true")) == {"boss"}
    assert admin.call("listUsers", listall="true").body["count"] == 1
    assert admin.call("enableAccount", id=account.uuid).status == 431


def test_an_accounts_job_may_run_twice(admin, user):
    admin.call("deleteAccount", id=user.user.account.uuid)
    job = AsyncJob.objects.get()
    for _ in range(2):
        jobs._handlers["deleteAccount"][0](job)
    user.user.account.refresh_from_db()
    assert user.user.account.name.count("-removed-") == 1


def test_whoever_takes_a_deleted_accounts_name_inherits_nothing(admin, user, domain):
    """CVE-2025-66467: what was kept under a name came to whoever took the name next."""
    former = user.user.account
    events.record(EventType.VM_CREATE, "former", account=former)
    username = user.user.username
    result_of(admin, admin.call("deleteAccount", id=former.uuid))

    made = admin.call("createAccount", **{**PERSON, "account": "ann", "username": username}).body["account"]
    heir = Signer.of(Account.objects.get(uuid=made["id"]))

    assert made["id"] != str(former.uuid)
    assert "former" not in str(heir.call("listEvents", listall="true", account="ann").body)
    assert heir.call("listApiKeys").body["count"] == 1
    assert user.call("listZones").status == 401


def test_what_keeps_an_account_is_all_that_refers_to_it(user):
    """A new table that refers to accounts is counted without being named anywhere."""
    assert belongings(user.user.account) == "1 user"


def test_a_superusers_account_is_out_of_another_root_admins_reach(root):
    """CVE-2025-47713: the target is more powerful than the caller."""
    account = make_account(Role.ROOT_ADMIN)
    boss = make_user(account, is_superuser=True, password=PASSWORD)
    for command in ("disableAccount", "deleteAccount", "updateAccount", "enableAccount"):
        assert root.call(command, id=account.uuid, newname="x").status == 431, command
    User.objects.filter(pk=boss.pk).update(is_superuser=False)
    assert root.call("updateAccount", id=account.uuid, newname="x").status == 200


@pytest.mark.parametrize("command", ["enableAccount", "disableAccount", "updateAccount"])
def test_an_account_by_its_name_is_one_within_reach(admin, root, command):
    """CVE-2025-47713 (CloudStack): an account that is out of reach is so by its name, too."""
    beside = make_account(domain=make_domain(name="beside"), name="theirs")
    above = make_account(Role.ROOT_ADMIN, admin.user.account.domain, name="boss-of-all")
    superusers = make_account(Role.ROOT_ADMIN, name="superusers")
    make_user(superusers, is_superuser=True)
    for caller, account in ((admin, beside), (admin, above), (root, superusers)):
        asked = {"domainid": account.domain.uuid} if account is not beside else {}
        refused = caller.call(command, account=account.name, newname="x", lock="false", **asked)
        nobody = caller.call(command, account="nobody", newname="x", lock="false", **asked)
        assert (refused.status, refused.text.replace(account.name, "nobody")) == (431, nobody.text)
    assert not AsyncJob.objects.exists()


@pytest.mark.parametrize("name", ["ANN", "änn", "ann "])
@pytest.mark.parametrize("command", ["enableAccount", "createSSHKeyPair"])
def test_an_account_goes_by_its_very_name(admin, user, command, name):
    """MariaDB takes all of these for one."""
    reply = admin.call(command, account=name, domainid=user.user.account.domain.uuid, name="k")
    assert (reply.status, "Unable to find account" in reply.text) == (431, True)


def test_a_superuser_reaches_superusers(root):
    superuser = Signer.of(make_account(Role.ROOT_ADMIN))
    User.objects.filter(pk=superuser.user.pk).update(is_superuser=True)
    other = make_user(make_account(Role.ROOT_ADMIN), is_superuser=True)
    assert superuser.call("updateAccount", id=other.account.uuid, newname="renamed").status == 200
    assert superuser.call("updateUser", id=other.uuid, firstname="Zoe").status == 200


def test_a_late_job_does_not_bring_a_removed_account_back(admin, user):
    account = user.user.account
    late = AsyncJob.objects.get(uuid=admin.call("disableAccount", id=account.uuid, lock="true").body["jobid"])
    AsyncJob.objects.filter(pk=late.pk).update(busy_with=None)
    result_of(admin, admin.call("deleteAccount", id=account.uuid))

    jobs._handlers["disableAccount"][0](late)

    account.refresh_from_db()
    assert account.state == Account.State.REMOVED


@pytest.mark.parametrize("enable", [services.enable, users.enable], ids=["an account", "a user"])
def test_what_was_removed_meanwhile_is_not_enabled(admin, user, enable):
    former = user.user.account if enable is services.enable else user.user
    result_of(admin, admin.call("deleteAccount", id=user.user.account.uuid))

    with pytest.raises(InvalidParameter, match="deleted meanwhile"):
        enable(former, admin.caller)

    former.refresh_from_db()
    assert (getattr(former, "state", "removed"), getattr(former, "is_active", False)) == ("removed", False)


def test_deleted_users_are_shown_with_no_account(admin, user):
    make_user(user.user.account, username="leaver")
    admin.call("deleteUser", id=User.objects.get(username="leaver").uuid)
    [shown] = admin.call("listAccounts", name="ann").body["account"]
    assert [person["username"] for person in shown["user"]] == [user.user.username]
