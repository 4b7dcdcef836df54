"""CloudStack's request signature, in the spellings that real clients use.

signature = base64(HMAC-SHA1(secret, lower-case(canonical form))). Clients disagree on which
characters a value's encoding leaves alone and on how names are sorted, so each form is tried. In every
one of them a percent sign is encoded, so no two requests that differ in more than letter case share a form.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

Pairs = Iterable[tuple[str, str]]

LONGEST_VALIDITY = timedelta(hours=24)
_EXPIRES = re.compile(r"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:Z|\+00:?00)", re.ASCII)


class Expired(Exception):
    """`expires` is past, missing where it must be, unreadable, or too far ahead."""


def sign(secret: str, text: str) -> str:
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), hashlib.sha1)).decode()


def matches(secret: str, pairs: Pairs, signature: str) -> bool:
    """Whether `signature` is any client's for these parameters (`signature` itself left out)."""
    given = signature.encode()
    # All of them are compared: the same work whether and wherever it matches.
    return sum(hmac.compare_digest(sign(secret, text).encode(), given) for text in canonical_forms(pairs)) > 0


def canonical_forms(pairs: Pairs) -> list[str]:
    """Every way in which a client may have spelt the text that it signed."""
    strict = [(name, quote(value, safe="~")) for name, value in pairs if name.lower() != "signature"]
    spellings = [strict, *([(name, spell(text)) for name, text in strict] for spell in (_java, _literal, _libcloud))]
    return list(dict.fromkeys(form for spelling in spellings for form in _sorted_forms(spelling)))


def _java(rfc3986: str) -> str:
    """java.net.URLEncoder with %20 for a space, as CloudStack's own UI and server have it."""
    return rfc3986.replace("~", "%7E").replace("%2A", "*")


def _literal(rfc3986: str) -> str:
    """cs, cmk, the Go SDK: both `*` and `~` as they are. (csclient: RFC 3986 as it is.)"""
    return rfc3986.replace("%2A", "*")


def _libcloud(rfc3986: str) -> str:
    return _literal(rfc3986).replace("%5B", "[").replace("%5D", "]")


def _sorted_forms(encoded: list[tuple[str, str]]) -> Iterable[str]:
    as_spelt = sorted(encoded)
    by_lower_case = sorted(encoded, key=lambda pair: pair[0].lower())
    for ordered in (as_spelt, by_lower_case):
        yield "&".join(f"{name}={value}" for name, value in ordered).lower()
    yield "&".join(sorted(f"{name}={value}" for name, value in encoded)).lower()


def check_expiry(version: str, expires: str, now: datetime) -> None:
    """Raises Expired unless the request may still be carried out. Version 3 must say until when."""
    if not expires and version != "3":
        return
    found = _EXPIRES.fullmatch(expires)
    if not found:
        raise Expired
    try:
        until = datetime.fromisoformat(found[1]).replace(tzinfo=UTC)
    except ValueError:
        raise Expired from None
    if not now < until <= now + LONGEST_VALIDITY:
        raise Expired
