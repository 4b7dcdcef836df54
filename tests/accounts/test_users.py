"""The commands that show and change users: oneself, and whoever an admin is responsible for."""

import pytest
from django.contrib.auth.models import Group, Permission

from extdhcp_site.accounts.models import Account, ApiKey, Role, User
from extdhcp_site.api import throttling
from extdhcp_site.events.models import Event, EventType
from tests.accounts.conftest import PASSWORD, result_of
from tests.api.client import Signer
from tests.factories import make_account, make_api_key, make_domain, make_user

pytestmark = pytest.mark.django_db

NEW = "correct horse battery"
PERSON = {"username": "bob", "password": NEW, "firstname": "Bob", "lastname": "Builder", "email": "bob@example.com"}


def names(reply) -> set[str]:
    assert reply.status == 200, reply
    return {user["username"] for user in reply.body.get("user", [])}


def test_a_user_is_made(admin, user):
    made = admin.call("createUser", account="ann", **PERSON).body["user"]

    assert (made["username"], made["account"], made["accounttype"], made["usersource"]) == ("bob", "ann", 0, "native")
    assert "password" not in str(made)
    assert User.objects.get(username="bob").check_password(NEW)
    assert Event.objects.get().type == EventType.USER_CREATE


@pytest.mark.parametrize("command", ["createUser", "updateUser"])
def test_a_user_name_is_taken_in_any_case(admin, user, command):
    other = make_user(user.user.account, username="bob")
    reply = admin.call(
        command, **{**PERSON, "id": other.uuid, "account": "ann", "username": user.user.username.upper()}
    )
    assert (reply.status, "already exists" in reply.text) == (431, True)


def test_a_user_is_made_for_an_account_that_one_sees(admin):
    make_account(domain=make_domain(), name="elsewhere")
    assert admin.call("createUser", account="elsewhere", **PERSON).status == 431
    assert admin.call("createUser", **PERSON).status == 431


@pytest.mark.parametrize(
    ("who", "asked", "seen"),
    [
        ("admin", {}, {"boss"}),
        ("admin", {"listall": "true"}, {"boss", "ann", "amy"}),
        ("admin", {"account": "ann"}, {"ann", "amy"}),
        ("admin", {"listall": "true", "username": "amy"}, {"amy"}),
        ("admin", {"listall": "true", "state": "disabled"}, {"amy"}),
        ("admin", {"listall": "true", "accounttype": 2}, {"boss"}),
        ("admin", {"listall": "true", "keyword": "AM"}, {"amy"}),
        ("user", {"listall": "true"}, {"ann", "amy"}),
    ],
)
def test_users_are_listed(request, admin, user, who, asked, seen):
    make_user()
    User.objects.filter(pk=admin.user.pk).update(username="boss")
    User.objects.filter(pk=user.user.pk).update(username="ann")
    make_user(user.user.account, username="amy", is_active=False)
    assert names(request.getfixturevalue(who).call("listUsers", **asked)) == seen


def test_an_api_key_is_shown_to_its_user_alone(admin, user):
    own = user.call("listUsers").body["user"][0]
    others = admin.call("listUsers", account="ann").body["user"][0]
    assert own["apikey"] == user.keys.api_key
    assert "apikey" not in others
    assert user.keys.secret_key not in str((own, others))


def test_a_user_is_found_by_the_api_key(user, root):
    """Ansible's user data and key modules ask so for who they are."""
    assert user.call("getUser", userapikey=user.keys.api_key).body["user"]["id"] == str(user.user.uuid)
    assert root.call("getUser", userapikey=user.keys.api_key).status == 200


def test_anothers_api_key_finds_nobody(user):
    others = make_api_key()
    assert user.call("getUser", userapikey=others.api_key).status == 431
    assert user.call("getUser", userapikey=user.keys.api_key.swapcase()).status == 431


def test_a_user_changes(admin, user):
    changed = admin.call("updateUser", id=user.user.uuid, firstname="Ann", email="ann@example.com").body["user"]

    assert (changed["firstname"], changed["email"]) == ("Ann", "ann@example.com")
    assert Event.objects.get().description == f"User {user.user}: email, first name changed"


def test_an_admin_sets_a_users_password(admin, user):
    assert admin.call("updateUser", id=user.user.uuid, password=NEW).status == 200
    assert User.objects.get(pk=user.user.pk).check_password(NEW)


def test_one_changes_ones_own_password_knowing_it(user):
    """Who has come by a key must not make it a log-in."""
    for wrong in ({}, {"currentpassword": "x"}, {"currentpassword": ""}):
        assert "currentpassword" in user.call("updateUser", id=user.user.uuid, password=NEW, **wrong).text
    assert user.call("updateUser", id=user.user.uuid, password=NEW, currentpassword=PASSWORD).status == 200
    assert User.objects.get(pk=user.user.pk).check_password(NEW)


