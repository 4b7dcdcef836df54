"""From what a person types on a command line to the row that they mean."""

import re
import uuid

from django.core.management.base import CommandError

from networks.models import Network, Nic, VirtualMachine
from networks.models.vms import NicQuerySet


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


def one_vm_or_nic(text: str) -> VirtualMachine | Nic:
    """Likewise; or the NIC with that uuid or MAC address."""
    nics = list(_nics(text)[:2])
    if len(nics) > 1:
        raise CommandError(f"Several NICs have the MAC address {text}. Give a VM's uuid; list_nics shows them.")
    return nics[0] if nics else one_vm(text)


def one_nic(text: str) -> Nic:
    """The NIC with that uuid or MAC address. Raises CommandError if there is none, or more than one."""
    match list(_nics(text)[:2]):
        case [nic]:
            return nic
        case []:
            raise CommandError(f"There is no NIC {text}. list_nics shows all.")
        case _:
            raise CommandError(f"Several NICs have the MAC address {text}. Give a NIC's uuid; list_nics shows them.")


def one_network(text: str) -> Network:
    """The network with that name or uuid. Raises CommandError if there is none, or more than one."""
    networks = Network.objects.select_related("zone")
    found = list((networks.filter(uuid=text) if _is_uuid(text) else networks.filter(name=text))[:2])
    match found:
        case [network]:
            return network
        case []:
            raise CommandError(f"There is no network {text}.")
        case _:
            raise CommandError(f"Several zones have a network {text}. Give its uuid.")


def _nics(text: str) -> NicQuerySet:
    nics = Nic.objects.select_related("vm", "network__zone")
    if re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", text):
        return nics.filter(mac_address=text.lower().replace("-", ":"))
    return nics.filter(uuid=text) if _is_uuid(text) else nics.none()


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
