"""Who may use the REST API, how its bodies are read, and how its lists are paged.

Named in the settings, so it must not import what reads them: the resources have their own module.
"""

import json
import re
from typing import Any

from django.conf import settings
from django.http import UnreadablePostError
from django.utils import timezone
from rest_framework import status
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import APIException, AuthenticationFailed, NotFound, ParseError
from rest_framework.pagination import BasePagination, Cursor, CursorPagination
from rest_framework.parsers import BaseParser
from rest_framework.request import Request
from rest_framework.response import Response

from extdhcp_site.accounts.models import ApiKey, User, hash_token

_BEARER = re.compile(rb"bearer +([A-Za-z0-9_-]{64})", re.IGNORECASE)


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`, as `create_api_key` shows it once."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        # These read the settings, which name this class.
        from extdhcp_site.api import throttling
        from extdhcp_site.api.authentication import note_use

        header = get_authorization_header(request)
        if not header.lower().startswith(b"bearer"):
            return None
        found = _BEARER.fullmatch(header)
        key = ApiKey.objects.usable().filter(token_hash=hash_token(found[1].decode())).first() if found else None
        if key is None:
            throttling.wrong_signatures.spend("bearer", throttling.peer_of(request))
            raise AuthenticationFailed("The token is not valid.")
        note_use(key, timezone.now())
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="extdhcp"'


class TooLarge(APIException):
    status_code = status.HTTP_413_REQUEST_ENTITY_TOO_LARGE
    default_detail = f"A body has at most {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes."


class JsonBody(BaseParser):
    """JSON in UTF-8, each key once; an error quotes nothing of it."""

    media_type = "application/json"

    def parse(self, stream: Any, media_type: str | None = None, parser_context: Any = None) -> Any:
        try:
            # Read here, since Django's own limit is for request.body only.
            body = stream.read(settings.DATA_UPLOAD_MAX_MEMORY_SIZE + 1)
        except UnreadablePostError:
            raise ParseError("The body ended early. Send it again.") from None
        if len(body) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            raise TooLarge
        try:
            return json.loads(body.decode(), object_pairs_hook=_each_key_once, parse_constant=_no_number)
        except (ValueError, RecursionError):
            raise ParseError("The body is not JSON in UTF-8, or has a key twice.") from None


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("A key stands there twice.")
    return found


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON.")


_POSITION = re.compile("[0-9]{1,18}")


class Pages(CursorPagination):
    """The newest first; a page's `next` goes on where it ended, whatever came or went meanwhile."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 500

    def get_page_size(self, request: Request) -> int:
        asked = request.query_params.get(self.page_size_query_param)
        if asked is not None and not (_POSITION.fullmatch(asked) and int(asked)):
            raise ParseError(f"{self.page_size_query_param} must be a whole number from 1.")
        return super().get_page_size(request)

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Raises NotFound for one that was not made here."""
        cursor = super().decode_cursor(request)
        if cursor and cursor.position is not None and not _POSITION.fullmatch(cursor.position):
            raise NotFound(self.invalid_cursor_message)
        return cursor

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return _page_of(schema)


class OnePage(BasePagination):
    """All rows at once, in the shape of every list: for the few that stand in no table."""

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> list[Any]:
        return list(queryset)

    def get_paginated_response(self, data: Any) -> Response:
        return Response({"next": None, "previous": None, "results": data})

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        return _page_of(schema)


def _page_of(rows: dict[str, Any]) -> dict[str, Any]:
    # The library's own says `nullable`, which OpenAPI 3.1 does not know.
    url = {
        "type": ["string", "null"],
        "format": "uri",
        "example": "https://cloud.example.com/api/v1/vms?cursor=cD0xMjA%3D",
    }
    return {
        "type": "object",
        "required": ["next", "previous", "results"],
        "properties": {
            "next": {**url, "description": "The next page; null on the last one."},
            "previous": {**url, "description": "The page before; null on the first one."},
            "results": rows,
        },
    }
