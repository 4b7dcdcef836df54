"""From what a person types on a command line to the row that they mean."""

import re
import uuid

from django.core.management.base import CommandError

from networks.models import Nic, VirtualMachine


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


def one_vm_or_nic(text: str) -> VirtualMachine:
    """Likewise; or the VM of the NIC with that uuid or MAC address."""
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        nics = Nic.objects.filter(mac_address=text.lower().replace("-", ":"))
    else:
        nics = Nic.objects.filter(uuid=text) if _is_uuid(text) else Nic.objects.none()
    owners = list(nics.values_list("vm__uuid", flat=True)[:2])
    if len(owners) > 1:
        raise CommandError(f"Several NICs have the MAC address {text}. Give a VM's uuid; list_nics shows them.")
    return one_vm(str(owners[0]) if owners else text)


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
