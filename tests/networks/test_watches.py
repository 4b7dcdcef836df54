"""What operators are alerted of in the cloud."""

from datetime import timedelta

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.alerts import watches as alerts
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.configuration.models import set_value
from networks import watches
from networks.hypervisors.base import EndpointUnreachable, HostUnavailable, StorageProblem, StorageRoom
from networks.models import Endpoint, Host
from networks.models.infrastructure import AllocationState
from networks.services.places import ALERT_AT, record_health, record_unavailable
from tests.factories import GIB, make_caller, make_cluster, make_endpoint, make_host, make_running_vm
from tests.fakes import FakeHypervisor, hypervisors

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def look(now) -> None:
    for watch in watches.WATCHES:
        alerts.look_at(watch, now)


def open_kinds() -> set[str]:
    return set(Alert.objects.open().values_list("kind", flat=True))


def test_a_host_that_is_silent_for_three_minutes():
    host, now = make_host(), timezone.now()
    record_health(host.endpoint, "No route.")
    for minute in range(3):
        look(now + minute * MINUTE)
        assert open_kinds() == set()
    look(now + 3 * MINUTE)

    alert = Alert.objects.open().get()
    assert (alert.kind, alert.subject_name) == (Kind.HOST, host.endpoint.name)
    assert f"It has {host.name}, with 0 running VMs." in alert.text
    assert "check_endpoint" in alert.advice


def test_a_host_that_was_silent_for_a_moment():
    host, now = make_host(), timezone.now()
    record_health(host.endpoint, "No route.")
    look(now)
    record_health(host.endpoint)
    for minute in range(1, 6):
        look(now + minute * MINUTE)
    assert not Alert.objects.exists()


def test_the_patience_is_a_setting():
    set_value("alert.wait", "0", make_caller(Role.ROOT_ADMIN))
    record_health(make_host().endpoint, "No route.")
    look(timezone.now())
    assert open_kinds() == {Kind.HOST}


def test_all_hosts_of_a_silent_vcenter_are_one_alert():
    endpoint, now = make_endpoint(), timezone.now()
    hosts = [make_host(endpoint=endpoint) for _ in range(8)]
    record_health(endpoint, "No route.")
    look(now)
    look(now + 3 * MINUTE)
    assert "and 3 more" in Alert.objects.open().get(kind=Kind.HOST).text
    assert len(hosts) == 8


def test_a_circuit_that_opens_and_closes():
    host, now = make_host(), timezone.now()
    for _ in range(ALERT_AT):
        record_health(host.endpoint, "No route.")
    look(now)
    assert open_kinds() == {Kind.ENDPOINT}
    record_health(host.endpoint)
    look(now + MINUTE)
    assert open_kinds() == set()


def test_one_host_that_its_pool_has_lost():
    host, now = make_host(), timezone.now()
    record_unavailable(host, "It is off.")
    look(now)
    look(now + 3 * MINUTE)
    alert = Alert.objects.open().get()
    assert (alert.subject_name, alert.text) == (host.name, f"{host} cannot be used: It is off.")


@pytest.mark.parametrize(
    ("fields", "kind"), [({"reserved_memory": 13 * GIB}, Kind.MEMORY), ({"reserved_mhz": 13_000}, Kind.CPU)]
)
def test_a_cluster_that_runs_full(fields, kind):
    host = make_host(cpus=8, mhz=2000, memory=16 * GIB, **fields)
    look(timezone.now())
    alert = Alert.objects.open().get()
    assert (alert.kind, alert.subject_name) == (kind, host.cluster.name)
    assert "81% is taken" in alert.text


def test_a_cluster_has_what_its_usable_hosts_have():
    cluster = make_cluster()
    make_host(cluster, memory=16 * GIB, reserved_memory=13 * GIB)
    spare = make_host(cluster, memory=64 * GIB)
    look(timezone.now())
    assert open_kinds() == set()
    Host.objects.filter(pk=spare.pk).update(resource_state=AllocationState.DISABLED)
    look(timezone.now())
    assert open_kinds() == {Kind.MEMORY}


def test_overprovisioned_cpu_counts():
    make_host(reserved_mhz=13_000)
    set_value("cpu.overprovisioning.factor", "2", make_caller(Role.ROOT_ADMIN))
    look(timezone.now())
    assert open_kinds() == set()


def test_the_number_of_queries_is_fixed(django_assert_max_num_queries):
    make_running_vm()
    with django_assert_max_num_queries(20):
        look(timezone.now())
    for _ in range(10):
        record_health(make_running_vm().host.endpoint, "No route.")
    look(timezone.now())
    with django_assert_max_num_queries(20):
        look(timezone.now())


# Heartbeats -------------------------------------------------------------------------------------------


def test_an_endpoint_that_nobody_asks_is_asked(fake):
    host = make_host()
    watches.ask_the_idle()
    endpoint = Endpoint.objects.get(pk=host.endpoint_id)
    assert endpoint.last_ok_at is not None
    watches.ask_the_idle()
    assert fake.calls == ["host_facts"]


@pytest.mark.parametrize("error", [EndpointUnreachable("No route."), HostUnavailable("Off.")])
def test_one_that_does_not_answer_is_noticed(fake, error):
    host = make_host()
    fake.failing["host_facts"] = error
    watches.ask_the_idle()
    assert Endpoint.objects.get(pk=host.endpoint_id).last_error == str(error)


# Storage ----------------------------------------------------------------------------------------------


def test_storage_that_runs_full(fake):
    storage = make_host().cluster.storage.get()
    fake.rooms[storage.name] = StorageRoom(100 * GIB, 20 * GIB)
    watches.measure_storage()
    look(timezone.now())

    alert = Alert.objects.open().get()
    assert (alert.kind, alert.subject_name) == (Kind.STORAGE, storage.name)
    assert "80% is taken: 20.0 of 100.0 GiB are left" in alert.text

    fake.rooms[storage.name] = StorageRoom(100 * GIB, 30 * GIB)
    watches.measure_storage()
    look(timezone.now() + MINUTE)
    assert open_kinds() == set()


def test_storage_that_all_hosts_share_is_measured_once(fake):
    cluster = make_cluster()
    for _ in range(3):
        make_host(cluster)
    watches.measure_storage()
    assert fake.calls == ["room"]


def test_of_storage_of_one_host_each_the_fullest_counts():
    cluster = make_cluster()
    cluster.storage.update(shared=False)
    full, empty = FakeHypervisor(), FakeHypervisor()
    full.rooms["default-pool"] = StorageRoom(100 * GIB, 5 * GIB)
    hosts = [make_host(cluster, endpoint=make_endpoint(host=name)) for name in ("kvm-1", "kvm-2")]
    with hypervisors({"kvm-1": empty, "kvm-2": full}):
        watches.measure_storage()
    storage = cluster.storage.get()
    assert (storage.measured_on, storage.free) == (hosts[1].name, 5 * GIB)


def test_a_host_that_cannot_tell_leaves_what_was_known(fake):
    storage = make_host().cluster.storage.get()
    watches.measure_storage()
    fake.failing["room"] = StorageProblem("It is not started.")
    watches.measure_storage()
    storage.refresh_from_db()
    assert storage.total == 100 * GIB
