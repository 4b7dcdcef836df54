"""Who sends a request: from its signature, or from its session, to a Caller."""

import secrets
from datetime import datetime, timedelta
from functools import partial

from django.db.models import Q
from django.http import HttpRequest

from extdhcp_site.accounts.models import ApiKey, Caller
from extdhcp_site.api import sessions, signing, throttling
from extdhcp_site.api.parameters import Wire
from extdhcp_site.errors import NotAuthenticated

LONGEST_KEY = 86
NOTED_EVERY = timedelta(minutes=1)
# Signed with when there is no such key, so that the answer takes the same work.
_NOBODYS_SECRET = secrets.token_urlsafe(64)


def authenticate(request: HttpRequest, wire: Wire, now: datetime) -> Caller:
    """Raises NotAuthenticated, with one text for whatever is wrong, and TooManyRequests."""
    # A cookie goes along by itself; whoever signs, or brings a session's key, says what they mean to be.
    if "sessionkey" in wire.values and not {"apikey", "signature"} & wire.values.keys():
        caller = sessions.caller_of(request, wire.get("sessionkey"), now)
    else:
        caller = _by_signature(wire, throttling.peer_of(request), now)
    throttling.admit(caller.account.pk)
    return caller


def _by_signature(wire: Wire, peer: str, now: datetime) -> Caller:
    key = _usable_key(wire.get("apikey"))
    wrong = partial(throttling.wrong_signatures.spend, wire.get("apikey")[: LONGEST_KEY + 1], peer)
    if key is None:
        wrong()  # before the work: of a flood without keys most is refused for next to nothing
    signed = signing.matches(key.secret if key else _NOBODYS_SECRET, wire.pairs, wire.get("signature"))
    if key is None or not signed or not _still_valid(wire, now):
        if key:
            wrong()
        raise NotAuthenticated("unable to verify user credentials and/or request signature")
    note_use(key, now)
    return Caller.of(key.user)


def _usable_key(text: str) -> ApiKey | None:
    if not text or len(text) > LONGEST_KEY or not text.isascii():
        return None
    key = ApiKey.objects.usable().filter(key=text).first()
    # Some databases compare without regard to case; by an empty secret anybody could sign.
    return key if key and key.secret and secrets.compare_digest(key.key, text) else None


def _still_valid(wire: Wire, now: datetime) -> bool:
    try:
        signing.check_expiry(wire.get("signatureversion"), wire.get("expires"), now)
    except signing.Expired:
        return False
    return True


def note_use(key: ApiKey, now: datetime) -> None:
    """At most one write a minute, however many requests come; limits that an admin changed are noticed then, too."""
    before = now - NOTED_EVERY
    if key.last_used_at is None or key.last_used_at < before:
        unnoted = Q(last_used_at=None) | Q(last_used_at__lt=before)
        ApiKey.objects.filter(unnoted, pk=key.pk).update(last_used_at=now)
        throttling.read_limits()
