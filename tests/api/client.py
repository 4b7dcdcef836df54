"""A CloudStack client as small as can be, for what real clients would not send."""

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from django.test import Client

from extdhcp_site.accounts.models import Account, Caller, NewApiKey, User, create_api_key
from extdhcp_site.api.signing import sign
from tests.factories import make_user

ENDPOINT = "/client/api"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    key: str
    body: dict[str, Any]

    @property
    def text(self) -> str:
        return self.body["errortext"]


@dataclass(frozen=True)
class Signer:
    """One user's client; parameters are keyword arguments, or pairs where a name is none or comes twice."""

    user: User
    keys: NewApiKey

    @classmethod
    def of(cls, account: Account) -> "Signer":
        user = account.users.first() or make_user(account)
        return cls(user, create_api_key(user))

    @property
    def caller(self) -> Caller:
        return Caller.of(User.objects.select_related("account__domain").get(pk=self.user.pk))

    def call(self, command: str, *pairs: tuple[str, str], method: str = "get", **params: object) -> Reply:
        """Send a signed request that asks for JSON."""
        return reply_of(self.raw(("command", command), ("response", "json"), *pairs, method=method, **params))

    def raw(self, *pairs: tuple[str, str], method: str = "get", **params: object):
        every = [*pairs, *((name, str(value)) for name, value in params.items()), ("apiKey", self.keys.api_key)]
        signature = sign(self.keys.secret_key, as_cs_signs(every))
        return send([*every, ("signature", signature)], method)


def as_cs_signs(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value, safe='*')}" for name, value in sorted(pairs)).lower()


def send(pairs: list[tuple[str, str]], method: str = "get"):
    body = urlencode(pairs)
    if method == "get":
        return Client().get(f"{ENDPOINT}?{body}")
    return Client().post(ENDPOINT, body, content_type="application/x-www-form-urlencoded")


def reply_of(response) -> Reply:
    [(key, body)] = response.json().items()
    return Reply(response.status_code, dict(response.headers), key, body)


@dataclass(frozen=True)
class Rest:
    """One user's client of `/api/v1/`."""

    token: str

    @classmethod
    def of(cls, signer: Signer) -> "Rest":
        return cls(signer.keys.token)

    def get(self, path: str, **params: object):
        return Client().get(f"/api/v1/{path}", params, headers=self._headers)

    def post(self, path: str, body: object = None):
        return self.send("post", path, body)

    def patch(self, path: str, body: object):
        return self.send("patch", path, body)

    def delete(self, path: str):
        return self.send("delete", path)

    def send(self, method: str, path: str, body: object = None, content_type: str = "application/json"):
        """`body` as it is when it is bytes, else as JSON; none when it is None."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        return Client(raise_request_exception=False).generic(
            method.upper(), f"/api/v1/{path}", content, content_type, headers=self._headers
        )

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def refused(reply: Reply, *words: str, status: int = 431) -> None:
    assert reply.status == status == reply.body["errorcode"], reply
    for word in words:
        assert word in reply.text
