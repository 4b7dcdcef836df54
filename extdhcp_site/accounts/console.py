"""One's own account, and for administrators the accounts and users of their domains."""

from uuid import UUID

from django.contrib import messages
from django.contrib.auth import update_session_auth_hash
from django.db.models import Count, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render

from extdhcp_site.accounts import second_factor
from extdhcp_site.accounts.models import Account, ApiKey, Caller, Role, User
from extdhcp_site.api.registry import ADMINS, EVERYBODY
from extdhcp_site.console.commands import Action, permitted
from extdhcp_site.console.forms import Ask, CommandForm
from extdhcp_site.console.lists import Column, Filter, ListOf
from extdhcp_site.console.pages import Menu, page
from extdhcp_site.errors import InvalidParameter

MOST_KEYS = 20
ROLES = [(str(number), label) for number, label in Role.choices]


@page("account/", name="my-account", roles=EVERYBODY)
def account(request: HttpRequest, caller: Caller) -> HttpResponse:
    """Who one is, and what lets one in."""
    keys = ApiKey.objects.filter(user=caller.user)[:MOST_KEYS]
    context = {
        "me": caller.user,
        "role": caller.role.label,
        "has_second_factor": second_factor.is_set_up(caller.user),
        "recovery_codes": second_factor.unused_recovery_codes(caller.user),
        "keys": [(key, permitted(caller, [] if key.disabled_at else [_disable(key)])) for key in keys],
    }
    return render(request, "accounts/me.html", context)


def _disable(key: ApiKey) -> Action:
    return Action(
        "disableApiKey",
        "Disable",
        {"id": str(key.uuid)},
        sure=f"Programs that use the API key {key.key[:8]}… are refused from now on. It cannot be enabled again.",
        is_destructive=True,
    )


@page("account/keys/new/", name="new-api-keys", roles=EVERYBODY, section="my-account", posts=True)
def new_api_keys(request: HttpRequest, caller: Caller) -> HttpResponse:
    """The secrets are shown in answer to the form, and never again."""
    form = CommandForm("registerUserKeys", request, caller, [], {"id": str(caller.user.uuid)})
    answer = form.submit()
    has_some = ApiKey.objects.filter(user=caller.user, disabled_at=None).exists()
    context = {"form": form, "made": answer["userkeys"] if answer else None, "has_some": has_some}
    return render(request, "accounts/new_keys.html", context)


@page("account/password/", name="account-password", roles=EVERYBODY, section="my-account", posts=True)
def password(request: HttpRequest, caller: Caller) -> HttpResponse:
    """One's own password. The session goes on; the user's others end."""
    asks = [
        Ask("currentpassword", "Password now", "", kind="password", required=True),
        Ask("password", "New password", "At least ten characters, and not one that many people have.", required=True),
    ]
    form = CommandForm("updateUser", request, caller, asks, {"id": str(caller.user.uuid)})
    if form.is_sent and "password" not in form.sends():
        # The command would take it for no change.
        form.refuse(InvalidParameter("", problems={"password": "Give the new password."}))
    elif form.submit() is not None:
        user = User.objects.get(pk=caller.user.pk)
        update_session_auth_hash(request, user)
        messages.success(request, "Your password is changed. Your other sessions have ended; API keys go on.")
        return redirect("my-account")
    return render(request, "accounts/password.html", {"form": form})


# Accounts -------------------------------------------------------------------------------------------


def _accounts(caller: Caller) -> QuerySet[Account]:
    return Account.objects.visible_to(caller).order_by("domain__path", "name", "pk")


def _with_users(rows: QuerySet[Account], caller: Caller) -> QuerySet[Account]:
    number = Count("users", filter=Q(users__removed_at=None))
    return rows.select_related("domain").annotate(number_of_users=number)


