"""VMs in the console: the list, a VM's page, what can be done in its state, and what nobody else sees."""

import base64
import re
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from configdrive.models import ConfigDrive
from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.events.models import Event, EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.console.vm_actions import FORMS
from networks.hypervisors.base import Busy
from networks.models import AddressState, Nic, SshKeyPair, VirtualMachine, VmState
from networks.services import guest_data, nics, vms
from tests import factories
from tests.console.worlds import client_of, make_event, make_root
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PASSWORD = "Vq7mZ2kT9xLw4RbN"
PASSWORD_PAGE = "Show the password"
USER_DATA = "#cloud-config\nruncmd: [echo ud-canary-81f3]\n"


def page_of(vm: VirtualMachine) -> str:
    return reverse("vm", args=[vm.uuid])


def owner_of(vm: VirtualMachine):
    return client_of(factories.make_user(vm.account))


def admin_of(vm: VirtualMachine):
    return client_of(factories.make_user(factories.make_account(Role.DOMAIN_ADMIN, vm.account.domain)))


def queries_of(client, path: str) -> int:
    with CaptureQueriesContext(connection) as seen:
        assert client.get(path).status_code == 200
    return len(seen)


@pytest.fixture
def root():
    return client_of(make_root())


@pytest.fixture
def cluster():
    cluster = factories.make_cluster()
    factories.make_host(cluster, name="kvm-1")
    return cluster


@pytest.fixture
def deployed(fake, caller, cluster) -> VirtualMachine:
    """Running; every kind of secret is on its drive."""
    template = factories.make_template(password_enabled=True, os_family="Windows")
    user_data = base64.b64encode(USER_DATA.encode()).decode()
    return deploy(caller, cluster, name="web", template=template, password=PASSWORD, user_data=user_data)


# The list


class TestList:
    def names(self, client, **query) -> list[str]:
        page = client.get(reverse("vms"), query)
        assert page.status_code == 200, page.text
        return re.findall(r'<td data-label="Name"[^>]*><a[^>]*>([^<]+)</a>', page.text)

    def test_a_user_sees_own_vms_only(self):
        vm, _ = factories.make_vm(name="mine"), factories.make_vm(name="theirs")

        assert self.names(owner_of(vm)) == ["mine"]

    def test_the_newest_stands_first_and_what_is_destroyed_is_left_out(self, root):
        for name, state in [("a", VmState.STOPPED), ("b", VmState.DESTROYED), ("c", VmState.ERROR)]:
            factories.make_vm(name=name, state=state)

        assert self.names(root) == ["c", "a"]
        assert self.names(root, state="all") == ["c", "b", "a"]
        assert self.names(root, state="Destroyed") == ["b"]

    def test_it_is_narrowed_by_what_it_is_and_where(self, root):
        vm, _ = factories.make_running_vm(name="here"), factories.make_running_vm()
        nic = vm.nics.get()
        for name, row in [
            *(("zone", vm.zone), ("host", vm.host), ("network", nic.network), ("template", vm.template)),
            *(("offering", vm.service_offering), ("account", vm.account)),
        ]:
            assert self.names(root, **{name: str(row.uuid)}) == ["here"], name

    @pytest.mark.parametrize("text", ["ER", "192.0.2.7", "06:00:00:00:00:07", "{uuid}", "{instance}"])
    def test_it_is_searched_by_name_address_and_id(self, root, text):
        vm, _ = factories.make_vm(name="here"), factories.make_vm(name="x")
        vm.nics.update(ip4_address="192.0.2.7", mac_address="06:00:00:00:00:07")

        assert self.names(root, text=text.format(uuid=vm.uuid, instance=vm.instance_name)) == ["here"]

    def test_a_host_is_no_filter_of_a_users(self):
        vm = factories.make_running_vm()

        assert owner_of(vm).get(reverse("vms"), {"host": str(vm.host.uuid)}).status_code == 400

    @pytest.mark.parametrize("network", ["x", "'", "0"])
    def test_a_filter_that_is_no_id_is_refused(self, root, network):
        factories.make_vm()

        assert root.get(reverse("vms"), {"network": network}).status_code == 400

    def test_where_no_address_is_there_is_a_word(self, root):
        factories.make_running_vm()
        Nic.objects.create(vm=factories.make_vm(), network=factories.make_network(), device_id=5)

        cells = re.findall(r'data-label="Addresses".*?</td>', root.get(reverse("vms")).text, re.DOTALL)

        assert all("chip" in cell for cell in cells)

    def test_a_job_says_how_far_it_is(self, root):
        vm = factories.make_vm()
        jobs.submit("startVirtualMachine", vm, account=vm.account, by=Caller.of(factories.make_user(vm.account)))
        AsyncJob.objects.update(progress="Choosing a host", progress_for_operator="among 3")

        assert "Choosing a host among 3" in root.get(reverse("vms")).text
        assert "Choosing a host</small>" in owner_of(vm).get(reverse("vms")).text

    def test_it_exports_what_it_shows(self, root):
        factories.make_vm(name="one")

        assert (
            b"".join(root.get(reverse("vms"), {"export": "csv"}).streaming_content).splitlines()[1].startswith(b"one,")
        )

    @pytest.mark.parametrize("role", Role)
    def test_its_queries_are_as_many_for_one_as_for_many(self, role):
        account = factories.make_account(role)
        client = client_of(factories.make_user(account))
        client.get(reverse("vms"))
        counts = []
        for number in (1, 20):
            for _ in range(number):
                factories.make_running_vm(account=account, networks=[factories.make_network()])
            counts.append(queries_of(client, reverse("vms")))

        assert counts[0] == counts[1]


