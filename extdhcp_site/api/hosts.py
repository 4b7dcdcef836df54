"""Requests by a name that this server is not called by: refused in the words of the API that they are for."""

from collections.abc import Callable

from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse, JsonResponse
from rest_framework import status

from extdhcp_site.api import answers, problems
from extdhcp_site.errors import ApiError

NOT_ITS_NAME = "This server is not called by that name. Its administrator lists the names that it has in ALLOWED_HOSTS."


class WrongHost(ApiError):
    status, cs_code = status.HTTP_400_BAD_REQUEST, 9999


def known_names(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Middleware, the first: Django's own refusal is a page of HTML, which clients of an API take for a wrong URL."""

    def middleware(request: HttpRequest) -> HttpResponse:
        try:
            request.get_host()
        except DisallowedHost:
            if refusal := _refusal(request.path):
                return refusal
        return get_response(request)

    return middleware


def _refusal(path: str) -> HttpResponse | None:
    if path.startswith("/client/api"):
        body = answers.error_body(WrongHost(NOT_ITS_NAME), NOT_ITS_NAME)
        return answers.respond("errorresponse", body, as_json=True, status=WrongHost.status)
    if path.startswith("/api/"):
        body = problems.body(WrongHost.status, NOT_ITS_NAME)
        return JsonResponse(body, status=WrongHost.status, headers={"Cache-Control": "no-store"})
    return None
