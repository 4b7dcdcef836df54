"""What a cloud admin owns: zones, pods, clusters, storage, endpoints, hosts; checked whole before it is written."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TypeVar

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models, transaction
from django.db.models import ProtectedError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter, ResourceInUse
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.models import UuidModel
from extdhcp_site.uniqueness import unless_taken
from networks.hypervisors.base import DiskAccess, HypervisorError
from networks.models import Cluster, Endpoint, Host, HypervisorType, Pod, PrimaryStorage, Zone
from networks.services.endpoint_checks import facts_of
from networks.services.places import hypervisor_behind

MIB = 1024**2

M = TypeVar("M", bound=UuidModel)


# Places ---------------------------------------------------------------------------------------------


def create_zone(zone: Zone, by: Caller) -> Zone:
    return _created(zone, EventType.ZONE_CREATE, by)


def create_pod(zone: Zone, name: str, by: Caller) -> Pod:
    return _created(Pod(zone=zone, name=name), EventType.POD_CREATE, by)


def add_cluster(pod: Pod, name: str, hypervisor: str, by: Caller) -> Cluster:
    return _created(Cluster(pod=pod, name=name, hypervisor=hypervisor), EventType.CLUSTER_CREATE, by)


def create_storage_pool(cluster: Cluster, name: str, by: Caller, *, shared: bool) -> PrimaryStorage:
    """Tell of primary storage that the cluster's hosts have already."""
    return _created(PrimaryStorage(cluster=cluster, name=name, shared=shared), EventType.STORAGE_POOL_CREATE, by)


# Endpoints ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WantedEndpoint:
    """An endpoint as somebody types it. Fields, never a URI: that could run programs on this server."""

    name: str
    kind: str
    transport: str
    host: str = ""
    port: int | None = None
    username: str = ""
    ca_certificates: str = ""
    fingerprint: str = ""
    disk_access: str = ""


def unsaved(wanted: WantedEndpoint, password: str) -> Endpoint:
    """As an endpoint that is not stored. Raises InvalidParameter for one that cannot be."""
    endpoint = Endpoint(**asdict(wanted), password=password or None)
    # Not its name, which only one that is stored needs.
    with _as_ours():
        endpoint.clean()
    _check_trust(endpoint)
    return endpoint


def create_endpoint(wanted: WantedEndpoint, password: str, by: Caller) -> Endpoint:
    endpoint = unsaved(wanted, password)
    _check_reachable(endpoint)
    return _created(endpoint, EventType.ENDPOINT_CREATE, by)


def update_endpoint(
    endpoint: Endpoint, changes: Mapping[str, object], password: str, by: Caller
) -> tuple[Endpoint, bool]:
    """Change columns of WantedEndpoint, and the password if there is one; whether a stored password was cleared.

    A password is for the host it was given for: a change of address, user or trust clears it.
    """
    with transaction.atomic():
        row = Endpoint.objects.select_for_update().get(pk=endpoint.pk)
        stored = row.password
        for name, value in changes.items():
            setattr(row, name, value)
        if "kind" in changes and row.hosts.exclude(cluster__hypervisor=row.kind).exists():
            raise InvalidParameter(
                f"Endpoint {row} has hosts of another hypervisor.",
                problems={"hypervisor": "It has hosts of another hypervisor. Remove them first."},
            )
        asked = Endpoint(password=password or None, **{name: getattr(row, name) for name in _COLUMNS})
        _check_trust(asked)
        _check_reachable(asked)
        with _as_ours():
            row.full_clean(exclude=["password"])
        with unless_taken(_taken(row)):
            row.save(update_fields=[*_COLUMNS])
        if password:
            # After the address: saved together, the old password typed anew would count as not given.
            row.password = password
            row.save(update_fields=["password"])
        cleared = bool(stored) and not row.password
        told = ", ".join(sorted({*changes, *(["password"] if password else [])})) or "nothing"
        _record(EventType.ENDPOINT_UPDATE, f"Endpoint {row}: {told} changed", row, by)
    return row, cleared


_COLUMNS = (*WantedEndpoint.__dataclass_fields__,)


def delete_endpoint(endpoint: Endpoint, by: Caller) -> None:
    _deleted(endpoint, EventType.ENDPOINT_DELETE, "hosts", by)


def _check_trust(endpoint: Endpoint) -> None:
    if endpoint.kind == HypervisorType.KVM and (endpoint.ca_certificates or endpoint.fingerprint):
        raise InvalidParameter("libvirt trusts by CA files of its own: leave CA certificates and fingerprint empty.")


def _check_reachable(endpoint: Endpoint) -> None:
    """Whether its fields can be an address at all. Nothing is sent to it."""
    try:
        hypervisor_behind(endpoint.kind, endpoint.address)
    except HypervisorError as error:
        raise InvalidParameter(str(error)) from None
    if endpoint.disk_access == DiskAccess.SSH and not endpoint.host:
        raise InvalidParameter("There is no host to go to by ssh: it is this server that sees the disks.")


# Hosts ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """What of a host may be promised to VMs; None: what the host says of itself. Memory in bytes."""

    cpus: int | None = None
    mhz: int | None = None
    memory: int | None = None

    @property
    def is_whole(self) -> bool:
        return None not in (self.cpus, self.mhz, self.memory)