# The page


class TestPage:
    @pytest.mark.parametrize("path", ["vm", "vm-checks", "vm-drive", "vm-password"])
    def test_anothers_vm_is_as_one_that_does_not_exist(self, path):
        client = client_of(factories.make_user())
        theirs = client.get(reverse(path, args=[factories.make_vm().uuid]))
        none = client.get(reverse(path, args=[uuid4()]))

        assert (theirs.status_code, theirs.content) == (none.status_code, none.content)
        assert theirs.status_code == 404

    @pytest.mark.parametrize("what", [*FORMS, "nothing"])
    def test_so_are_its_forms(self, what):
        client = client_of(factories.make_user())
        vm = factories.make_vm()

        assert client.get(reverse("vm-form", args=[vm.uuid, what])).status_code == 404
        assert client.post(reverse("vm-form", args=[vm.uuid, what])).status_code == 404
        assert not AsyncJob.objects.exists()

    def test_who_looks_at_one_that_is_expunged_is_told_by_the_whole_page(self, root):
        answer = root.get(f"{reverse('vm', args=[uuid4()])}?fragment=all", headers={"HX-Request": "true"})

        assert (answer.status_code, answer["HX-Refresh"]) == (404, "true")

    @pytest.mark.parametrize("state", VmState.values)
    def test_every_state_has_a_page_that_says_what_it_means(self, root, state):
        running = {"host": factories.make_host()} if state in ("Running", "Migrating") else {}
        vm = factories.make_vm(state=state, **running)

        for client in (root, owner_of(vm)):
            page = client.get(page_of(vm))
            assert page.status_code == 200
            assert re.search(r'<p class="meaning">\w[^<]+\.</p>', page.text)

    def test_hosts_are_for_root_admins(self, deployed, root):
        assert "kvm-1" in root.get(page_of(deployed)).text
        for client in (owner_of(deployed), admin_of(deployed)):
            assert "kvm-1" not in client.get(page_of(deployed)).text

    def test_its_fragment_is_its_content_alone(self, deployed, root):
        answer = root.get(page_of(deployed) + "?fragment=all").text

        assert answer.lstrip().startswith('<div id="vm"')
        assert "<html" not in answer

    def test_its_queries_are_as_many_for_one_nic_as_for_many(self, root):
        vm = factories.make_running_vm()
        counts = []
        for number in (0, 6):
            for device in range(number):
                Nic.objects.create(vm=vm, network=factories.make_network(vm.zone), device_id=device + 1)
                make_event(vm.account, on=vm)
            root.get(page_of(vm))
            counts.append(queries_of(root, page_of(vm)))

        assert counts[0] == counts[1]

    def test_no_password_stands_anywhere_in_it(self, deployed, root):
        for client in (root, owner_of(deployed), admin_of(deployed)):
            assert PASSWORD not in client.get(page_of(deployed)).text

    def test_user_data_is_shown_to_the_account_that_owns_the_vm(self, deployed, root):
        assert "ud-canary-81f3" in owner_of(deployed).get(page_of(deployed)).text
        for client in (root, admin_of(deployed)):
            assert "ud-canary-81f3" not in client.get(page_of(deployed)).text

    def test_hostile_words_are_escaped(self, root):
        evil = "<script>alert(1)</script>"
        vm = factories.make_vm(error_text=evil, display_name=evil, group_name=evil)
        vm.user_data = base64.b64encode(evil.encode()).decode()
        vm.save()
        for client in (root, owner_of(vm)):
            assert evil not in client.get(page_of(vm)).text


