"""What was found when something was looked into: for `check_endpoint` and `troubleshoot`.

Who has something to say about a VM registers a function here, from its AppConfig.ready().
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.core.management.base import BaseCommand

from networks.models import VirtualMachine

MARKS = {True: "ok     ", False: "FAILED ", None: "unknown"}


@dataclass(frozen=True)
class Check:
    """`passed` is None where the question could not be asked, or the answer decides nothing."""

    name: str
    passed: bool | None
    text: str


Troubleshooter = Callable[[VirtualMachine], Iterator[Check]]
_troubleshooters: list[Troubleshooter] = []


def troubleshoots(function: Troubleshooter) -> None:
    _troubleshooters.append(function)


def of(vm: VirtualMachine) -> Iterator[Check]:
    """All that anybody finds out about a VM, in the order of registration."""
    for troubleshooter in _troubleshooters:
        yield from troubleshooter(vm)


def tell(command: BaseCommand, checks: Iterator[Check], *, as_json: bool) -> list[Check]:
    """Print each check as it is answered, or all as a JSON array; give those that failed."""
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            command.stdout.write(f"{MARKS[check.passed]} {check.name}: {check.text}")
    if as_json:
        command.stdout.write(json.dumps([vars(check) for check in found]))
    return [check for check in found if check.passed is False]
