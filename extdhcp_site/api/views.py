"""`/client/api`: CloudStack's protocol."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import ValidationError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import answers, authentication, parameters, registry, sessions
from extdhcp_site.api.carrying_out import carry_out
from extdhcp_site.api.parameters import Wire
from extdhcp_site.errors import ApiError, InternalError, InvalidParameter, UnknownCommand

log = structlog.get_logger(__name__)


class MethodNotAllowed(ApiError):
    status, cs_code = 405, 9999


@dataclass
class Exchange:
    """What is known of a request so far, so that an error at any point is answered in kind."""

    as_json: bool = True
    # In lower case; empty for one that there is not.
    command: str = ""
    caller: Caller | None = None

    @property
    def key(self) -> str:
        return f"{self.command}response" if self.command else "errorresponse"


@csrf_exempt  # No cookie alone lets anybody in here: each request carries its signature, or its session's key.
def client_api(request: HttpRequest) -> HttpResponse:
    exchange = Exchange()
    try:
        body = _carry_out(request, exchange)
    except Exception as error:
        return _refuse(exchange, error)
    response = answers.respond(exchange.key, body, as_json=exchange.as_json)
    if exchange.command == "login":
        sessions.give_key(response, body["sessionkey"])
    elif exchange.command == "logout":
        sessions.take_key(response)
    return response


def _carry_out(request: HttpRequest, exchange: Exchange) -> dict[str, Any]:
    if request.method not in ("GET", "POST"):
        raise MethodNotAllowed("Use GET or POST.")
    in_url, in_body = parameters.pairs_of(request)
    exchange.as_json = any(name.lower() == "response" and value.lower() == "json" for name, value in in_url + in_body)
    wire = Wire.of(in_url, in_body)
    name = wire.get("command").lower()
    if name in _FOR_SESSIONS:
        exchange.command = name
        return _FOR_SESSIONS[name](request, wire, timezone.now())
    found = registry.find(name)
    exchange.command = found.name.lower() if found else ""
    exchange.caller = caller = authentication.authenticate(request, wire, timezone.now())
    command = registry.permitted(found, caller)
    return carry_out(command, caller, lambda: parameters.validate(command.params, command.name, wire, caller))


# What begins and ends a session has no caller yet, or no more: no role may call it, and listApis does not name it.
_FOR_SESSIONS: dict[str, Callable[[HttpRequest, Wire, datetime], dict[str, Any]]] = {
    "login": sessions.log_in,
    "logout": sessions.log_out,
}


def _refuse(exchange: Exchange, error: Exception) -> HttpResponse:
    """The one place where an error becomes an answer."""
    error = _as_ours(exchange, error)
    is_root = exchange.caller is not None and exchange.caller.is_root
    text = f"{error.text} {error.for_operator}".strip() if is_root else error.text
    key = "errorresponse" if isinstance(error, UnknownCommand) else exchange.key
    response = answers.respond(key, answers.error_body(error, text), as_json=exchange.as_json, status=error.status)
    response.headers["X-Description"] = answers.description_header(text)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _as_ours(exchange: Exchange, error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case ValidationError():
            return InvalidParameter(" ".join(str(problem) for _, problem in parameters.problems(error.detail)))
        case _:
            log.error(
                "An API command failed for a reason that is not expected.",
                command=exchange.command or None,
                error=type(error).__name__,
                where=_where(error),
            )
            return InternalError("Something unexpected went wrong. The server's log has more.")


def _where(error: Exception) -> list[str]:
    """The frames without the message: it may quote a parameter's value."""
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-20:]
    ]