# What can be done


def buttons(page: str) -> set[str]:
    """The commands behind the page's buttons, except for what was read or put away."""
    return set(re.findall(r'action="/do/(\w+)"', page))


def links(page: str) -> set[str]:
    return set(re.findall(r"/vms/[0-9a-f-]+/do/([\w-]+)/", page))


class TestActions:
    @pytest.mark.parametrize(
        ("state", "for_owner", "more_for_root"),
        [
            (
                VmState.RUNNING,
                {"stopVirtualMachine", "rebootVirtualMachine", "restoreVirtualMachine", "destroyVirtualMachine"},
                set(),
            ),
            (VmState.STOPPED, {"startVirtualMachine", "restoreVirtualMachine", "destroyVirtualMachine"}, set()),
            (VmState.ERROR, {"destroyVirtualMachine"}, set()),
            (VmState.DESTROYED, {"recoverVirtualMachine"}, {"expungeVirtualMachine"}),
            (VmState.EXPUNGING, set(), {"expungeVirtualMachine"}),
            (VmState.STARTING, set(), set()),
            (VmState.STOPPING, set(), set()),
            (VmState.MIGRATING, set(), set()),
        ],
    )
    def test_a_state_has_its_buttons(self, root, state, for_owner, more_for_root):
        running = {"host": factories.make_host()} if state in ("Running", "Migrating") else {}
        vm = factories.make_vm(state=state, **running)

        assert buttons(owner_of(vm).get(page_of(vm)).text) == for_owner
        assert buttons(root.get(page_of(vm)).text) == for_owner | more_for_root

    def test_a_state_has_its_forms(self, root):
        vm = factories.make_vm(template=factories.make_template(password_enabled=True))
        owners = {"password", "keys", "user-data", "nic", "names", "size"}
        assert links(owner_of(vm).get(page_of(vm)).text) == owners
        assert links(root.get(page_of(vm)).text) == owners - {"user-data"} | {"start"}

    def test_only_root_admins_migrate(self, root):
        vm = factories.make_running_vm()

        assert "migrate" in links(root.get(page_of(vm)).text)
        assert "migrate" not in links(owner_of(vm).get(page_of(vm)).text)
        assert owner_of(vm).get(reverse("vm-form", args=[vm.uuid, "migrate"])).status_code == 404

    def test_a_template_that_sets_no_passwords_has_no_reset(self):
        vm = factories.make_vm(template=factories.make_template(password_enabled=False))

        assert "password" not in links(owner_of(vm).get(page_of(vm)).text)

    def test_while_a_job_works_on_it_there_is_its_progress_and_no_button(self, fake, caller, cluster):
        vm = deploy(caller, cluster)
        job = vms.reboot(vm, caller)
        AsyncJob.objects.update(progress="Rebooting")
        page = client_of(caller.user).get(page_of(vm)).text

        assert buttons(page) == set()
        assert links(page) == set()
        assert f"/jobs/{job.uuid}/" in page
        assert "Rebooting" in page

    def test_the_systems_own_job_is_in_nobodys_way(self, fake, caller, cluster):
        vm = deploy(caller, cluster)
        guest_data.refresh(vm, by=None)

        assert "stopVirtualMachine" in buttons(client_of(caller.user).get(page_of(vm)).text)

    def test_what_destroys_names_the_vm_the_host_and_the_consequence(self, deployed, root):
        asked = re.findall(r'class="sure".*?<p>(.*?)</p>', root.get(page_of(deployed)).text, re.DOTALL)

        destroying = [text for text in asked if text.startswith("Destroy web?")]
        assert "Its config drive will be erased from kvm-1." in destroying[0]
        assert "Its config drive will be erased from its host." in owner_of(deployed).get(page_of(deployed)).text

    def test_a_button_does_what_it_says(self, deployed, caller):
        client = client_of(caller.user)
        form = re.search(
            r'<form method="post" action="(/do/stopVirtualMachine)">(.*?)</form>',
            client.get(page_of(deployed)).text,
            re.DOTALL,
        )
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', form[2]))

        page = client.post(form[1], hidden, follow=True)

        assert page.redirect_chain == [(page_of(deployed), 302)]
        assert "Follow its job" in page.text
        assert run(AsyncJob.objects.get(command="stopVirtualMachine")).status == Status.SUCCEEDED

    def test_a_nic_that_is_not_the_default_one_can_go(self, deployed, caller, cluster):
        nic = add_nic(deployed, caller, cluster)

        page = client_of(caller.user).get(page_of(deployed)).text

        assert {"removeNicFromVirtualMachine", "updateDefaultNicForVirtualMachine"} <= buttons(page)
        assert f"Remove the NIC {nic.mac_address}" in page


