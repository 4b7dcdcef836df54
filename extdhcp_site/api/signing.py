"""CloudStack's request signature, in the spellings that real clients use.

signature = base64(HMAC-SHA1(secret, lower-case(canonical form))). Clients disagree on which
characters a value's encoding leaves alone and on how names are sorted, so each form is tried. In every
one of them a percent sign is encoded, so no two requests that differ in more than letter case share a form.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
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
    # Which spelling a client signs is no secret: the first that matches is enough.
    return any(hmac.compare_digest(sign(secret, text).encode(), given) for text in canonical_forms(pairs))


def canonical_forms(pairs: Pairs) -> Iterator[str]:
    """Every way in which a client may have spelt the text that it signed, each once.

    One by one, and for most requests there is one only: a body may hold a megabyte.
    """
    strict = [(name, quote(value, safe="~")) for name, value in pairs if name.lower() != "signature"]
    done: list[list[tuple[str, str]]] = []
    for spell in (_rfc3986, _literal, _java, _libcloud):
        spelling = [(name, spell(text)) for name, text in strict]
        if spelling not in done:
            done.append(spelling)
            yield from _sorted_forms(spelling)


def _rfc3986(text: str) -> str:
    """csclient, and whoever uses a library for it."""
    return text


def _java(rfc3986: str) -> str:
    """java.net.URLEncoder with %20 for a space, as CloudStack's own UI and server have it."""
    return rfc3986.replace("~", "%7E").replace("%2A", "*")


def _literal(rfc3986: str) -> str:
    """cs, cmk, the Go SDK: both `*` and `~` as they are."""
    return rfc3986.replace("%2A", "*")


def _libcloud(rfc3986: str) -> str:
    return _literal(rfc3986).replace("%5B", "[").replace("%5D", "]")


def _sorted_forms(encoded: list[tuple[str, str]]) -> Iterator[str]:
    orders = [
        sorted(encoded),
        sorted(encoded, key=lambda pair: pair[0].lower()),
        sorted(encoded, key=lambda pair: f"{pair[0]}={pair[1]}"),
    ]
    for number, order in enumerate(orders):
        if order not in orders[:number]:
            yield "&".join(f"{name}={value}" for name, value in order).lower()


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
