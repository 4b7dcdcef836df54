"""One row of each model that the admin shows."""

from collections.abc import Callable
from uuid import uuid4

from django.contrib.auth.models import Group
from django.db.models import Model
from django.test import Client
from django.utils import timezone

from configdrive.models import ConfigDrive, Leftover
from extdhcp_site.accounts.models import Account, ApiKey, Domain, Role, User
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.configuration.models import Setting
from extdhcp_site.events import models as events
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.locks.models import Lock
from ipfetch.models import (
    AddressChain,
    Confidence,
    IpFetch,
    LeaseServer,
    LeaseToken,
    Observation,
    Outcome,
    Sweep,
    create_lease_token,
)
from networks.models import (
    Cluster,
    Endpoint,
    Host,
    Network,
    NetworkOffering,
    Nic,
    NicSecondaryIp,
    Pod,
    PrimaryStorage,
    ResourceTag,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
    Volume,
    Zone,
)
from tests import factories

_setting_names = iter(range(10_000))


def make_root(**fields) -> User:
    account = factories.make_account(Role.ROOT_ADMIN)
    return factories.make_user(account, **{"is_staff": True, "is_superuser": True, **fields})


def client_of(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def make_event(account: Account | None = None, text: str = "it started", **fields) -> events.Event:
    return events.record(events.EventType.VM_START, text, account=account or factories.make_account(), **fields)


def make_ip_fetch(vm: VirtualMachine | None = None, **fields) -> IpFetch:
    nic = (vm or factories.make_running_vm()).nics.get()
    beginning = {"retries_left": 10, "next_attempt_at": timezone.now(), "last_outcome": Outcome.AGENT_ABSENT}
    return IpFetch.objects.create(nic=nic, **{**beginning, **fields})


def make_observation(nic: Nic | None = None, address: str = "192.0.2.131", **fields) -> Observation:
    now = timezone.now()
    seen = {"source": "agent", "confidence": Confidence.CONFIRMED, "first_seen_at": now, "last_seen_at": now}
    nic = nic or factories.make_running_vm().nics.get()
    return Observation.objects.create(nic=nic, address=address, **{"family": 4, **seen, **fields})


def make_lease_server() -> LeaseServer:
    server = LeaseServer.objects.create(name=f"dhcp-{LeaseServer.objects.count()}", kind="dnsmasq", path="leases")
    server.networks.add(factories.make_network())
    return server


def make_lease_token() -> LeaseToken:
    create_lease_token(factories.make_network(), "dhcp")
    return LeaseToken.objects.latest("pk")


def make_job(**fields) -> AsyncJob:
    user, vm = factories.make_user(), factories.make_vm()
    return AsyncJob.objects.create(
        command="startVirtualMachine",
        account=vm.account,
        user=user,
        instance_type="VirtualMachine",
        instance_uuid=vm.uuid,
        **fields,
    )


def make_drive() -> ConfigDrive:
    vm = factories.make_running_vm()
    return ConfigDrive.objects.create(vm=vm, host=vm.host, name=f"{vm.instance_name}.iso")


def make_key_pair(account: Account | None = None) -> SshKeyPair:
    account = account or factories.make_account()
    return SshKeyPair.objects.create(account=account, name="laptop", public_key="ssh-ed25519 AAAA", fingerprint="00:11")


def make_secondary_ip() -> NicSecondaryIp:
    nic = factories.make_vm().nics.get()
    return NicSecondaryIp.objects.create(nic=nic, network=nic.network, address="192.0.2.132")


def make_alert() -> Alert:
    now = timezone.now()
    return Alert.objects.create(
        kind=Kind.HOST,
        subject_kind="Host",
        subject_uuid=uuid4(),
        subject_name="kvm-1",
        text="silent",
        first_at=now,
        last_at=now,
        raised_at=now,
        resolved_at=now,
    )


def _api_key() -> ApiKey:
    factories.make_api_key()
    return ApiKey.objects.latest("pk")


MAKERS: dict[type[Model], Callable[[], Model]] = {
    AddressChain: lambda: AddressChain.objects.create(zone=factories.make_zone(), sources="agent, lease"),
    Alert: make_alert,
    Account: lambda: factories.make_account(domain=factories.make_domain()),
    ApiKey: _api_key,
    AsyncJob: make_job,
    Cluster: factories.make_cluster,
    ConfigDrive: make_drive,
    Domain: factories.make_domain,
    Endpoint: factories.make_endpoint,
    events.Event: make_event,
    Group: lambda: Group.objects.create(name=f"group-{Group.objects.count()}"),
    Host: factories.make_host,
    IpFetch: make_ip_fetch,
    LeaseServer: make_lease_server,
    LeaseToken: make_lease_token,
    Leftover: lambda: Leftover.objects.create(host=factories.make_host(), name="old.iso"),
    Lock: lambda: Lock.objects.create(name=f"lock-{Lock.objects.count()}"),
    Network: factories.make_network,
    NetworkOffering: lambda: factories.make_network_offering({"UserData": "ConfigDrive"}),
    Nic: lambda: factories.make_vm().nics.get(),
    NicSecondaryIp: make_secondary_ip,
    Observation: make_observation,
    Pod: lambda: Pod.objects.get(pk=factories.make_cluster().pod_id),
    PrimaryStorage: lambda: factories.make_cluster().storage.get(),
    ResourceTag: lambda: ResourceTag.objects.create(vm=factories.make_vm(), key="role", value="web"),
    ServiceOffering: factories.make_service_offering,
    Setting: lambda: Setting.objects.create(name=f"setting-{next(_setting_names)}"),
    SshKeyPair: make_key_pair,
    Sweep: lambda: Sweep.objects.create(at=timezone.now(), batches=1, nics=1, found=0, failed=0, seconds=0, slowest=0),
    Template: lambda: factories.make_template(zone=factories.make_zone()),
    User: factories.make_user,
    VirtualMachine: factories.make_running_vm,
    Volume: lambda: factories.make_vm().root_volume,
    Zone: lambda: factories.make_zone(domain=factories.make_domain()),
}