def add_nic(vm: VirtualMachine, caller: Caller, cluster) -> Nic:
    network = factories.make_network(cluster.pod.zone)
    run(nics.add_nic(vm, network, caller))
    return vm.nics.get(network=network)


class TestFailure:
    @pytest.fixture
    def failed(self, fake, caller, cluster) -> VirtualMachine:
        vm = deploy(caller, cluster)
        fake.failing["reboot"] = Busy("The guest says <no>.")
        run(vms.reboot(vm, caller))
        return vm

    def test_a_job_that_failed_stays_on_the_page(self, failed, caller):
        page = client_of(caller.user).get(page_of(failed)).text

        assert 'id="failure"' in page
        assert "rebootVirtualMachine failed" in page

    def test_until_somebody_has_seen_it(self, failed, caller):
        client = client_of(caller.user)
        event = Event.objects.get(level="ERROR", state="Completed")
        client.post("/do/archiveEvents", {"ids": str(event.uuid), "_then": page_of(failed)})

        assert 'id="failure"' not in client.get(page_of(failed)).text

    def test_or_it_went_well(self, failed, caller, fake):
        fake.failing.clear()
        run(vms.reboot(failed, caller))

        assert 'id="failure"' not in client_of(caller.user).get(page_of(failed)).text


# Forms


def send(client, vm: VirtualMachine, what: str, **fields):
    return client.post(reverse("vm-form", args=[vm.uuid, what]), fields, follow=True)