def test_ones_own_password_is_not_guessed(user):
    statuses = [
        user.call("updateUser", id=user.user.uuid, password=NEW, currentpassword=f"guess {n}").status for n in range(20)
    ]
    assert statuses[0] == 431
    assert statuses[-1] == 429
    assert user.call("updateUser", id=user.user.uuid, password=NEW, currentpassword=PASSWORD).status == 429


def test_those_who_guess_theirs_shut_nobody_else_out(user, monkeypatch):
    monkeypatch.setattr(throttling.log_ins, "peer", 3)
    others = [Signer.of(make_account()) for _ in range(4)]
    for other in others:
        other.call("updateUser", id=other.user.uuid, password=NEW, currentpassword="guess")
    assert user.call("updateUser", id=user.user.uuid, password=NEW, currentpassword=PASSWORD).status == 200


@pytest.mark.parametrize(
    "changes",
    [{"password": "short"}, {"password": "1234567890"}, {"email": "x"}, {"username": "a b"}, {"username": "system"}],
    ids=str,
)
def test_a_change_that_cannot_be_is_refused(admin, user, changes):
    before = User.objects.filter(pk=user.user.pk).values().get()
    assert admin.call("updateUser", id=user.user.uuid, **changes).status == 431
    assert User.objects.filter(pk=user.user.pk).values().get() == before


def test_a_disabled_user_is_out_until_enabled(admin, user):
    assert result_of(admin, admin.call("disableUser", id=user.user.uuid))["user"]["state"] == "disabled"
    assert user.call("listZones").status == 401
    assert admin.call("enableUser", id=user.user.uuid).body["user"]["state"] == "enabled"
    assert user.call("listZones").status == 200


@pytest.mark.parametrize("command", ["disableUser", "deleteUser"])
def test_nobody_shuts_themselves_out(admin, command):
    assert "yourself" in admin.call(command, id=admin.user.uuid).text


def test_a_deleted_user_is_gone_and_the_name_is_free(admin, user):
    """CVE-2025-66467: the next of that name has nothing of the first."""
    username = user.user.username
    colleague = Signer.of(user.user.account)
    assert admin.call("deleteUser", id=user.user.uuid).body == {"success": True}
    assert colleague.call("listZones").status == user.call("listZones").status == 401
    assert not ApiKey.objects.filter(user=user.user).exists()
    assert admin.call("enableUser", id=user.user.uuid).status == 431

    again = admin.call("createUser", account="ann", **{**PERSON, "username": username}).body["user"]

    assert again["id"] != str(user.user.uuid)
    assert names(admin.call("listUsers", account="ann")) == {username}
    assert Signer.of(Account.objects.get(name="ann")).call("listApiKeys").body["count"] == 1


def test_a_deleted_superuser_has_no_power_left(root):
    boss = make_user(root.user.account, is_superuser=True, is_staff=True)
    boss.groups.add(Group.objects.create(name="operators"))
    boss.user_permissions.add(Permission.objects.first())
    User.objects.filter(pk=root.user.pk).update(is_superuser=True)

    root.call("deleteUser", id=boss.uuid)

    boss.refresh_from_db()
    assert (boss.is_superuser, boss.is_staff, boss.is_active) == (False, False, False)
    assert not boss.has_usable_password()
    assert not boss.groups.exists()
    assert not boss.user_permissions.exists()


def test_a_job_about_a_user_who_is_deleted_later_shows_nobody(admin, user):
    reply = admin.call("disableUser", id=user.user.uuid)
    assert "user" in result_of(admin, reply)
    admin.call("deleteUser", id=user.user.uuid)
    assert result_of(admin, reply) == {"success": True}


@pytest.mark.parametrize("command", ["updateUser", "disableUser", "enableUser", "deleteUser", "registerUserKeys"])
def test_a_more_powerful_user_is_out_of_reach(root, admin, command):
    """CVE-2025-47713: a domain admin reset a root admin's password; CVE-2016-6813: another's keys."""
    in_his_domain = make_user(make_account(Role.ROOT_ADMIN, admin.user.account.domain))
    superuser = make_user(make_account(Role.ROOT_ADMIN), is_superuser=True)
    for caller, target in ((admin, in_his_domain), (admin, root.user), (admin, superuser), (root, superuser)):
        assert caller.call(command, id=target.uuid, password=NEW).status == 431
        assert User.objects.get(pk=target.pk).check_password(PASSWORD)
        assert not target.api_keys.exclude(user=root.user).exists()


def test_a_user_is_not_told_of_a_colleagues_password(user):
    colleague = make_user(user.user.account)
    assert user.call("updateUser", id=colleague.uuid, password=NEW).status == 431
    assert user.call("registerUserKeys", id=colleague.uuid).status == 431


def test_nobody_is_called_like_the_server(db):
    """CVE-2012-4501: a built-in account was used from outside. There is none, and the database sees to it."""
    with pytest.raises(Exception, match="nobody_is_called_system"):
        make_user(username="System")
