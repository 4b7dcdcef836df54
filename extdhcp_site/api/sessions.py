"""Log-in by password on `/client/api`, and what a session's later calls must bring.

`login` is a POST whose body has the user name and the password: never a URL, which proxies log. It gives two
cookies, `sessionid` and `sessionkey`, and the key in the answer as well. A browser sends its cookies with whatever
any page makes it ask for, so they let nobody in by themselves: each call names the key as a *parameter* too, GET
and POST alike (cmk changes things by GET), and one that says it comes from another site's page is refused. The
key's hash is all that is kept. A wrong key ends nothing: else a foreign page could log people out.

Who has a second factor gets no session here, since no client could give its code: programs sign with an API key.

A session ends at `logout`, after api.session.timeout seconds without a call, and at once when the password or the
account's role changes, or the user or account is disabled or deleted. One of the console has no key, and none of
its cookies is good here.
"""

import secrets
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest, HttpResponse
from rest_framework import serializers

from extdhcp_site.accounts import second_factor
from extdhcp_site.accounts.log_in import record, verified
from extdhcp_site.accounts.models import TREE, Caller, User, hash_token
from extdhcp_site.api import parameters, throttling
from extdhcp_site.api.answers import Answer, Constant, IdField
from extdhcp_site.api.parameters import Params, Text, Uuid, Values, Wire
from extdhcp_site.configuration.models import define, positive
from extdhcp_site.errors import InvalidParameter, NotAuthenticated
from extdhcp_site.events.models import EventType

TIMEOUT = define(
    "api.session.timeout", "1800", positive, "Seconds without a call after which an API session ends, of new ones."
)
COOKIE = "sessionkey"
_KEY, _SEEN, _LASTS = "api_session_key_hash", "api_session_seen", "api_session_timeout"


class LoginParams(Params):
    username = Text("The user's name.", required=True)
    password = Text("The password.", required=True, max_length=1024)
    domain = Text("The path of the user's domain, as in ROOT/sales; ROOT if neither this nor domainid is given.")
    domainid = Uuid("The user's domain.")


class LoginAnswer(Answer):
    username = serializers.CharField(source="user.username", help_text="Who is logged in.")
    userid = IdField("The user.", source="user.uuid")
    firstname = serializers.CharField(source="user.first_name", help_text="The user's first name.")
    lastname = serializers.CharField(source="user.last_name", help_text="The user's last name.")
    account = serializers.CharField(source="user.account.name", help_text="The user's account.")
    domainid = IdField("That account's domain.", source="user.account.domain.uuid")
    type = serializers.CharField(source="user.account.role", help_text="0 user, 1 root admin, 2 domain admin.")
    timeout = serializers.IntegerField(help_text="Seconds without a call after which the session ends.")
    timezone = Constant("UTC", "Always UTC.")
    timezoneoffset = Constant("0.0", "Always 0.0.")
    registered = Constant("false", "Always false.")
    sessionkey = serializers.CharField(help_text="What each later call names as sessionkey.")


def log_in(request: HttpRequest, wire: Wire, now: datetime) -> dict[str, Any]:
    """Begin a new session, whatever cookie came along. Raises NotAuthenticated, with one text, and TooManyRequests."""
    if {"username", "password"} & wire.in_url:
        raise InvalidParameter("Send login by POST, with username and password in the body.")
    _refuse_other_sites(request)
    values = parameters.validate(LoginParams, "login", wire, None)
    user = verified(request, values["username"], values["password"], lambda user: _is_of(user, values))
    if user is None:
        raise NotAuthenticated("unable to log in: user name, password or domain is wrong, or the user is disabled")
    if second_factor.is_set_up(user):
        raise NotAuthenticated(
            "unable to log in: the user has a second factor, which this log-in cannot ask for. Sign requests with an "
            "API key, which your account page in the console makes."
        )
    # It never goes on with the session whose cookie came along, which somebody else may have put there.
    auth.login(request, user)
    timeout, key = TIMEOUT.get(), secrets.token_urlsafe(20)
    request.session.set_expiry(timeout)
    request.session.update({_KEY: hash_token(key), _LASTS: timeout, _SEEN: int(now.timestamp())})
    record(EventType.USER_LOGIN, "logged in", request, user)
    return LoginAnswer(context={"caller": Caller.of(user)}).to_representation(
        {"user": user, "timeout": timeout, "sessionkey": key}
    )


def _is_of(user: User, values: Values) -> bool:
    domain = user.account.domain
    if values["domainid"]:
        return domain.uuid == values["domainid"]
    asked = (values["domain"] or "").strip("/")
    return domain.path.lower() in (f"{asked}/".lower(), f"{TREE}{asked}/".lower() if asked else TREE.lower())


def log_out(request: HttpRequest, wire: Wire, now: datetime) -> dict[str, Any]:
    caller = caller_of(request, wire.get("sessionkey"), now)
    record(EventType.USER_LOGOUT, "logged out", request, caller.user)
    auth.logout(request)
    return {"description": "success"}


def caller_of(request: HttpRequest, key: str, now: datetime) -> Caller:
    """Raises NotAuthenticated unless the session's cookie and its key are there and belong together."""
    _refuse_other_sites(request)
    kept = request.session.get(_KEY)
    if not key or not kept or not secrets.compare_digest(hash_token(key), kept):
        raise _no_session()
    user = auth.get_user(request)
    if not isinstance(user, User):
        raise _no_session()
    _note_use(request, now)
    return Caller.of(user)


def _no_session() -> NotAuthenticated:
    return NotAuthenticated("unable to verify user credentials: there is no such session. Log in again.")


def _note_use(request: HttpRequest, now: datetime) -> None:
    """Prolong the session, by a write each tenth of its time at most."""
    if now.timestamp() - request.session[_SEEN] > request.session[_LASTS] / 10:
        request.session[_SEEN] = int(now.timestamp())
        throttling.read_limits()


def _refuse_other_sites(request: HttpRequest) -> None:
    """Browsers say where a request comes from; programs, which send no cookie unasked, say nothing (CVE-2024-45693)."""
    origin = request.headers.get("Origin")
    if origin is not None:
        is_ours = origin in (f"{request.scheme}://{request.get_host()}", *settings.CSRF_TRUSTED_ORIGINS)
    else:
        is_ours = request.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
    if not is_ours:
        raise NotAuthenticated("unable to verify user credentials: the request comes from another site's page.")


def give_key(response: HttpResponse, key: str) -> None:
    """cmk takes the key from this cookie; it is no way in without the parameter."""
    response.set_cookie(
        COOKIE, key, path="/client/api", secure=settings.SESSION_COOKIE_SECURE, httponly=True, samesite="Lax"
    )


def take_key(response: HttpResponse) -> None:
    response.delete_cookie(COOKIE, path="/client/api", samesite="Lax")