class TestForms:
    @pytest.fixture
    def client(self, caller):
        return client_of(caller.user)

    @pytest.mark.parametrize("what", FORMS)
    def test_each_opens_in_its_states(self, root, what):
        wanted = FORMS[what]
        for state in VmState:
            running = {"host": factories.make_host()} if state in ("Running", "Migrating") else {}
            vm = factories.make_vm(state=state, template=factories.make_template(password_enabled=True), **running)
            answer = root.get(reverse("vm-form", args=[vm.uuid, what]))
            assert answer.status_code == (200 if state in wanted.states else 302), state

    def test_a_password_is_reset_and_read_once_from_the_page(self, client, deployed):
        page = send(client, deployed, "password", password="An0therOne")
        assert "Follow its job" in page.text
        assert "An0therOne" not in page.text
        run(AsyncJob.objects.get(command="resetPasswordForVirtualMachine"))

        page = client.get(page_of(deployed)).text
        assert "An0therOne" not in page
        assert PASSWORD_PAGE in page
        assert "An0therOne" in client.post(reverse("vm-password", args=[deployed.uuid])).text

    def test_the_password_of_before_is_not_offered_while_another_is_being_set(self, client, deployed):
        assert PASSWORD_PAGE in client.get(page_of(deployed)).text

        send(client, deployed, "password")

        assert PASSWORD_PAGE not in client.get(page_of(deployed)).text
        assert client.post(reverse("vm-password", args=[deployed.uuid])).status_code == 302

    def test_a_password_is_for_whoever_asked_for_it(self, deployed, root):
        for other in (root, owner_of(deployed), admin_of(deployed)):
            assert PASSWORD_PAGE not in other.get(page_of(deployed)).text
            answer = other.post(reverse("vm-password", args=[deployed.uuid]), follow=True)
            assert PASSWORD not in answer.text

    def test_one_that_is_forgotten_is_offered_no_more(self, client, deployed):
        AsyncJob.objects.update(secret=None)

        assert PASSWORD_PAGE not in client.get(page_of(deployed)).text

    def test_keys_are_replaced(self, client, caller, deployed):
        SshKeyPair.objects.create(
            account=caller.account, name="laptop", public_key="ssh-ed25519 AAAA", fingerprint="00"
        )

        send(client, deployed, "keys", keypairs=["laptop"])

        assert [key["name"] for key in VirtualMachine.objects.get().ssh_keys] == ["laptop"]

    def test_user_data_is_typed_as_text(self, client, deployed):
        send(client, deployed, "user-data", userdata="#!/bin/sh\r\necho é\r\n")

        assert VirtualMachine.objects.get().user_data_bytes == "#!/bin/sh\necho é\n".encode()

    def test_user_data_that_may_be_wrong_is_seen_before_it_is_sent(self, client, deployed):
        wrong = {"userdata": "packages: [nginx]\n"}
        page = send(client, deployed, "user-data", **wrong)
        assert "cloud-init will ignore all of it" in page.text
        assert VirtualMachine.objects.get().user_data_bytes == USER_DATA.encode()

        send(client, deployed, "user-data", **wrong, _although="1")
        assert VirtualMachine.objects.get().user_data_bytes == b"packages: [nginx]\n"

    def test_another_accounts_user_data_is_not_in_the_form(self, root, deployed):
        assert "ud-canary-81f3" not in root.get(reverse("vm-form", args=[deployed.uuid, "user-data"])).text

    def test_a_nic_is_added_on_a_network_that_it_is_not_on(self, client, caller, deployed, cluster):
        network = factories.make_network(cluster.pod.zone, name="second")
        page = client.get(reverse("vm-form", args=[deployed.uuid, "nic"])).text
        assert re.findall(r'<option value="([0-9a-f-]+)"', page) == [str(network.uuid)]

        send(client, deployed, "nic", networkid=str(network.uuid))

        assert AsyncJob.objects.get(command="addNicToVirtualMachine").busy_with == deployed.uuid

    def test_it_migrates_to_a_host_of_its_cluster(self, root, deployed, cluster):
        host = factories.make_host(cluster, name="kvm-2")
        factories.make_host(name="elsewhere")
        page = root.get(reverse("vm-form", args=[deployed.uuid, "migrate"])).text
        assert re.findall(r'<option value="([0-9a-f-]+)"', page) == [str(host.uuid)]

        send(root, deployed, "migrate", hostid=str(host.uuid))

        assert AsyncJob.objects.get(command="migrateVirtualMachine").arguments == {"host": host.pk}

    def test_names_are_changed(self, client, deployed):
        send(client, deployed, "names", displayname="The shop", group="web", configdrive="FirstBoot")

        vm = VirtualMachine.objects.get()
        assert (vm.display_name, vm.group_name, vm.drive_use) == ("The shop", "web", "FirstBoot")

    def test_what_is_refused_is_said_beside_the_form(self, client, deployed):
        page = send(client, deployed, "password", password="saved_password")

        assert "guests give" in page.text
        assert not AsyncJob.objects.filter(command="resetPasswordForVirtualMachine").exists()

    def test_a_form_whose_time_has_passed_leads_back(self, root, caller, deployed):
        run(vms.stop(deployed, caller))

        page = send(root, deployed, "migrate")

        assert "web is Stopped: that is not possible now." in page.text


