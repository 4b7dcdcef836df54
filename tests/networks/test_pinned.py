"""An address that an operator sets by hand: what is refused, who hears of it, and that it is never overwritten."""

from datetime import timedelta
from ipaddress import ip_address

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse
from django.utils import timezone

from extdhcp_site.accounts.models import Role
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import Event, EventType, Level
from ipfetch import planner
from ipfetch.models import IpFetch, Observation
from ipfetch.schedule import Pace
from networks import elements
from networks.elements import AddressChange, NetworkElement
from networks.hypervisors.base import GuestAddress, Source
from networks.models import AddressState, Nic, VmState
from networks.services import nics, vms
from tests.console.worlds import client_of, make_root
from tests.factories import make_caller, make_cluster, make_host, make_l2_network, make_running_vm
from tests.ipfetch.passes import MINUTE, row_of, run_pass, whole_pass
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PINNED = (AddressState.PINNED, "operator")


@pytest.fixture
def root():
    return make_caller(Role.ROOT_ADMIN)


@pytest.fixture
def nic():
    nic = make_running_vm().nics.get()
    planner.enter_missing(Pace.now(), timezone.now())
    return nic


@pytest.fixture
def heard(monkeypatch):
    """What an element like the DNS publisher is told."""

    class Listener(NetworkElement):
        def addresses_changed(self, changes, now):
            heard.extend(changes)

    heard: list[AddressChange] = []
    monkeypatch.setattr(elements, "_elements", [*elements.registered(), Listener()])
    return heard


def address_of(nic: Nic) -> tuple[str | None, str, str]:
    return Nic.objects.values_list("ip4_address", "address_state", "address_source").get(pk=nic.pk)


def beside(nic: Nic, ip: str, state: AddressState) -> Nic:
    """Another NIC of the network, with an address."""
    other = make_running_vm(networks=[nic.network]).nics.get()
    Nic.objects.filter(pk=other.pk).update(ip4_address=ip, address_state=state, address_source="agent")
    return other


class TestPinning:
    def test_it_is_the_nics_address_and_says_who_set_it(self, nic, root):
        nics.pin(nic, "192.0.2.77", root)

        assert address_of(nic) == ("192.0.2.77", *PINNED)
        event = Event.objects.get(type=EventType.IP_CHANGE)
        assert (event.username, event.account, event.level) == (root.user.username, nic.vm.account, Level.INFO)
        assert event.description == f"{nic}: ip addr 192.0.2.77 was set by hand, before: none"

    @pytest.mark.parametrize(
        ("address", "why"),
        [
            ("198.51.100.7", r"outside 192\.0\.2\.0/24"),
            ("192.0.2.1", "gateway"),
            ("192.0.2.0", "first or the last"),
            ("192.0.2.255", "first or the last"),
            ("169.254.7.7", "kind"),
            ("127.0.0.1", "kind"),
            ("224.0.0.1", "kind"),
            ("0.0.0.0", "kind"),
            ("255.255.255.255", "kind"),
            ("2001:db8::7", "no IPv4 address"),
            ("192.0.2.7/24", "no IPv4 address"),
            ("x" * 1000, "no IPv4 address"),
        ],
    )
    def test_what_the_network_cannot_have_is_refused(self, nic, root, address, why):
        with pytest.raises(InvalidParameter, match=why):
            nics.pin(nic, address, root)
        assert address_of(nic) == (None, AddressState.UNKNOWN, "")
        assert not Event.objects.exists()

    def test_where_no_cidr_is_known_any_address_of_a_guest_is_taken(self, root):
        nic = make_running_vm(networks=[make_l2_network()]).nics.get()
        nics.pin(nic, "198.51.100.0", root)
        assert address_of(nic) == ("198.51.100.0", *PINNED)

    @pytest.mark.parametrize("state", [AddressState.CONFIRMED, AddressState.PINNED])
    def test_an_address_that_another_nic_has_is_refused_with_its_name(self, nic, root, state):
        other = beside(nic, "192.0.2.77", state)
        with pytest.raises(InvalidParameter, match=f"held by {other}"):
            nics.pin(nic, "192.0.2.77", root)
        assert address_of(nic)[0] is None

    def test_unless_the_operator_says_so(self, nic, root):
        other = beside(nic, "192.0.2.77", AddressState.CONFIRMED)

        nics.pin(nic, "192.0.2.77", root, although_held=True)

        assert address_of(nic) == ("192.0.2.77", *PINNED)
        assert address_of(other)[0] == "192.0.2.77"
        event = Event.objects.get()
        assert (event.level, event.for_operator) == (Level.WARN, f"(Of others, {other} ({other.mac_address}) has it.)")

    def test_the_same_address_on_another_network_is_another_address(self, nic, root):
        elsewhere = make_running_vm().nics.get()
        Nic.objects.filter(pk=elsewhere.pk).update(ip4_address="192.0.2.77", address_state=AddressState.CONFIRMED)
        nics.pin(nic, "192.0.2.77", root)
        assert address_of(nic)[0] == "192.0.2.77"

    @pytest.mark.parametrize("state", [AddressState.LAST_KNOWN, AddressState.UNCONFIRMED])
    def test_who_was_not_sure_of_it_loses_it(self, nic, root, state, heard):
        other = beside(nic, "192.0.2.77", state)

        nics.pin(nic, "192.0.2.77", root)

        assert address_of(other)[:2] == (None, AddressState.UNKNOWN)
        assert AddressChange(other.pk, other.vm_id, "192.0.2.77", None, None, None) in heard

    def test_elements_hear_of_the_change(self, nic, root, heard):
        Nic.objects.update(ip4_address="192.0.2.5", ip6_address="2001:db8::5", address_state=AddressState.CONFIRMED)
        nics.pin(nic, "192.0.2.77", root)
        assert heard == [AddressChange(nic.pk, nic.vm_id, "192.0.2.5", "192.0.2.77", "2001:db8::5", "2001:db8::5")]

    def test_in_the_same_transaction(self, nic, root, monkeypatch):
        class Broken(NetworkElement):
            def addresses_changed(self, changes, now):
                raise InvalidParameter("no")

        monkeypatch.setattr(elements, "_elements", [*elements.registered(), Broken()])
        with pytest.raises(InvalidParameter):
            nics.pin(nic, "192.0.2.77", root)
        assert address_of(nic)[0] is None

    def test_an_address_that_was_learned_is_kept_and_not_a_change(self, nic, root, heard):
        Nic.objects.update(ip4_address="192.0.2.77", address_state=AddressState.CONFIRMED, address_source="agent")
        nics.pin(nic, "192.0.2.77", root)
        assert (address_of(nic), heard) == (("192.0.2.77", *PINNED), [])

    def test_saying_it_again_changes_nothing(self, nic, root):
        nics.pin(nic, "192.0.2.77", root)
        nics.pin(nic, "192.0.2.77", root)
        assert Event.objects.count() == 1

    def test_a_destroyed_vm_gets_none(self, nic, root):
        type(nic.vm).objects.update(state=VmState.DESTROYED)
        with pytest.raises(InvalidParameter, match="Destroyed"):
            nics.pin(nic, "192.0.2.77", root)

    def test_it_is_none_of_the_others_any_more(self, nic, root):
        Nic.objects.update(secondary_addresses=["192.0.2.77", "192.0.2.78"])
        nics.pin(nic, "192.0.2.77", root)
        nic.refresh_from_db()
        assert nic.secondary_addresses == ["192.0.2.78"]


