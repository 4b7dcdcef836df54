"""What was found when something was looked into: for `check_endpoint` and `troubleshoot`.

Who has something to say about a VM or its NICs registers a function here, from its AppConfig.ready().
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from django.core.management.base import BaseCommand

from extdhcp_site.accounts.models import Caller
from networks.models import Nic, VirtualMachine

MARKS = {True: "ok     ", False: "FAILED ", None: "unknown"}


@dataclass(frozen=True)
class Check:
    """`passed` is None where the question could not be asked, or the answer decides nothing.

    A `public` one names no host, no endpoint and nobody else's VM: whoever may see the VM may read it.
    """

    name: str
    passed: bool | None
    text: str
    public: bool = False

    def text_for(self, caller: Caller) -> str:
        return self.text if self.public or caller.is_root else _FOR_OTHERS[self.passed]


_FOR_OTHERS = {
    True: "It is all right.",
    False: "Something is wrong here, which an administrator has to look at.",
    None: "It decides nothing, or could not be found out.",
}


# Of a VM's NICs it is given those that are asked about.
Troubleshooter = Callable[[VirtualMachine, Sequence[Nic]], Iterator[Check]]
_troubleshooters: list[tuple[bool, Troubleshooter]] = []


def troubleshoots(function: Callable[[VirtualMachine], Iterator[Check]]) -> None:
    """Register who has something to say about a VM as a whole."""
    _troubleshooters.append((False, lambda vm, nics: function(vm)))


def troubleshoots_nics(function: Troubleshooter) -> None:
    """Register who has something to say about a VM's NICs, and all that lies between them and their addresses."""
    _troubleshooters.append((True, function))


def of(vm: VirtualMachine) -> Iterator[Check]:
    """All that anybody finds out about a VM, in the order of registration."""
    nics = list(vm.nics.select_related("network__zone"))
    for _, troubleshooter in _troubleshooters:
        yield from troubleshooter(vm, nics)


def of_nic(vm: VirtualMachine, nic: Nic) -> Iterator[Check]:
    """What concerns one of its NICs."""
    for is_about_nics, troubleshooter in _troubleshooters:
        if is_about_nics:
            yield from troubleshooter(vm, [nic])


def _printable(text: str) -> str:
    """A hypervisor's and a guest's words may hold what a terminal obeys, or further lines that look like ours."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def tell(command: BaseCommand, checks: Iterator[Check], *, as_json: bool) -> list[Check]:
    """Print each check as it is answered, or all as a JSON array; give those that failed."""
    found = []
    for check in checks:
        found.append(check)
        if not as_json:
            command.stdout.write(f"{MARKS[check.passed]} {_printable(f'{check.name}: {check.text}')}")
    if as_json:
        shown = [{"name": check.name, "passed": check.passed, "text": check.text} for check in found]
        command.stdout.write(json.dumps(shown))
    return [check for check in found if check.passed is False]