# Troubleshooting


def test_troubleshooting_is_asked_for_on_demand(deployed, root, fake):
    before = list(fake.calls)
    assert 'id="checks"' in root.get(page_of(deployed)).text
    assert fake.calls == before

    fragment = root.get(reverse("vm-checks", args=[deployed.uuid]), headers={"HX-Request": "true"}).text

    assert fake.calls != before
    assert fragment.lstrip().startswith("<section")
    assert 'data-label="Check"' in fragment


def test_troubleshooting_names_hosts_to_root_admins_only(deployed, fake):
    assert "kvm-1" not in owner_of(deployed).get(reverse("vm-checks", args=[deployed.uuid])).text


# The config drive


class TestDrive:
    def test_its_tree_is_masked(self, deployed, root):
        for client in (root, owner_of(deployed)):
            page = client.get(page_of(deployed)).text
            tree = page[page.index('id="drive-tree"') :]
            tree = tree[: tree.index("</table>")]
            assert 'title="cloudstack/metadata/local_hostname.txt"' in tree
            assert "(not shown)" in tree
            assert PASSWORD not in page
            assert "ud-canary-81f3" not in tree

    def test_it_says_what_changed_since_it_was_delivered(self, deployed, caller):
        client = client_of(caller.user)
        assert "Other than delivered" not in client.get(page_of(deployed)).text

        guest_data.reset_user_data(deployed, caller, base64.b64encode(b"new").decode())

        page = client.get(page_of(deployed)).text
        assert "Other than delivered" in page
        assert re.search(r'class="changes">.*web: user data replaced', page, re.DOTALL)

    def test_user_data_is_revealed_and_an_event_says_so(self, deployed, caller):
        client = client_of(caller.user)

        page = client.post(reverse("vm-drive", args=[deployed.uuid]))

        assert "ud-canary-81f3" in page.text
        assert PASSWORD not in page.text
        event = Event.objects.get(type=EventType.VM_CONFIGDRIVE)
        assert (event.username, event.resource_uuid) == (caller.user.username, deployed.uuid)
        assert "revealed" in event.description

    def test_a_link_reveals_nothing(self, deployed, caller):
        assert client_of(caller.user).get(reverse("vm-drive", args=[deployed.uuid])).status_code == 302
        assert not Event.objects.filter(type=EventType.VM_CONFIGDRIVE).exists()

    def test_of_other_accounts_it_takes_a_permission(self, deployed):
        admin = client_of(make_root(is_superuser=False))
        assert "Reveal…" not in admin.get(page_of(deployed)).text

        page = admin.post(reverse("vm-drive", args=[deployed.uuid]), follow=True)

        assert "You lack the permission" in page.text
        assert "ud-canary-81f3" not in page.text
        assert not Event.objects.filter(type=EventType.VM_CONFIGDRIVE).exists()

    def test_anothers_is_as_one_that_does_not_exist(self, deployed):
        assert client_of(factories.make_user()).post(reverse("vm-drive", args=[deployed.uuid])).status_code == 404

    def test_root_admins_rebuild_verify_and_eject(self, deployed, root):
        for command in ("rebuildConfigDrive", "verifyConfigDrive", "ejectConfigDrive"):
            assert command in buttons(root.get(page_of(deployed)).text)
            root.post(f"/do/{command}", {"virtualmachineid": str(deployed.uuid)})
            job = AsyncJob.objects.latest("pk")
            assert run(job).status == Status.SUCCEEDED
        assert ConfigDrive.objects.get().name == ""
        assert "Ejected" in root.get(page_of(deployed)).text

    def test_users_have_none_of_these(self, deployed):
        assert not {"rebuildConfigDrive", "ejectConfigDrive"} & buttons(owner_of(deployed).get(page_of(deployed)).text)


def test_an_address_stands_with_what_is_known_of_it(deployed, root):
    deployed.nics.update(ip4_address="192.0.2.55", address_state=AddressState.LAST_KNOWN)

    page = root.get(page_of(deployed)).text

    assert "<code>192.0.2.55</code>" in page
    assert re.search(r'192\.0\.2\.55</code></a> <span class="chip', page)
