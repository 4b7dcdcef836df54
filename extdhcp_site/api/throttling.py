"""How much an account may ask, and how often somebody may be wrong.

All of it is counted in the web process's memory, in its share of what the whole server allows: whoever is not
known to us yet must not be able to make us write to the database, and a restart forgives.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from threading import Lock

from django.conf import settings
from django.http import HttpRequest
from django.views import View
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from extdhcp_site.configuration.models import define, positive, switch, values_of
from extdhcp_site.errors import TooManyRequests

GROUP = "API"
ENABLED = define(
    "api.throttling.enabled", "true", switch, "Whether there is a limit to an account's API calls.", group=GROUP
)
INTERVAL = define(
    "api.throttling.interval",
    "10",
    positive,
    "Seconds for which api.throttling.max counts. Noticed within a minute.",
    group=GROUP,
    unit="seconds",
)
MAX = define(
    "api.throttling.max",
    "6000",
    positive,
    "API calls, by CloudStack's protocol or REST, that an account may make in api.throttling.interval seconds; "
    "those beyond are answered with 429. Each web process allows its share. Noticed within a minute.",
    group=GROUP,
    unit="calls",
)
KEY_PAIRS_A_MINUTE = 30
# So many are remembered; of more, the longest unheard of are forgotten.
MOST_KEYS = 10_000


class Buckets:
    """Token buckets, one a key: each holds `size` tokens at most and gets `rate` a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, key: Hashable, size: float, rate: float) -> float:
        """Take one token; 0, or the seconds until there is one again."""
        with self._lock:
            level = self._level(key, size, rate)
            taken = level >= 1
            self._remember(key, level - 1 if taken else level)
            return 0 if taken else (1 - level) / rate

    def give_back(self, key: Hashable, size: float, rate: float) -> None:
        with self._lock:
            self._remember(key, min(self._level(key, size, rate) + 1, size))

    def forget(self) -> None:
        with self._lock:
            self._levels.clear()

    def _level(self, key: Hashable, size: float, rate: float) -> float:
        level, since = self._levels.get(key, (size, 0.0))
        return min(level + (self._clock() - since) * rate, size)

    def _remember(self, key: Hashable, level: float) -> None:
        self._levels[key] = (level, self._clock())
        self._levels.move_to_end(key)
        if len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)


# What an account asks ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Limits:
    enabled: bool
    interval: int
    most: int


_calls = Buckets()
_key_pairs = Buckets()
_limits = Limits(switch(ENABLED.default), positive(INTERVAL.default), positive(MAX.default))


def read_limits() -> None:
    """Read the settings anew: whenever a use is noted, so that most requests ask the database nothing for it."""
    global _limits
    _limits = Limits(*values_of(ENABLED, INTERVAL, MAX))


def wait_of(account_id: int) -> float:
    """Count one call of the account's; 0, or the seconds until it may make the next."""
    if not _limits.enabled:
        return 0
    size = max(_limits.most / settings.WEB_PROCESSES, 1)
    return _calls.take(account_id, size, size / _limits.interval)


def admit(account_id: int) -> None:
    """Raises TooManyRequests beyond the account's limit."""
    if wait := wait_of(account_id):
        raise _too_many("Your account has made too many API calls.", wait)


class AccountThrottle(BaseThrottle):
    """The same limit for REST."""

    _wait = 0.0

    def allow_request(self, request: Request, view: View) -> bool:
        account_id = getattr(request.user, "account_id", None)
        self._wait = wait_of(account_id) if account_id else 0
        return not self._wait

    def wait(self) -> float:
        return self._wait


def admit_key_pair(account_id: int) -> None:
    """To make one takes a processor a third of a second. Raises TooManyRequests beyond what an account may have."""
    size = max(KEY_PAIRS_A_MINUTE / settings.WEB_PROCESSES, 1)
    if wait := _key_pairs.take(account_id, size, size / 60):
        raise _too_many("Your account has had too many key pairs made.", wait)


def _too_many(text: str, wait: float) -> TooManyRequests:
    seconds = math.ceil(wait)
    return TooManyRequests(f"{text} Try again in {seconds} seconds.", retry_after=seconds)


# Who is wrong too often ----------------------------------------------------------------------------


class Failures:
    """Wrong tries, by who it is said to be *at a peer*, and by the peer alone.

    Never by who it is said to be alone: anybody could shut out anybody from afar. `each` and `peer` are tries for
    the whole server, which come back over `seconds`.
    """

    def __init__(self, what: str, *, each: int, peer: int, seconds: int) -> None:
        self.what, self.each, self.peer, self.seconds = what, each, peer, seconds
        self._buckets = Buckets()

    def spend(self, who: str, peer: str) -> None:
        """Count a try, before it is known to be wrong: so that those at the same time do not slip through.

        Raises TooManyRequests when there were too many.
        """
        for key, size, rate in self._both(who, peer):
            if wait := self._buckets.take(key, size, rate):
                raise _too_many(self.what, wait)

    def give_back(self, who: str, peer: str) -> None:
        """It was right after all."""
        for key, size, rate in self._both(who, peer):
            self._buckets.give_back(key, size, rate)

    def forget(self) -> None:
        self._buckets.forget()

    def _both(self, who: str, peer: str) -> list[tuple[Hashable, float, float]]:
        return [
            (key, size, size / self.seconds)
            for key, tries in (((who, peer), self.each), (peer, self.peer))
            for size in [max(tries / settings.WEB_PROCESSES, 1)]
        ]


# A right signature passes whatever came before it: nobody guesses 64 random bytes, so this only slows floods.
wrong_signatures = Failures(
    "Too many requests from your address failed authentication.", each=100, peer=1000, seconds=60
)
# A password can be guessed: whoever is over the limit is not even asked.
log_ins = Failures("Too many failed log-ins.", each=10, peer=100, seconds=300)


def forget() -> None:
    """Begin as a new process does."""
    _calls.forget()
    _key_pairs.forget()
    wrong_signatures.forget()
    log_ins.forget()


# Who is at the other end ---------------------------------------------------------------------------


def peer_of(request: HttpRequest) -> str:
    """The client's address: the socket's, unless that is a trusted proxy's (CVE-2024-29006).

    Then it is what the nearest trusted proxy says that it was asked by, the last address in X-Forwarded-For that
    is not a proxy's own. Of IPv6 the /64, which is one customer's.
    """
    peer = request.META.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES and _is_proxy(peer):
        said = [address.strip() for address in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")]
        peer = next((address for address in reversed(said) if address and not _is_proxy(address)), peer)
    return _one_customers(peer)


def _is_proxy(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in settings.TRUSTED_PROXIES)


def _one_customers(peer: str) -> str:
    try:
        address = ip_address(peer)
    except ValueError:
        # A Unix socket has none; a proxy may have said anything.
        return peer[:45]
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or ip_address(int(address) >> 64 << 64))
