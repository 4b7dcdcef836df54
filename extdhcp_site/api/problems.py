"""How `/api/v1/` says that something is wrong: `{"detail": "...", "errorcode": 431}`, and nothing else.

`errorcode` is the code that `/client/api` would answer with, or the HTTP status where there is none.
"""

from typing import Any

import structlog
from django.http import Http404
from rest_framework import status
from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.response import Response
from rest_framework.views import exception_handler

from extdhcp_site.api import parameters
from extdhcp_site.errors import (
    ApiError,
    InsufficientCapacity,
    InternalError,
    InvalidParameter,
    NotAuthenticated,
    PermissionDenied,
    ResourceInUse,
    ResourceUnavailable,
    TooManyRequests,
    UnknownCommand,
)

log = structlog.get_logger(__name__)

NOT_FOUND = "There is nothing here that you may see."
STATUSES: dict[type[ApiError], int] = {
    NotAuthenticated: status.HTTP_401_UNAUTHORIZED,
    TooManyRequests: status.HTTP_429_TOO_MANY_REQUESTS,
    InvalidParameter: status.HTTP_400_BAD_REQUEST,
    UnknownCommand: status.HTTP_404_NOT_FOUND,
    PermissionDenied: status.HTTP_403_FORBIDDEN,
    InsufficientCapacity: status.HTTP_409_CONFLICT,
    ResourceInUse: status.HTTP_409_CONFLICT,
    ResourceUnavailable: status.HTTP_503_SERVICE_UNAVAILABLE,
}


def answer(error: Exception, context: dict[str, Any]) -> Response:
    """REST framework's exception handler."""
    match error:
        case Http404() | NotFound() | UnknownCommand():
            return _problem(status.HTTP_404_NOT_FOUND, NOT_FOUND)
        case ApiError():
            return _of_ours(error, context)
        case ValidationError():
            return _problem(error.status_code, in_words(error))
    if response := exception_handler(error, context):
        # With the headers: WWW-Authenticate, Retry-After.
        response.data = body(response.status_code, str(getattr(error, "detail", "") or "This is not permitted."))
        return response
    log.error("A REST request failed for a reason that is not expected.", exc_info=error)
    return _of_ours(InternalError("Something unexpected went wrong. The server's log has more."), context)


def in_words(error: ValidationError) -> str:
    return " ".join(
        f"{name}: {problem}" if name else str(problem) for name, problem in parameters.problems(error.detail)
    )


def _of_ours(error: ApiError, context: dict[str, Any]) -> Response:
    # Asking who calls may be what failed: only where it matters.
    caller = context["view"].caller if error.for_operator else None
    text = f"{error.text} {error.for_operator}" if caller and caller.is_root else error.text
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    mapped = (STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)
    http_status = next(mapped, status.HTTP_500_INTERNAL_SERVER_ERROR)
    return Response(body(error.status, text), http_status, headers=headers)


def _problem(http_status: int, detail: str) -> Response:
    return Response(body(http_status, detail), http_status)


def body(errorcode: int, detail: str) -> dict[str, Any]:
    return {"detail": detail, "errorcode": errorcode}