class TestWhatIsLearned:
    """Through real passes."""

    def test_another_address_is_seen_and_does_not_overwrite_it(self, nic, root, fake):
        nics.pin(nic, "192.0.2.77", root)
        fake.answers(nic.vm.on_host, GuestAddress(nic.mac_address, ip_address("192.0.2.5"), Source.GUEST_AGENT))

        for minutes in (1, 20):
            run_pass(timezone.now() + minutes * MINUTE)

        assert address_of(nic) == ("192.0.2.77", *PINNED)
        assert Observation.objects.get(nic=nic).address == "192.0.2.5"

    def test_a_waiting_nic_waits_no_longer(self, nic, root):
        nics.pin(nic, "192.0.2.77", root)
        assert row_of(nic).state == IpFetch.State.FOUND

    def test_a_silent_guest_is_never_given_up(self, nic, root, fake):
        nics.pin(nic, "192.0.2.77", root)

        now = timezone.now()
        for _ in range(40):
            now += 16 * MINUTE
            run_pass(now)

        assert row_of(nic).state == IpFetch.State.FOUND
        assert not Event.objects.filter(level=Level.ERROR).exists()

    def test_it_is_kept_over_stop_and_start(self, root, fake):
        cluster = make_cluster()
        make_host(cluster)
        vm = deploy(root, cluster)
        nic = vm.nics.get()
        nics.pin(nic, "192.0.2.77", root)

        run(vms.stop(vm, root))
        assert address_of(nic) == ("192.0.2.77", *PINNED)

        vm.refresh_from_db()
        run(vms.start(vm, root))
        assert row_of(nic).state == IpFetch.State.FOUND
        fake.answers(vm.on_host, GuestAddress(nic.mac_address, ip_address("192.0.2.5"), Source.GUEST_AGENT))
        run_pass(timezone.now() + MINUTE)

        assert address_of(nic) == ("192.0.2.77", *PINNED)
        assert row_of(nic).state == IpFetch.State.FOUND

    def test_a_reboot_does_not_make_it_wait(self, root, fake):
        cluster = make_cluster()
        make_host(cluster)
        vm = deploy(root, cluster)
        nics.pin(vm.nics.get(), "192.0.2.77", root)

        run(vms.reboot(vm, root))

        assert row_of(vm.nics.get()).state == IpFetch.State.FOUND

    def test_who_learns_the_same_address_is_told_of_the_conflict(self, nic, root, fake):
        nics.pin(nic, "192.0.2.77", root)
        other = make_running_vm(networks=[nic.network]).nics.get()
        whole_pass(timezone.now())
        fake.answers(other.vm.on_host, GuestAddress(other.mac_address, ip_address("192.0.2.77"), Source.GUEST_AGENT))

        run_pass(timezone.now() + MINUTE)

        assert address_of(nic) == ("192.0.2.77", *PINNED)
        assert Event.objects.filter(type=EventType.IP_CONFLICT, resource_uuid=other.vm.uuid).exists()