def add_host(cluster: Cluster, endpoint: Endpoint, name: str, size: Size, by: Caller) -> Host:
    """A host that VMs may run on from now on. Asks it how large it is, unless `size` says.

    Raises InvalidParameter, and ResourceUnavailable when it cannot be asked.
    """
    _check_takes_host(endpoint, cluster)
    version = ""
    if not size.is_whole:
        # A libvirt endpoint is its host, whatever it is called here.
        facts = facts_of(endpoint, "" if endpoint.kind == HypervisorType.KVM else name)
        size = Size(size.cpus or facts.cpus, size.mhz or facts.mhz, size.memory or facts.memory)
        version = facts.version[:50]
    host = Host(
        name=name,
        cluster=cluster,
        endpoint=endpoint,
        cpus=size.cpus,
        mhz=size.mhz,
        memory=size.memory,
        hypervisor_version=version,
    )
    with transaction.atomic():
        # While it was asked, somebody else may have added the host, or changed the endpoint or removed it.
        now = Endpoint.objects.select_for_update().filter(pk=endpoint.pk).first()
        if now is None:
            raise InvalidParameter(f"Endpoint {endpoint} is no longer there.")
        _check_takes_host(now, cluster)
        return _created(host, EventType.HOST_CREATE, by)


def _check_takes_host(endpoint: Endpoint, cluster: Cluster) -> None:
    if endpoint.kind != cluster.hypervisor:
        raise InvalidParameter(
            f"Cluster {cluster} is for {cluster.hypervisor}; endpoint {endpoint} is {endpoint.kind}.",
            problems={"endpointid": f"It is {endpoint.kind}; the cluster is for {cluster.hypervisor}."},
        )
    if endpoint.kind == HypervisorType.KVM and endpoint.hosts.exists():
        raise InvalidParameter(f"Endpoint {endpoint} is one host, which is there already.")


def update_host(host: Host, size: Size, resource_state: str, by: Caller) -> Host:
    """Enable or disable a host for new VMs, and change what of it may be promised. Empty and None leave it as it is."""
    changes = {name: value for name, value in asdict(size).items() if value is not None}
    if resource_state:
        changes["resource_state"] = resource_state
    with transaction.atomic():
        row = Host.objects.select_for_update().get(pk=host.pk)
        if size.memory is not None and size.memory < row.reserved_memory:
            least = -(-row.reserved_memory // MIB)
            raise InvalidParameter(f"Its VMs hold {least} MiB.", problems={"memory": f"Its VMs hold {least} MiB."})
        Host.objects.filter(pk=row.pk).update(**changes)
        told = ", ".join(f"{name} {value}" for name, value in sorted(changes.items())) or "nothing changed"
        _record(EventType.HOST_UPDATE, f"Host {row}: {told}", row, by)
    row.refresh_from_db()
    return row


def delete_host(host: Host, by: Caller) -> None:
    _deleted(host, EventType.HOST_DELETE, "VMs", by)


# Writing --------------------------------------------------------------------------------------------


def _created(row: M, type: EventType, by: Caller) -> M:
    with _as_ours():
        row.full_clean()
    with transaction.atomic():
        with unless_taken(_taken(row)):
            row.save(force_insert=True)
        _record(type, f"{_kind(row)} {row} created", row, by)
    return row


def _deleted(row: UuidModel, type: EventType, users: str, by: Caller) -> None:
    try:
        with transaction.atomic():
            _record(type, f"{_kind(row)} {row} deleted", row, by)
            row.delete()
    except ProtectedError as error:
        count = len(error.protected_objects)
        raise ResourceInUse(f"{_kind(row)} {row} is still in use ({users}: {count}). Remove them first.") from None


def _taken(row: UuidModel) -> InvalidParameter:
    return InvalidParameter(f"There is one named {row} already.", problems={"name": "This name is taken."})


def _kind(row: models.Model) -> str:
    name = str(row._meta.verbose_name)
    return name[:1].upper() + name[1:]


# What the columns are called by who types them.
_TYPED = {
    "kind": "hypervisor",
    "ca_certificates": "cacertificates",
    "disk_access": "diskaccess",
    "internal_dns1": "internaldns1",
    "bridge_pattern": "bridgepattern",
    "config_drive_label": "configdrivelabel",
    "allocation_state": "allocationstate",
    "cpus": "cpunumber",
    "mhz": "cpuspeed",
}


@contextlib.contextmanager
def _as_ours() -> Iterator[None]:
    try:
        yield
    except ValidationError as error:
        if not hasattr(error, "error_dict"):
            raise InvalidParameter(" ".join(error.messages)) from None
        by_name = {_TYPED.get(name, name): " ".join(texts) for name, texts in error.message_dict.items()}
        told = [text if name == NON_FIELD_ERRORS else f"{name}: {text}" for name, text in by_name.items()]
        by_name.pop(NON_FIELD_ERRORS, None)
        raise InvalidParameter(" ".join(told), problems=by_name) from None


def _record(type: EventType, text: str, on: UuidModel, by: Caller) -> None:
    events.record(type, text, account=by.account, on=on, by=by)
