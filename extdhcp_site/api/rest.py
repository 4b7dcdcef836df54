"""Who may use the REST API, and how its lists are paged.

Named in the settings, so it must not import what reads them: the resources have their own module.
"""

import re

from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from extdhcp_site.accounts.models import ApiKey, User, hash_token

_BEARER = re.compile(rb"bearer +([A-Za-z0-9_-]{64})", re.IGNORECASE)


class BearerAuthentication(BaseAuthentication):
    """`Authorization: Bearer <token>`, as `create_api_key` shows it once."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        header = get_authorization_header(request)
        if not header.lower().startswith(b"bearer"):
            return None
        found = _BEARER.fullmatch(header)
        key = ApiKey.objects.usable().filter(token_hash=hash_token(found[1].decode())).first() if found else None
        if key is None:
            raise AuthenticationFailed("The token is not valid.")
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="extdhcp"'


class Pages(CursorPagination):
    """The newest first; a page's `next` goes on where it ended, whatever came or went meanwhile."""

    ordering = "-id"
    page_size = 100
    page_size_query_param = "page_size"
    max_page_size = 500
