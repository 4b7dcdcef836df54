"""Find out whether a hypervisor can be used, before a deploy does."""

from collections.abc import Callable, Iterator
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from networks.checks import Check, tell
from networks.hypervisors import base
from networks.models import Endpoint, Host, HypervisorType, Network, PrimaryStorage
from networks.services.places import CALL, hypervisor_at, place, record_health, within


class Command(BaseCommand):
    help = "Connect to an endpoint and check what a deploy will need: host, storage, bridges. Status 1 if one fails."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("endpoint", help="The endpoint's name.")
        parser.add_argument("--json", action="store_true", help="Print a JSON array of checks.")

    def handle(self, *args: Any, **options: Any) -> None:
        endpoint = Endpoint.objects.filter(name=options["endpoint"]).first()
        if endpoint is None:
            names = ", ".join(Endpoint.objects.values_list("name", flat=True)[:20]) or "none yet"
            raise CommandError(f"There is no endpoint {options['endpoint']}. There are: {names}.")
        if tell(self, checks(endpoint), as_json=options["json"]):
            raise SystemExit(1)


def checks(endpoint: Endpoint) -> Iterator[Check]:
    """Each as it is answered; after a failed connection there is nothing more to ask."""
    try:
        hypervisor = hypervisor_at(endpoint)
        facts = hypervisor.host_facts(within(CALL))
    except base.HypervisorError as error:
        record_health(endpoint, str(error))
        yield Check("connection", False, f"{error} {_advice(error, endpoint)}".strip())
        return
    # What is wrong with one host, storage or network is no outage of the others.
    record_health(endpoint)
    yield Check("connection", True, f"{facts.hostname}, version {facts.version}")
    yield _size("size", facts)
    if isinstance(hypervisor, base.RightsReader):
        yield _try("rights", lambda: _rights(hypervisor))
    yield _try("inventory", lambda: f"{len(hypervisor.list_vms(within(CALL)))} VMs defined")
    for host in Host.objects.select_related("cluster__pod__zone", "endpoint").filter(endpoint=endpoint):
        yield from _of_host(host)


def _of_host(host: Host) -> Iterator[Check]:
    try:
        hypervisor = place(host).hypervisor
        facts = hypervisor.host_facts(within(CALL))
    except base.HypervisorError as error:
        yield Check(f"host {host}", False, str(error))
        return
    yield _size(f"host {host}", facts)
    yield _memory(host, facts)
    storages = list(host.cluster.storage.all())
    if isinstance(hypervisor, base.StorageReader):
        for storage in storages:
            yield _try(f"storage {storage} on {host}", lambda storage=storage: _shared(hypervisor, storage))
    for name in ("", *(storage.name for storage in storages)):
        yield _media(host, hypervisor, name)
    for network in Network.objects.select_related("zone").filter(zone=host.cluster.pod.zone)[:100]:
        yield _network(host, hypervisor, network)


def _size(name: str, facts: base.HostFacts) -> Check:
    return Check(name, True, f"{facts.cpus} CPUs of {facts.mhz} MHz, {facts.memory // 1024**2} MiB")


def _rights(hypervisor: base.RightsReader) -> str:
    if missing := hypervisor.missing_rights(within(CALL)):
        raise base.Refused(f"The user lacks: {', '.join(missing)}.")
    return "the user may do all that is needed"


def _shared(hypervisor: base.StorageReader, storage: PrimaryStorage) -> str:
    is_shared = hypervisor.is_shared(storage.name, within(CALL))
    what = "further hosts see it" if is_shared else "this host alone sees it"
    if is_shared != storage.shared:
        says, advice = ("shared", "clear") if storage.shared else ("not shared", "set")
        raise base.StorageProblem(f"It is {says} here, and {what}: {advice} its field 'shared' in the admin.")
    return what


def _media(host: Host, hypervisor: base.MediaStore, storage: str) -> Check:
    name = f"config drives on {host}" + (f", storage {storage}" if storage else "")
    try:
        return Check(name, True, f"{len(hypervisor.list_media(within(CALL), storage=storage))} ISOs")
    except base.Refused as error:
        return Check(name, None, f"none can lie there: {error}")
    except base.HypervisorError as error:
        return Check(name, False, str(error))


def _memory(host: Host, facts: base.HostFacts) -> Check:
    enough = host.memory <= facts.memory
    told = f"{host.memory // 1024**2} MiB may be promised to VMs"
    advice = "" if enough else f", more than there are: set the host's memory to {facts.memory} at most in the admin"
    return Check(f"memory of {host}", enough, told + advice)


def _network(host: Host, hypervisor: base.NetworkOperations, network: Network) -> Check:
    name, label = f"network {network} on {host}", network.on_host.label
    if host.endpoint.kind == HypervisorType.XENSERVER and network.on_host.vlan is not None:
        # There, to ask for a network makes it.
        return Check(name, None, f"{label} is made, unless it is there, when a VM first needs it")

    def look() -> str:
        hypervisor.ensure_network(network.on_host, within(CALL))
        return f"{label} is there"

    return _try(name, look)


def _try(name: str, ask: Callable[[], str]) -> Check:
    try:
        return Check(name, True, ask())
    except base.EndpointUnreachable as error:
        return Check(name, None, str(error))
    except base.HypervisorError as error:
        return Check(name, False, str(error))


def _advice(error: base.HypervisorError, endpoint: Endpoint) -> str:
    match error:
        case base.CredentialsRefused():
            return "Set the endpoint's user and password in the admin."
        case base.CertificateRefused():
            return "If it is the right one, set the endpoint's CA certificates or fingerprint in the admin."
        case base.EndpointUnreachable():
            listener = "libvirtd" if endpoint.kind == HypervisorType.KVM else endpoint.kind
            return f"Check that {listener} listens there, the firewall, and the endpoint's transport, host and port."
        case _:
            return ""
