"""Numbers that may be a moment old: however many look at them, and however often, they are counted once in a while."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, TypeVar

from extdhcp_site.accounts.models import Caller

# Shorter than what an open page waits before it asks once more (static/console/live.js).
SECONDS = 0.5
MOST = 1000

T = TypeVar("T")
_lock = threading.Lock()
_kept: OrderedDict[Hashable, tuple[float, Any]] = OrderedDict()


def kept(count: Callable[[Caller], T]) -> Callable[[Caller], T]:
    """`count`, whose answer is given for SECONDS more to everybody who sees the same: an account's users."""

    @wraps(count)
    def counted(caller: Caller) -> T:
        key = (count.__module__, count.__qualname__, caller.account.pk, caller.role, caller.domain_path)
        with _lock:
            found = _kept.get(key)
        if found and time.monotonic() - found[0] < SECONDS:
            value: T = found[1]
            return value
        value = count(caller)
        with _lock:
            _kept[key] = (time.monotonic(), value)
            _kept.move_to_end(key)
            while len(_kept) > MOST:
                _kept.popitem(last=False)
        return value

    return counted
