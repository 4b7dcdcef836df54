"""The overview's panels, contributed by the apps above."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.utils.text import slugify

from extdhcp_site.accounts.models import Caller


@dataclass(frozen=True)
class Panel:
    """A template that extends `console/panel.html`, and what it shows. Lower `order` stands higher.

    `context` is given the caller and the page's query string; None: not for this caller. Two that are `is_half`
    stand beside each other where there is room.
    """

    title: str
    template: str
    context: Callable[[Caller, Mapping[str, str]], dict[str, object] | None]
    order: int = 50
    is_half: bool = False

    @property
    def slug(self) -> str:
        return slugify(self.title)


_panels: list[Panel] = []


def register(panel: Panel) -> None:
    _panels.append(panel)


def registered() -> list[Panel]:
    return sorted(_panels, key=lambda panel: panel.order)
