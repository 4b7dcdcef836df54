"""One alert for each kind of trouble of each thing, from its first sight to its end."""

import threading
from dataclasses import replace
from datetime import timedelta
from uuid import NAMESPACE_DNS, uuid4, uuid5

import pytest
from django.db import connection, connections

from extdhcp_site.accounts.models import Role
from extdhcp_site.alerts import services, watches
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.alerts.services import COMES_BACK_WITHIN, Domain, Problem
from extdhcp_site.alerts.watches import Watch
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import Event, EventType, Level, Subject
from tests.factories import make_account, make_caller

MINUTE = timedelta(minutes=1)
HOSTS = Domain(frozenset({Kind.HOST}), "Host")


def problem(name: str = "kvm-1", kind: Kind = Kind.HOST, **fields) -> Problem:
    about = Subject("Host", uuid5(NAMESPACE_DNS, name), name)
    return Problem(kind, about, **{"text": f"{name} is silent.", **fields})


@pytest.mark.django_db
def test_trouble_that_is_seen_again_is_the_same_alert(now):
    services.raise_(problem(), now)
    services.raise_(problem(text="kvm-1 is silent still."), now + MINUTE)

    alert = Alert.objects.get()
    assert (alert.first_at, alert.last_at, alert.text) == (now, now + MINUTE, "kvm-1 is silent still.")
    assert alert.count == 1


@pytest.mark.django_db
def test_each_kind_and_each_thing_has_its_own(now):
    services.settle(Domain(frozenset(Kind), "Host"), [problem(), problem("kvm-2"), problem(kind=Kind.MEMORY)], now)
    assert Alert.objects.open().count() == 3


@pytest.mark.django_db
def test_what_is_gone_ends(now):
    services.settle(HOSTS, [problem(), problem("kvm-2")], now)
    services.settle(HOSTS, [problem("kvm-2")], now + MINUTE)

    assert Alert.objects.open().get().subject_name == "kvm-2"
    assert Alert.objects.resolved().get().resolved_at == now + MINUTE


@pytest.mark.django_db
def test_a_watch_ends_nothing_of_another(now):
    services.settle(Domain(frozenset({Kind.MEMORY}), "Cluster"), [replace(problem(kind=Kind.MEMORY))], now)
    services.settle(HOSTS, [], now + MINUTE)
    services.settle(Domain(frozenset({Kind.MEMORY}), "Cluster", uuid4()), [], now + MINUTE)
    assert Alert.objects.open().exists()


@pytest.mark.django_db
def test_trouble_that_comes_back_at_once_goes_on_and_is_not_new(now):
    services.raise_(problem(), now)
    services.resolve(Kind.HOST, problem().subject.uuid, now + MINUTE)
    services.raise_(problem(), now + 2 * MINUTE)

    alert = Alert.objects.get()
    assert (alert.state, alert.count, alert.first_at) == ("Open", 2, now)


@pytest.mark.django_db
def test_trouble_that_comes_back_after_it_was_put_away_is_seen_again(now):
    services.settle(HOSTS, [problem()], now)
    services.settle(HOSTS, [], now + MINUTE)
    Alert.objects.update(archived=True)
    services.settle(HOSTS, [problem()], now + 5 * MINUTE)
    assert Alert.objects.open().filter(archived=False).exists()


@pytest.mark.django_db
def test_trouble_that_comes_back_later_is_a_new_alert(now):
    services.raise_(problem(), now)
    services.resolve(Kind.HOST, problem().subject.uuid, now)
    services.raise_(problem(), now + COMES_BACK_WITHIN)
    assert [alert.state for alert in Alert.objects.all()] == ["Open", "Resolved"]


@pytest.mark.django_db
def test_what_must_last_is_told_only_when_it_has(now):
    silent = problem(lasting=3 * MINUTE)
    services.settle(HOSTS, [silent], now)
    services.settle(HOSTS, [silent], now + 2 * MINUTE)
    assert not Alert.objects.raised().exists()
    services.settle(HOSTS, [silent], now + 3 * MINUTE)
    assert Alert.objects.open().get().first_at == now


