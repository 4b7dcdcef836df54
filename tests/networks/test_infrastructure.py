"""Lists of what a cloud admin owns: each filter filters, and end users see none of it."""

from types import SimpleNamespace

import pytest

from networks.models import PrimaryStorage
from tests.api.client import Signer
from tests.factories import make_account, make_cluster, make_host, make_running_vm, make_vm, make_zone

pytestmark = pytest.mark.django_db


@pytest.fixture
def user() -> Signer:
    return Signer.of(make_account())


LISTS = {
    "listZones": ("zone", "zone"),
    "listPods": ("pod", "pod"),
    "listClusters": ("cluster", "cluster"),
    "listHosts": ("host", "host"),
    "listStoragePools": ("storagepool", "pool"),
}


def place(number: int) -> SimpleNamespace:
    """A zone with one of each; all of them have the number in their name."""
    zone = make_zone(name=f"zone-{number}")
    cluster = make_cluster(zone)
    pod = cluster.pod
    pod.name, cluster.name = f"pod-{number}", f"cluster-{number}"
    pod.save()
    cluster.save()
    pool = cluster.storage.get()
    PrimaryStorage.objects.filter(pk=pool.pk).update(name=f"pool-{number}")
    return SimpleNamespace(
        zone=zone, pod=pod, cluster=cluster, pool=pool, host=make_host(cluster, name=f"host-{number}")
    )


@pytest.fixture
def here() -> SimpleNamespace:
    place(2)
    return place(1)


def ids(signer: Signer, command: str, **params: object) -> list[str]:
    reply = signer.call(command, **params)
    assert reply.status == 200, reply
    return [row["id"] for row in reply.body.get(LISTS[command][0], [])]


@pytest.mark.parametrize("command", LISTS)
class TestEachList:
    @pytest.fixture
    def wanted(self, here, command) -> str:
        return str(getattr(here, LISTS[command][1]).uuid)

    def test_finds_by_id(self, root, command, wanted):
        assert ids(root, command, id=wanted) == [wanted]

    def test_finds_by_the_whole_name(self, root, command, wanted):
        kind = LISTS[command][1]
        assert ids(root, command, name=f"{kind}-1") == [wanted]
        assert ids(root, command, name=kind) == []

    def test_finds_by_part_of_the_name(self, root, command, wanted):
        kind = LISTS[command][1]
        assert ids(root, command, keyword=f"{kind}-1".upper()) == [wanted]
        assert len(ids(root, command, keyword=kind)) == 2

    def test_is_paged(self, root, command, wanted):
        body = root.call(command, page=1, pagesize=1).body
        assert (body["count"], [row["id"] for row in body[LISTS[command][0]]]) == (2, [wanted])

    def test_finds_by_what_it_is_in(self, root, here, command, wanted):
        # A list ignores the levels below its own.
        for level in list(LISTS.values())[: list(LISTS).index(command)]:
            if level[1] in ("zone", "pod", "cluster") and level[1] != LISTS[command][1]:
                assert ids(root, command, **{f"{level[1]}id": getattr(here, level[1]).uuid}) == [wanted]


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("listZones", {"networktype": "Basic"}),
        ("listPods", {"allocationstate": "Disabled"}),
        ("listClusters", {"allocationstate": "Disabled"}),
        ("listClusters", {"managedstate": "Unmanaged"}),
        ("listClusters", {"hypervisor": "VMware"}),
        ("listHosts", {"type": "SecondaryStorage"}),
        ("listHosts", {"state": "Down"}),
        ("listStoragePools", {"scope": "HOST"}),
        ("listStoragePools", {"scope": "zone"}),
    ],
)
def test_what_there_is_none_of_is_not_found(root, here, command, asked):
    assert ids(root, command) != []
    assert ids(root, command, **asked) == []


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("listZones", {"networktype": "advanced"}),
        ("listHosts", {"type": "routing", "state": "Up", "resourcestate": "Enabled"}),
        ("listStoragePools", {"scope": "cluster"}),
        ("listClusters", {"hypervisor": "kvm"}),
    ],
)
def test_words_are_taken_in_any_case(root, here, command, asked):
    assert len(ids(root, command, **asked)) == 2


@pytest.mark.parametrize("command", ["listPods", "listClusters", "listHosts", "listStoragePools"])
def test_an_end_user_is_not_shown_the_infrastructure(user, here, command):
    assert user.call(command).status == 432


def test_the_hosts_that_a_vm_could_migrate_to(root):
    cluster = make_cluster()
    vm = make_running_vm(host=make_host(cluster))
    other = make_host(cluster)
    make_host(cluster, state="Down")
    make_host(cluster, resource_state="Disabled")
    make_host(make_cluster(vm.zone))
    assert ids(root, "listHosts", virtualmachineid=vm.uuid) == [str(other.uuid)]
    assert ids(root, "listHosts", virtualmachineid=make_vm().uuid) == []


class TestHypervisors:
    def names(self, signer: Signer, **params: object) -> list[str]:
        return [row["name"] for row in signer.call("listHypervisors", **params).body.get("hypervisor", [])]

    def test_each_is_named_once(self, user, here):
        assert self.names(user) == ["KVM"]

    def test_a_zone_without_clusters_has_none(self, user, here):
        assert self.names(user, zoneid=make_zone().uuid) == []

    def test_those_of_a_zone_that_one_does_not_see_are_not_told(self, user):
        make_cluster(make_zone(allocation_state="Disabled"))
        assert self.names(user) == []