class TestUnpinning:
    def test_it_is_the_last_known_address_and_is_asked_for(self, nic, root, heard):
        nics.pin(nic, "192.0.2.77", root)
        heard.clear()

        nics.pin(nic, None, root)

        assert address_of(nic)[:2] == ("192.0.2.77", AddressState.LAST_KNOWN)
        row = row_of(nic)
        assert (row.state, row.retries_left) == (IpFetch.State.WAITING, 10)
        assert row.next_attempt_at - timezone.now() < timedelta(seconds=1)
        assert heard == []
        assert "not set by hand any more" in Event.objects.first().description
        assert Event.objects.first().username == root.user.username

    def test_the_next_answer_is_taken(self, nic, root, fake):
        nics.pin(nic, "192.0.2.77", root)
        nics.pin(nic, None, root)
        fake.answers(nic.vm.on_host, GuestAddress(nic.mac_address, ip_address("192.0.2.5"), Source.GUEST_AGENT))

        run_pass(timezone.now())

        assert address_of(nic) == ("192.0.2.5", AddressState.CONFIRMED, "agent")

    def test_a_nic_that_was_not_pinned_is_left_alone(self, nic, root):
        Nic.objects.update(ip4_address="192.0.2.5", address_state=AddressState.CONFIRMED)
        nics.pin(nic, None, root)
        assert address_of(nic)[:2] == ("192.0.2.5", AddressState.CONFIRMED)
        assert not Event.objects.exists()

    def test_of_a_stopped_vm_nothing_is_asked(self, nic, root):
        IpFetch.objects.all().delete()
        nics.pin(nic, "192.0.2.77", root)
        nics.pin(nic, None, root)
        assert not IpFetch.objects.exists()


class TestAdmin:
    @pytest.fixture
    def operator(self):
        return make_root()

    @staticmethod
    def post(client, nic: Nic, **data):
        return client.post(reverse("admin:networks_nic_change", args=[nic.pk]), data, follow=True)

    def test_the_form_sets_and_empties_it(self, nic, operator):
        client = client_of(operator)

        self.post(client, nic, pinned_address="192.0.2.77")
        assert address_of(nic) == ("192.0.2.77", *PINNED)
        assert Event.objects.get().username == operator.username
        assert 'value="192.0.2.77"' in client.get(reverse("admin:networks_nic_change", args=[nic.pk])).text

        self.post(client, nic, pinned_address="")
        assert address_of(nic)[:2] == ("192.0.2.77", AddressState.LAST_KNOWN)

    @pytest.mark.parametrize(
        "wrong", ["192.0.2.1", "198.51.100.1", "nonsense", "2001:db8::1", "<script>alert(1)</script>"]
    )
    def test_a_wrong_one_is_refused_on_the_form(self, nic, operator, wrong):
        answer = self.post(client_of(operator), nic, pinned_address=wrong)

        assert answer.context["adminform"].form.errors
        assert "<script>alert(1)" not in answer.text
        assert address_of(nic)[0] is None

    def test_a_held_one_needs_the_box_ticked(self, nic, operator):
        beside(nic, "192.0.2.77", AddressState.CONFIRMED)
        client = client_of(operator)

        assert "is held by" in self.post(client, nic, pinned_address="192.0.2.77").text
        assert address_of(nic)[0] is None
        self.post(client, nic, pinned_address="192.0.2.77", although_held="on")
        assert address_of(nic)[0] == "192.0.2.77"

    def test_nothing_else_of_a_nic_is_changed(self, nic, operator):
        before = Nic.objects.values().get()
        self.post(client_of(operator), nic, mac_address="02:00:00:00:00:09", ip4_address="192.0.2.9", device_id="3")
        assert Nic.objects.values().get() == before

    def test_who_may_only_look_sets_none(self, nic):
        looker = make_root(is_superuser=False)
        looker.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
        assert self.post(client_of(looker), nic, pinned_address="192.0.2.77").status_code == 403
        assert address_of(nic)[0] is None