@pytest.mark.django_db
def test_what_passes_before_it_is_told_leaves_nothing(now):
    services.settle(HOSTS, [problem(lasting=3 * MINUTE)], now)
    services.settle(HOSTS, [], now + MINUTE)
    assert not Alert.objects.exists()
    assert not Event.objects.exists()


@pytest.mark.django_db
def test_events_tell_once_when_it_begins_and_ends(now):
    make_account(Role.ROOT_ADMIN)
    for later in range(3):
        services.settle(HOSTS, [problem()], now + later * MINUTE)
    services.settle(HOSTS, [], now + 3 * MINUTE)

    told = Event.objects.order_by("pk").values_list("type", "level", "description")
    assert list(told) == [
        (EventType.HOST_ALERT, Level.ERROR, "Host is silent: kvm-1 is silent."),
        (EventType.HOST_ALERT, Level.INFO, "Host is silent: kvm-1: over"),
    ]


@pytest.mark.django_db
def test_whom_it_concerns_reads_of_it(now):
    owner = make_account()
    services.raise_(problem(kind=Kind.VM, account_id=owner.pk), now)
    assert Event.objects.get().account == owner


@pytest.mark.django_db
def test_the_queries_do_not_grow_with_what_lasts(now, django_assert_num_queries):
    services.settle(HOSTS, [problem()], now)
    with django_assert_num_queries(4):  # known, begin, write, end of the transaction
        services.settle(HOSTS, [problem()], now + MINUTE)
    many = [problem(f"kvm-{number}") for number in range(30)]
    services.settle(HOSTS, many, now)
    with django_assert_num_queries(4):
        services.settle(HOSTS, many, now + MINUTE)


@pytest.mark.django_db(transaction=True, serialized_rollback=True)
def test_many_at_once_make_one(now):
    make_account(Role.ROOT_ADMIN)
    ready = threading.Barrier(6)

    def see() -> None:
        try:
            ready.wait()
            services.raise_(problem(), now)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=see) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert Alert.objects.count() == 1
    assert Event.objects.filter(type=EventType.HOST_ALERT).count() == 1


@pytest.mark.django_db
def test_the_database_lets_one_in(now):
    services.raise_(problem(), now)
    twin = Alert.objects.get()
    twin.pk, twin.uuid = None, uuid4()
    Alert.objects.bulk_create([twin], ignore_conflicts=True)
    assert Alert.objects.count() == 1
    assert connection.needs_rollback is False


# Acknowledging ----------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_acknowledged_alert_waits_for_nobody_and_lasts(now):
    by = make_caller(Role.ROOT_ADMIN)
    services.raise_(problem(), now)
    services.acknowledge(Alert.objects.get(), by, now + MINUTE)
    services.raise_(problem(), now + 2 * MINUTE)

    alert = Alert.objects.get()
    assert (alert.state, alert.acknowledged_by) == ("Acknowledged", by.user.username)
    assert not Alert.objects.open().exists()


@pytest.mark.django_db
def test_who_acknowledges_second_is_told_who_was_first(now):
    first, second = make_caller(Role.ROOT_ADMIN), make_caller(Role.ROOT_ADMIN)
    services.raise_(problem(), now)
    stale = Alert.objects.get()
    services.acknowledge(Alert.objects.get(), first, now)
    with pytest.raises(InvalidParameter, match=first.user.username):
        services.acknowledge(stale, second, now)


@pytest.mark.django_db
def test_what_is_over_cannot_be_acknowledged(now):
    services.raise_(problem(), now)
    alert = Alert.objects.get()
    services.resolve(Kind.HOST, alert.subject_uuid, now)
    with pytest.raises(InvalidParameter, match="is over"):
        services.acknowledge(alert, make_caller(Role.ROOT_ADMIN), now)


# Watches ----------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_watch_that_fails_ends_nothing(now):
    services.settle(HOSTS, [problem()], now)

    def fails() -> list[Problem]:
        raise RuntimeError

    watches.look_at(Watch(HOSTS, fails), now + MINUTE)
    assert Alert.objects.open().exists()


def test_every_kind_has_an_event_type_and_a_number():
    assert set(Kind.values) <= set(EventType.values)
    assert {kind.number for kind in Kind}
