"""The overview's panels, contributed by the apps above."""

from collections.abc import Callable
from dataclasses import dataclass

from extdhcp_site.accounts.models import Caller


@dataclass(frozen=True)
class Panel:
    """A template, and what it shows to a caller. Lower `order` stands higher."""

    title: str
    template: str
    context: Callable[[Caller], dict[str, object]]
    order: int = 50


_panels: list[Panel] = []


def register(panel: Panel) -> None:
    _panels.append(panel)


def registered() -> list[Panel]:
    return sorted(_panels, key=lambda panel: panel.order)
