"""`/client/api`: CloudStack's protocol."""

import traceback
from dataclasses import dataclass
from typing import Any

import structlog
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from rest_framework.exceptions import ValidationError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api import answers, authentication, parameters, registry
from extdhcp_site.errors import ApiError, InternalError, InvalidParameter, UnknownCommand

log = structlog.get_logger(__name__)


class MethodNotAllowed(ApiError):
    status, cs_code = 405, 9999


@dataclass
class Exchange:
    """What is known of a request so far, so that an error at any point is answered in kind."""

    as_json: bool = True
    command: type[registry.Command] | None = None
    caller: Caller | None = None

    @property
    def key(self) -> str:
        return f"{self.command.name.lower()}response" if self.command else "errorresponse"


@csrf_exempt  # No cookie lets anybody in here: each request carries its signature.
def client_api(request: HttpRequest) -> HttpResponse:
    exchange = Exchange()
    try:
        body = _carry_out(request, exchange)
    except Exception as error:
        return _refuse(exchange, error)
    return answers.respond(exchange.key, body, as_json=exchange.as_json)


def _carry_out(request: HttpRequest, exchange: Exchange) -> dict[str, Any]:
    if request.method not in ("GET", "POST"):
        raise MethodNotAllowed("Use GET or POST.")
    in_url, in_body = parameters.pairs_of(request)
    exchange.as_json = any(name.lower() == "response" and value.lower() == "json" for name, value in in_url + in_body)
    wire = parameters.Wire.of(in_url, in_body)
    exchange.command = registry.find(wire.get("command"))
    exchange.caller = caller = authentication.authenticate(wire, timezone.now())
    command = registry.permitted(exchange.command, caller)
    values = parameters.validate(command.params, command.name, wire, caller)
    return command().respond(caller, values)


def _refuse(exchange: Exchange, error: Exception) -> HttpResponse:
    """The one place where an error becomes an answer."""
    error = _as_ours(exchange, error)
    is_root = exchange.caller is not None and exchange.caller.is_root
    text = f"{error.text} {error.for_operator}".strip() if is_root else error.text
    key = "errorresponse" if isinstance(error, UnknownCommand) else exchange.key
    response = answers.respond(key, answers.error_body(error, text), as_json=exchange.as_json, status=error.status)
    response.headers["X-Description"] = answers.description_header(text)
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
                command=exchange.command.name if exchange.command else None,
                error=type(error).__name__,
                where=_where(error),
            )
            return InternalError("Something unexpected went wrong. The server's log has more.")


def _where(error: Exception) -> list[str]:
    """The frames without the message: it may quote a parameter's value."""
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-20:]
    ]
