"""What the apps above add to the page of a network, a host or an endpoint.

contribute("network", "ipfetch/network_addresses.html", addresses_of)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from extdhcp_site.accounts.models import Caller

# Given the caller and the page's object; None: nothing to say of it to this caller.
Context = Callable[[Caller, Any], dict[str, object] | None]


@dataclass(frozen=True)
class Shown:
    """The template is given `part`."""

    template: str
    context: dict[str, object]


_contributed: dict[str, list[tuple[str, Context]]] = {}


def contribute(page: str, template: str, context: Context) -> None:
    """`page` is a page's name, for instance "network"."""
    _contributed.setdefault(page, []).append((template, context))


def shown_on(page: str, caller: Caller, it: Any) -> list[Shown]:
    """In the order in which they were contributed."""
    found = [(template, context(caller, it)) for template, context in _contributed.get(page, ())]
    return [Shown(template, context) for template, context in found if context is not None]
