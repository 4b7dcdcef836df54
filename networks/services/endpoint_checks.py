"""What an endpoint lets be found out of it, before a deploy needs it: one that is stored, or one that is typed."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from django.db import transaction

from extdhcp_site import turns
from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter, ResourceUnavailable
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.capabilities import WORDS
from networks.checks import Check
from networks.hypervisors import base, tls
from networks.models import Endpoint, Host, HypervisorType, Network, PrimaryStorage
from networks.services.places import CALL, hypervisor_at, hypervisor_behind, place, record_health, within

# For one that is typed, all questions together: somebody waits for the answer.
TRY_SECONDS = 15.0
# At a time, in one process. A call that is stuck keeps its thread and no more.
MOST_TRIES = 2
MOST_STUCK = 8
LONGEST_NAME = 300
LIBVIRT_TLS_PORT = 16514

_tries = threading.BoundedSemaphore(MOST_TRIES)


@dataclass(frozen=True)
class Trial:
    """What came of trying an endpoint. `certificate`: what it shows of itself, unproven; `facts`: once it let us in."""

    checks: tuple[Check, ...]
    certificate: tls.Certificate | None
    facts: base.HostFacts | None
    capabilities: tuple[tuple[str, bool], ...]


def try_endpoint(kind: str, address: base.EndpointAddress) -> Trial:
    """Connect as this endpoint says, and ask what its credentials may do; nothing is written.

    Within TRY_SECONDS. Raises InvalidParameter for an address that cannot be one, ResourceUnavailable while others
    are being tried.
    """
    try:
        hypervisor = hypervisor_behind(kind, address)
    except base.HypervisorError as error:
        raise InvalidParameter(str(error)) from None
    with _one_of_few(), turns.given_up():
        deadline = within(TRY_SECONDS)
        certificate = _certificate(kind, address, deadline)
        facts, found = None, []
        try:
            facts = hypervisor.host_facts(deadline)
        except base.HypervisorError as error:
            found.append(Check("connection", False, str(error)))
        else:
            found += [Check("connection", True, f"{facts.hostname}, version {facts.version}"), _size("size", facts)]
            found += _asked(hypervisor, deadline)
    capabilities = tuple((words, isinstance(hypervisor, protocol)) for protocol, words in WORDS.items())
    return Trial(tuple(found), certificate, facts, capabilities)


def facts_of(endpoint: Endpoint, host: str) -> base.HostFacts:
    """What a host says of itself, for somebody who waits. Raises ResourceUnavailable."""
    kind, address = endpoint.kind, endpoint.address
    with _one_of_few(), turns.given_up():
        try:
            return hypervisor_behind(kind, address, host).host_facts(within(TRY_SECONDS))
        except base.HypervisorError as error:
            raise ResourceUnavailable(f"{host or endpoint} could not be asked how large it is: {error}") from None


@contextlib.contextmanager
def _one_of_few() -> Iterator[None]:
    if base.abandoned_calls() > MOST_STUCK or not _tries.acquire(blocking=False):
        raise ResourceUnavailable("Other endpoints are being tried. Try again in a few seconds.", retry_after=10)
    try:
        yield
    finally:
        _tries.release()


def _certificate(kind: str, address: base.EndpointAddress, deadline: float) -> tls.Certificate | None:
    """None for one that is not reached by TLS, or shows none; the connection tells why."""
    if address.transport not in (base.Transport.TLS, base.Transport.TEST) or not address.host:
        return None
    if kind == HypervisorType.KVM and address.port is None:
        address = replace(address, port=LIBVIRT_TLS_PORT)
    with contextlib.suppress(base.HypervisorError):
        # Half of the time at most: the connection is what counts.
        shown = tls.fetch_certificate(address, min(deadline, within(TRY_SECONDS / 2)))
        return replace(shown, subject=shown.subject[:LONGEST_NAME], issuer=shown.issuer[:LONGEST_NAME])
    return None


def _asked(hypervisor: Any, deadline: float) -> Iterator[Check]:
    if isinstance(hypervisor, base.RightsReader):
        yield _try("rights", lambda: _rights(hypervisor, deadline))
    yield _try("inventory", lambda: f"{len(hypervisor.list_vms(deadline))} VMs defined")


# Of one that is stored -------------------------------------------------------------------------------


def submit_checks(endpoint: Endpoint, by: Caller) -> AsyncJob:
    """The job that asks all that `check_endpoint` asks; what was found stands in its result."""
    with transaction.atomic():
        return jobs.submit("checkEndpoint", endpoint, account=by.account, by=by)


@jobs.handler("checkEndpoint", EventType.ENDPOINT_CHECK)
def _run_checks(job: AsyncJob) -> None:
    endpoint = Endpoint.objects.filter(uuid=job.instance_uuid).first()
    if endpoint is None:
        raise InvalidParameter("The endpoint was deleted in the meantime.")
    found = []
    with base.heartbeat(lambda: jobs.beat(job)):
        for check in checks(endpoint):
            found.append({"name": check.name, "passed": _WORDS[check.passed], "text": check.text})
            jobs.beat(job, f"{len(found)} checks done")
    jobs.remark(job, check=found)


_WORDS = {True: "yes", False: "no", None: "unknown"}


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
        yield _try("rights", lambda: _rights(hypervisor, within(CALL)))
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


def _rights(hypervisor: base.RightsReader, deadline: float) -> str:
    if missing := hypervisor.missing_rights(deadline):
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

    def look() -> str:
        is_there = hypervisor.has_network(network.on_host, within(CALL))
        return f"{label} is there" if is_there else f"{label} is made when a VM first needs it"

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