ACCOUNTS = ListOf[Account](
    "accounts",
    "Accounts",
    rows=_accounts,
    columns=[
        Column("Name", lambda row: row.name, "accounts/account_name.html", sort="name"),
        Column("Domain", lambda row: row.domain, sort="domain__path"),
        Column("Role", lambda row: row.get_role_display()),
        Column("State", lambda row: row.get_state_display(), "accounts/account_state.html", short=True),
        Column("Users", lambda row: row.number_of_users, "accounts/account_users.html", short=True),
    ],
    filters=[
        Filter("name", "Name", lambda rows, text, caller: rows.filter(name__icontains=text)),
        Filter("domain", "Domain", lambda rows, text, caller: rows.filter(domain__path__icontains=text)),
        Filter("role", "Role", lambda rows, text, caller: rows.filter(role=text), ROLES),
        Filter(
            "state",
            "State",
            lambda rows, text, caller: rows.filter(state=text),
            [(state.value, state.label) for state in Account.State if state != Account.State.REMOVED],
        ),
    ],
    complete=_with_users,
    template="accounts/accounts.html",
    nothing="There is no account.",
)


@page("accounts/", name="accounts", roles=ADMINS, menu=Menu("Accounts", order=80))
def accounts(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return ACCOUNTS.respond(request, caller)


# A person, in createAccount and createUser.
_PERSON = [
    Ask("username", "User name"),
    Ask("password", "Password", kind="password"),
    Ask("firstname", "First name"),
    Ask("lastname", "Last name"),
    Ask("email", "E-mail"),
]


@page("accounts/new/", name="new-account", roles=ADMINS, section="accounts", posts=True)
def new_account(request: HttpRequest, caller: Caller) -> HttpResponse:
    roles = [pair for pair in ROLES if caller.is_root or pair[0] != str(Role.ROOT_ADMIN.value)]
    asks = [
        *_PERSON,
        Ask("account", "Account", "Its name; the user's, if left empty."),
        Ask("accounttype", "Role", "What its users may do.", kind="select", choices=roles, value=str(Role.USER.value)),
        Ask("domainid", "Domain", "Your own, if left empty."),
    ]
    form = CommandForm("createAccount", request, caller, asks)
    if answer := form.submit():
        return redirect("account", answer["account"]["id"])
    return render(request, "accounts/new.html", {"form": form, "title": "New account", "says": "With its first user."})


@page("accounts/<uuid:uuid>/new-user/", name="new-user", roles=ADMINS, section="accounts", posts=True)
def new_user(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    row = _accounts(caller).select_related("domain").filter(uuid=uuid).first()
    if row is None:
        raise Http404
    form = CommandForm("createUser", request, caller, _PERSON, {"account": row.name, "domainid": str(row.domain.uuid)})
    if answer := form.submit():
        return redirect("user", answer["user"]["id"])
    return render(request, "accounts/new.html", {"form": form, "title": "New user", "says": f"Of the account {row}."})


@page("accounts/<uuid:uuid>/", name="account", roles=ADMINS, section="accounts")
def one_account(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    row = _with_users(_accounts(caller).filter(uuid=uuid), caller).first()
    if row is None:
        raise Http404
    context = {"account": row, "actions": permitted(caller, _actions_on_account(row, caller))}
    return render(request, "accounts/account.html", context)


def _actions_on_account(account: Account, caller: Caller) -> list[Action]:
    if account.pk == caller.account.pk or not _is_within_reach(account, caller):
        return []
    values = {"id": str(account.uuid)}
    if account.state != Account.State.ENABLED:
        return [Action("enableAccount", "Enable", values)]
    shut = f"Nobody of {account} gets in any more, by password or API key, until it is enabled. Its VMs go on running."
    return [
        Action("disableAccount", "Disable", {**values, "lock": "false"}, sure=shut, is_destructive=True),
        Action("disableAccount", "Lock", {**values, "lock": "true"}, sure=shut, is_destructive=True),
    ]


def _is_within_reach(row: Account | User, caller: Caller) -> bool:
    return type(row).objects.within_reach_of(caller).filter(pk=row.pk).exists()


# Users ----------------------------------------------------------------------------------------------


def _users(caller: Caller) -> QuerySet[User]:
    return User.objects.visible_to(caller).order_by("username", "pk")


def _with_factor(rows: QuerySet[User], caller: Caller) -> QuerySet[User]:
    return rows.select_related("account__domain").annotate(has_second_factor=second_factor.of(OuterRef("pk")))


def _by_factor(rows: QuerySet[User], has_one: str, caller: Caller) -> QuerySet[User]:
    found = second_factor.of(OuterRef("pk"))
    return rows.filter(found if has_one == "yes" else ~found)


USERS = ListOf[User](
    "users",
    "Users",
    rows=_users,
    columns=[
        Column("User name", lambda row: row.username, "accounts/user_name.html", sort="username"),
        Column("Name", lambda row: row.get_full_name() or "not given"),
        Column("Account", lambda row: row.account.name, "accounts/user_account.html"),
        Column("Domain", lambda row: row.account.domain),
        Column("Role", lambda row: row.account.get_role_display()),
        Column("State", lambda row: "enabled" if row.is_active else "disabled", "accounts/user_state.html", short=True),
        Column("Second factor", lambda row: "yes" if row.has_second_factor else "no", short=True),
        Column(
            "Last log-in",
            lambda row: row.last_login or "never",
            "accounts/user_log_in.html",
            sort="last_login",
            short=True,
        ),
    ],
    filters=[
        Filter("username", "User name", lambda rows, text, caller: rows.filter(username__icontains=text)),
        Filter("account", "Account", lambda rows, text, caller: rows.filter(account__name__icontains=text)),
        Filter(
            "accountid", "Account's id", lambda rows, text, caller: rows.filter(account__uuid=UUID(text)), hidden=True
        ),
        Filter("role", "Role", lambda rows, text, caller: rows.filter(account__role=text), ROLES),
        Filter(
            "state",
            "State",
            lambda rows, text, caller: rows.filter(is_active=text == "enabled"),
            [("enabled", "enabled"), ("disabled", "disabled")],
        ),
        Filter(
            "secondfactor",
            "Second factor",
            _by_factor,
            [("yes", "yes"), ("no", "no")],
        ),
    ],
    complete=_with_factor,
    template="accounts/users.html",
    nothing="There is no user.",
)


@page("users/", name="users", roles=ADMINS, section="accounts")
def users(request: HttpRequest, caller: Caller) -> HttpResponseBase:
    return USERS.respond(request, caller)


@page("users/<uuid:uuid>/", name="user", roles=ADMINS, section="accounts")
def one_user(request: HttpRequest, caller: Caller, uuid: UUID) -> HttpResponse:
    row = _with_factor(_users(caller).filter(uuid=uuid), caller).first()
    if row is None:
        raise Http404
    keys = ApiKey.objects.visible_to(caller).filter(user=row)[:MOST_KEYS]
    context = {
        "it": row,
        "actions": permitted(caller, _actions_on_user(row, caller)),
        "keys": [(key, permitted(caller, [] if key.disabled_at else [_disable(key)])) for key in keys],
    }
    return render(request, "accounts/user.html", context)


def _actions_on_user(user: User, caller: Caller) -> list[Action]:
    if user.pk == caller.user.pk or not _is_within_reach(user, caller):
        return []
    values = {"id": str(user.uuid)}
    shut = f"{user} gets in no more, by password or API key, until enabled."
    lost = (
        f"{user} gets in by the password alone, until a second factor is set up anew. Be sure that it is they who ask."
    )
    factor = [Action("removeSecondFactor", "Remove the second factor", values, sure=lost, is_destructive=True)]
    return [
        Action("disableUser", "Disable", values, sure=shut, is_destructive=True)
        if user.is_active
        else Action("enableUser", "Enable", values),
        *(factor if user.has_second_factor else []),
    ]
