"""What stands on a VM's page, and what is said of its addresses: contributed, so that networks knows none of the
apps above it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from extdhcp_site.accounts.models import Caller
from networks.models import Nic, VirtualMachine


@dataclass(frozen=True)
class Section:
    """A template that extends `console/panel.html`, which is given this as `panel`, with `vm` and what it shows.

    `context` is given the caller and a VM with all that `VirtualMachineQuerySet.for_listing` brings; None: not shown.
    Lower `order` stands higher.
    """

    title: str
    template: str
    context: Callable[[Caller, VirtualMachine], dict[str, object] | None]
    order: int = 50


_sections: list[Section] = []


def add(section: Section) -> None:
    """From an AppConfig.ready()."""
    _sections.append(section)


def registered() -> list[Section]:
    return sorted(_sections, key=lambda section: section.order)


Previewer = Callable[[VirtualMachine, Sequence[Nic]], dict[str, object]]
_previews: list[tuple[str, Previewer]] = []


def previews(template: str, function: Previewer) -> None:
    """Register what a VM would get that somebody is about to deploy: given it and its NICs, none of them written."""
    _previews.append((template, function))


def registered_previews() -> list[tuple[str, Previewer]]:
    return list(_previews)


@dataclass(frozen=True)
class AddressWords:
    """What stands beside a NIC's address, or in its place: a chip of this `kind` (its CSS class) with a `word` in it,
    and a sentence."""

    kind: str
    word: str
    text: str = ""


Explainer = Callable[[Caller, Sequence[Nic]], Mapping[int, AddressWords]]
_explainers: list[Explainer] = []


def explains_addresses(function: Explainer) -> None:
    """Register who can say, by their primary keys, why NICs have no address, or one that is not sure.

    One call is for all NICs of a page.
    """
    _explainers.append(function)


def words_for(caller: Caller, nics: Iterable[Nic]) -> dict[int, AddressWords]:
    """Of the NICs of which anybody has something to say."""
    asked = list(nics)
    found: dict[int, AddressWords] = {}
    if asked:
        for explain in _explainers:
            found |= explain(caller, asked)
    return found
