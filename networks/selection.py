"""From what a person types on a command line to the row that they mean."""

import re
import uuid

from django.core.management.base import CommandError

from networks.models import VirtualMachine


def one_vm(text: str) -> VirtualMachine:
    """The VM of that name, uuid or instance name. Raises CommandError if there is none, or more than one."""
    vms = VirtualMachine.objects.for_listing()
    if match := re.fullmatch(r"i-\d+-(\d+)-VM", text):
        found = vms.filter(pk=match[1])
    elif _is_uuid(text):
        found = vms.filter(uuid=text)
    else:
        found = vms.filter(name=text)
    match list(found[:2]):
        case [vm]:
            return vm
        case []:
            raise CommandError(f"There is no VM {text}. list_vms shows all.")
        case _:
            raise CommandError(f"Several accounts have a VM named {text}. Give its uuid; list_vms shows them.")


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
