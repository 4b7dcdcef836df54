"""What a person or a script gets from manage.py: results on stdout, progress on stderr, a status that tells."""

import io
import json
import socket
import stat
from datetime import timedelta
from unittest import mock

import pycdlib
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from configdrive.guest_scripts import STATUS_FILE
from extdhcp_site.accounts.models import ApiKey, Role, hash_token
from extdhcp_site.events.models import Event, EventType
from networks.hypervisors.base import (
    CredentialsRefused,
    EndpointUnreachable,
    NetworkMissing,
)
from networks.models import Endpoint, Host, Nic, PrimaryStorage, VirtualMachine
from tests.api.client import Signer
from tests.factories import (
    make_account,
    make_caller,
    make_cluster,
    make_endpoint,
    make_host,
    make_network,
    make_running_vm,
    make_template,
    make_user,
    make_vm,
    make_zone,
)
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy

pytestmark = pytest.mark.django_db


class TestListVms:
    def test_json_is_what_the_api_shows_a_root_admin(self, manage):
        vms = [make_vm(name="web"), make_running_vm(name="db")]
        root = Signer.of(make_account(Role.ROOT_ADMIN))

        ran = manage("list_vms", "--json")

        api = {vm["id"]: vm for vm in root.call("listVirtualMachines", listall="true").body["virtualmachine"]}
        assert ran.status == 0
        assert {vm["id"]: vm for vm in ran.json} == api
        assert set(api) == {str(vm.uuid) for vm in vms}

    def test_json_of_no_vms_is_an_empty_array(self, manage):
        assert manage("list_vms", "--json").json == []

    def test_a_table_for_people(self, manage):
        make_running_vm(name="web")

        ran = manage("list_vms")

        assert ran.status == 0
        assert "web" in ran.out
        assert "Running" in ran.out
        with pytest.raises(ValueError, match="Expecting value"):
            _ = ran.json

    def test_no_secret_is_listed(self, manage):
        make_vm(password="Sesame7", user_data="U2VzYW1lNw==")

        for words in (["list_vms"], ["list_vms", "--json"]):
            assert "Sesame7" not in manage(*words).out
            assert "U2VzYW1lNw" not in manage(*words).out

    def test_the_number_of_queries_does_not_grow(self, manage, django_assert_max_num_queries):
        for _ in range(5):
            make_vm()

        with django_assert_max_num_queries(6):
            manage("list_vms", "--json")


class TestListNics:
    def test_json_is_an_array_of_the_apis_nics(self, manage):
        vm = make_running_vm()
        Nic.objects.update(ip4_address="192.0.2.7", address_state="confirmed", address_source="agent")
        root = Signer.of(make_account(Role.ROOT_ADMIN))

        ran = manage("list_nics", "--json")

        assert ran.json == root.call("listNics", virtualmachineid=vm.uuid).body["nic"]
        assert [nic["ipaddress"] for nic in ran.json] == ["192.0.2.7"]

    def test_an_address_not_learned_is_absent(self, manage):
        make_running_vm()

        assert "ipaddress" not in manage("list_nics", "--json").json[0]

    def test_a_table_for_people(self, manage):
        nic = make_running_vm().nics.get()

        ran = manage("list_nics")

        assert (ran.status, nic.mac_address[:8] in ran.out) == (0, True)

    def test_the_number_of_queries_does_not_grow(self, manage, django_assert_max_num_queries):
        for _ in range(5):
            make_vm()

        with django_assert_max_num_queries(6):
            manage("list_nics", "--json")


class TestCheckEndpoint:
    @pytest.fixture
    def fake(self):
        fake = FakeHypervisor()
        with mock.patch("networks.services.places.driver", return_value=fake):
            yield fake

    def test_one_that_can_be_used(self, manage, fake):
        cluster = make_cluster()
        make_host(cluster, name="kvm-1", endpoint=make_endpoint(name="h1"))
        make_network(cluster.pod.zone, name="office")

        ran = manage("check_endpoint", "h1", "--json")

        assert ran.status == 0
        assert {"connection", "size", "inventory", "config drives on kvm-1", "network office on kvm-1"} <= {
            check["name"] for check in ran.json
        }
        assert all(check["passed"] for check in ran.json)
        assert all(set(check) == {"name", "passed", "text"} for check in ran.json)
        assert (Endpoint.objects.get().last_error, Endpoint.objects.get().last_ok_at is None) == ("", False)

    def test_a_missing_bridge_is_named_and_the_status_is_1(self, manage, fake):
        cluster = make_cluster()
        make_host(cluster, name="kvm-1", endpoint=make_endpoint(name="h1"))
        make_network(cluster.pod.zone, name="office")
        fake.failing["has_network"] = NetworkMissing("Bridge cloudbr7 is missing.")

        ran = manage("check_endpoint", "h1")

        assert ran.status == 1
        assert "FAILED  network office on kvm-1: Bridge cloudbr7 is missing." in ran.out
        # It answers: what is wrong with one network is no outage.
        assert (Endpoint.objects.get().last_error, Host.objects.get().state) == ("", "Up")

    def test_a_connection_that_fails_is_an_outage(self, manage, fake):
        make_host(name="kvm-1", endpoint=make_endpoint(name="h1"))
        fake.failing["host_facts"] = EndpointUnreachable("It does not answer.")

        manage("check_endpoint", "h1")

        assert (Endpoint.objects.get().last_error, Host.objects.get().state) == ("It does not answer.", "Down")

    @pytest.mark.parametrize(
        ("told", "seen", "text"),
        [
            (True, True, "further hosts see it"),
            (True, False, "It is shared here, and this host alone sees it: clear its field 'shared' in the admin."),
            (False, True, "It is not shared here, and further hosts see it: set its field 'shared' in the admin."),
        ],
    )
    def test_storage_that_is_told_otherwise_than_the_hypervisor_does(self, manage, fake, told, seen, text):
        cluster = make_cluster()
        make_host(cluster, name="kvm-1", endpoint=make_endpoint(name="h1"))
        PrimaryStorage.objects.update(shared=told)
        with mock.patch.object(FakeHypervisor, "is_shared", return_value=seen, create=True):
            checks = manage("check_endpoint", "h1", "--json").json

        found = next(check for check in checks if check["name"] == "storage default-pool on kvm-1")
        assert (found["passed"], found["text"]) == (told == seen, text)

    def test_a_network_that_would_be_made_is_not(self, manage, fake):
        cluster = make_cluster()
        make_host(cluster, name="xen-1", endpoint=make_endpoint(name="h1", kind="XenServer"))
        make_network(cluster.pod.zone, name="office", vlan=7)

        with mock.patch.object(FakeHypervisor, "has_network", return_value=False):
            checks = manage("check_endpoint", "h1", "--json").json

        assert "ensure_network" not in fake.calls
        found = next(check for check in checks if check["name"] == "network office on xen-1")
        assert (found["passed"], found["text"]) == (True, "cloudbr7 is made when a VM first needs it")

    def test_refused_credentials_come_with_advice(self, manage, fake):
        make_endpoint(name="h1")
        fake.failing["host_facts"] = CredentialsRefused("The host refuses the user or the password.")

        ran = manage("check_endpoint", "h1", "--json")

        assert (ran.status, [check["name"] for check in ran.json]) == (1, ["connection"])
        assert "Set the endpoint's user and password" in ran.json[0]["text"]

    def test_an_unknown_name_is_told_with_those_that_there_are(self, manage):
        make_endpoint(name="h1")
        make_endpoint(name="h2")

        ran = manage("check_endpoint", "h3")

        assert (ran.status, ran.out) == (1, "")
        assert ran.err == "There is no endpoint h3. There are: h1, h2.\n"

    def test_an_unknown_name_when_there_are_none(self, manage):
        assert "There are: none yet." in manage("check_endpoint", "h3").err

    def test_a_refused_connection_gives_status_1_and_advice(self, manage):
        """The real driver, at a port where nobody listens, and nobody can begin to."""
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            make_endpoint(name="h1", transport="tcp", host="127.0.0.1", port=holder.getsockname()[1])

            ran = manage("check_endpoint", "h1")

        assert ran.status == 1
        assert ran.out.startswith("FAILED  connection: ")
        assert "Check that libvirtd listens there, the firewall" in ran.out
        assert Endpoint.objects.get().last_error


class TestBuildConfigdrive:
    @pytest.fixture
    def vm(self):
        return make_vm(name="web", password="Sesame7", template=make_template(password_enabled=True))

    def test_the_file_is_its_owners_alone(self, manage, vm, tmp_path):
        output = tmp_path / "drive.iso"

        ran = manage("build_configdrive", "web", "--output", output)

        assert (ran.status, ran.out) == (0, f"{output}\n")
        assert stat.S_IMODE(output.stat().st_mode) == 0o600

    def test_it_holds_the_drive(self, manage, vm, tmp_path):
        output = tmp_path / "drive.iso"
        manage("build_configdrive", "web", "--output", output)

        image, password = pycdlib.PyCdlib(), io.BytesIO()
        image.open(str(output))
        image.get_file_from_iso_fp(password, rr_path="/cloudstack/password/vm_password.txt")
        image.close()

        assert password.getvalue() == b"Sesame7"

    def test_json_names_what_is_in_it_without_showing_it(self, manage, vm, tmp_path):
        output = tmp_path / "drive.iso"

        ran = manage("build_configdrive", "web", "--output", output, "--json")

        assert ran.json["virtualmachine"] == str(vm.uuid)
        assert (ran.json["file"], ran.json["size"]) == (str(output), output.stat().st_size)
        assert ran.json["label"] == "config"
        assert ran.json["files"]["cloudstack/password/vm_password.txt"] == len("Sesame7")
        assert "Sesame7" not in ran.out + ran.err

    def test_a_listing_for_people_does_not_show_it_either(self, manage, vm, tmp_path):
        ran = manage("build_configdrive", "web", "--output", tmp_path / "drive.iso")

        assert "cloudstack/password/vm_password.txt" in ran.err
        assert "Sesame7" not in ran.out + ran.err

    def test_what_stands_there_is_not_overwritten(self, manage, vm, tmp_path):
        output = tmp_path / "drive.iso"
        output.write_bytes(b"precious")

        ran = manage("build_configdrive", "web", "--output", output)

        assert (ran.status, ran.out, output.read_bytes()) == (1, "", b"precious")
        assert f"{output} exists. Remove it, or name another file with --output." in ran.err

    def test_it_does_not_write_through_a_link(self, manage, vm, tmp_path):
        (tmp_path / "drive.iso").symlink_to(tmp_path / "elsewhere")

        assert manage("build_configdrive", "web", "--output", tmp_path / "drive.iso").status == 1
        assert not (tmp_path / "elsewhere").exists()

    def test_a_directory_that_is_not_there(self, manage, vm, tmp_path):
        ran = manage("build_configdrive", "web", "--output", tmp_path / "none" / "drive.iso")

        assert (ran.status, "cannot be written: No such file or directory." in ran.err) == (1, True)

    def test_by_uuid_and_instance_name_under_its_default_name(self, manage, vm, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        by_uuid = manage("build_configdrive", vm.uuid, "--output", "one.iso")
        by_instance_name = manage("build_configdrive", vm.instance_name)

        assert (by_uuid.status, by_instance_name.out) == (0, f"{vm.instance_name}.iso\n")
        assert (tmp_path / f"{vm.instance_name}.iso").read_bytes()[:1] == b"\0"

    @pytest.mark.parametrize("name", ["nosuch", "i-1-999999-VM", "5bd25f0a-0c5e-4bff-9a43-5b8f2b0b1a11", "", "%"])
    def test_an_unknown_vm(self, manage, vm, tmp_path, name):
        ran = manage("build_configdrive", name, "--output", tmp_path / "drive.iso")

        assert (ran.status, ran.out, list(tmp_path.iterdir())) == (1, "", [])
        assert ran.err == f"There is no VM {name}. list_vms shows all.\n"

    def test_a_name_that_two_accounts_use(self, manage, vm, tmp_path):
        make_vm(name="web")

        ran = manage("build_configdrive", "web", "--output", tmp_path / "drive.iso")

        assert (ran.status, list(tmp_path.iterdir())) == (1, [])
        assert "Several accounts have a VM named web. Give its uuid" in ran.err

    def test_no_host_is_touched(self, manage, tmp_path):
        make_running_vm(name="db")
        with hypervisors(fake := FakeHypervisor()):
            manage("build_configdrive", "db", "--output", tmp_path / "drive.iso")

        assert fake.calls == []


class TestTroubleshoot:
    @pytest.fixture
    def fake(self):
        fake = FakeHypervisor()
        with hypervisors(fake):
            yield fake

    @pytest.fixture
    def vm(self, fake):
        """Running, its drive in order, and its guest seen."""
        cluster = make_cluster()
        make_host(cluster)
        template = make_template(password_enabled=True, drive_reader="scripts")
        vm = deploy(make_caller(), cluster, name="web", template=template)
        fake.reads[str(vm.uuid)] = 10**6
        Nic.objects.update(ip4_address="192.0.2.7", address_state="confirmed")
        VirtualMachine.objects.update(guest_seen_at=timezone.now() + timedelta(minutes=1))
        return vm

    def test_status_0_when_nothing_is_wrong(self, manage, vm):
        run = manage("troubleshoot", "web")
        assert (run.status, run.err) == (0, "")
        assert "FAILED" not in run.out
        for line in ("state: Running", "host: ", "power: ", "guest: last seen", "drive: generation 1", "label: config"):
            assert f"ok      {line}" in run.out

    def test_status_1_when_something_is_and_it_says_what_to_do(self, manage, vm, fake):
        fake.media.clear()
        run = manage("troubleshoot", "web")
        assert run.status == 1
        (line,) = [line for line in run.out.splitlines() if line.startswith("FAILED")]
        assert "deleted on its host. Verify it in the admin" in line

    def test_json_is_an_array_of_checks(self, manage, vm, fake):
        fake.media.clear()
        run = manage("troubleshoot", "web", "--json")
        assert run.status == 1
        assert {tuple(check) for check in run.json} == {("name", "passed", "text")}
        assert [check["name"] for check in run.json if check["passed"] is False] == ["drive"]
        assert {check["passed"] for check in run.json} == {True, False, None}

    @pytest.mark.parametrize("spelling", ["name", "uuid", "instance_name"])
    def test_a_vm_by_each_of_its_names(self, manage, vm, spelling):
        assert manage("troubleshoot", getattr(vm, spelling)).out == manage("troubleshoot", "web").out

    @pytest.mark.parametrize("spell", [str, str.upper, lambda text: text.replace(":", "-")])
    def test_a_nic_by_its_mac_address(self, manage, vm, spell):
        make_running_vm(name="other")
        mac = vm.nics.get().mac_address
        assert f"address of {mac}: 192.0.2.7" in manage("troubleshoot", spell(mac)).out

    def test_a_nic_by_its_uuid(self, manage, vm):
        mac = vm.nics.get().mac_address
        assert manage("troubleshoot", vm.nics.get().uuid).out == manage("troubleshoot", mac).out

    @pytest.mark.parametrize(
        "name", ["nobody", "i-1-999-VM", "7f4d2a0e-0000-4000-8000-000000000000", "02:00:00:00:00:00", "", "' OR 1=1"]
    )
    def test_an_unknown_one(self, manage, vm, name):
        run = manage("troubleshoot", name)
        assert (run.status, run.out) == (1, "")
        assert f"There is no VM {name}. list_vms shows all." in run.err

    def test_a_name_that_two_accounts_use(self, manage, vm):
        make_vm(name="web")
        run = manage("troubleshoot", "web")
        assert (run.status, run.out) == (1, "")
        assert "Give its uuid" in run.err
        assert manage("troubleshoot", vm.uuid).status == 0

    def test_a_mac_address_that_two_zones_use(self, manage, vm):
        mac = vm.nics.get().mac_address
        other = make_vm()
        Nic.objects.filter(vm=other).update(mac_address=mac)
        run = manage("troubleshoot", mac)
        assert (run.status, run.out) == (1, "")
        assert "Several NICs" in run.err

    def test_a_host_that_does_not_answer_is_said_to_and_nothing_is_guessed(self, manage, vm, fake):
        for method in ("power_state", "inserted", "bytes_read", "read_guest_file"):
            fake.failing[method] = EndpointUnreachable("No answer.")
        run = manage("troubleshoot", "web", "--json")
        by_name = {check["name"]: check for check in run.json}
        for name in ("power", "drive", "read", "guest script"):
            assert by_name[name]["passed"] is None
            assert "No answer." in by_name[name]["text"]

    def test_a_vm_that_the_host_does_not_know(self, manage, vm, fake):
        fake.moved_behind_our_back(vm.on_host, FakeHypervisor())
        fake.defined.clear()
        run = manage("troubleshoot", "web")
        assert run.status == 1
        assert f"does not know {vm.instance_name}" in run.out

    def test_what_a_guest_says_does_not_reach_the_terminal(self, manage, vm, fake):
        fake.guest_files[str(vm.uuid), STATUS_FILE] = b"version=1\nscript=\x1b]0;owned\x07\n"
        run = manage("troubleshoot", "web")
        assert "is not its report" in run.out
        assert all(line.isprintable() for line in run.out.splitlines())

    def test_nothing_is_changed(self, manage, vm, fake):
        before, calls = list(fake.media), len(fake.calls)
        with CaptureQueriesContext(connection) as queries:
            manage("troubleshoot", "web")
        assert not [query for query in queries if not query["sql"].startswith("SELECT")]
        assert list(fake.media) == before
        assert not {"place", "insert", "remove", "start", "stop"} & set(fake.calls[calls:])


class TestCreateApiKey:
    def test_json_holds_a_pair_and_a_token_that_let_in(self, manage):
        user = make_user(username="ann")

        ran = manage("create_api_key", "ann", "--json")

        key = ApiKey.objects.get()
        assert (ran.status, set(ran.json)) == (0, {"api_key", "secret_key", "token"})
        assert (key.user, key.key, key.secret) == (user, ran.json["api_key"], ran.json["secret_key"])
        assert key.token_hash == hash_token(ran.json["token"])

    def test_for_people_it_is_shown_once_and_says_so(self, manage):
        make_user(username="ann")

        ran = manage("create_api_key", "ann")

        assert ran.out.count(ApiKey.objects.get().secret) == 1
        assert "not shown again" in ran.err
        assert ApiKey.objects.get().secret not in ran.err

    def test_no_list_and_no_event_shows_it(self, manage):
        make_user(make_account(Role.ROOT_ADMIN), username="ann")
        make_vm()
        shown = manage("create_api_key", "ann", "--json").json
        root = Signer.of(make_account(Role.ROOT_ADMIN))

        later = json.dumps(
            [
                *(manage(command, "--json").json for command in ("list_vms", "list_nics")),
                *(root.call(command, listall="true").body for command in ("listVirtualMachines", "listEvents")),
                *(list(event.values()) for event in Event.objects.values()),
            ],
            default=str,
        )

        assert shown["secret_key"] not in later
        assert shown["token"] not in later
        assert shown["api_key"] not in later

    def test_an_event_says_who_got_one(self, manage):
        user = make_user(username="ann")

        manage("create_api_key", "ann")

        event = Event.objects.get()
        assert (event.type, event.account) == (EventType.API_KEY_CREATE, user.account)

    def test_each_is_another(self, manage):
        make_user(username="ann")

        first, second = (manage("create_api_key", "ann", "--json").json for _ in range(2))

        assert not set(first.values()) & set(second.values())

    def test_an_unknown_user(self, manage):
        ran = manage("create_api_key", "nobody")

        assert (ran.status, ran.out, ApiKey.objects.count()) == (1, "", 0)
        assert "There is no user nobody." in ran.err


def test_lists_work_when_there_is_nothing_but_a_zone(manage):
    make_zone()

    assert [manage(command).status for command in ("list_vms", "list_nics")] == [0, 0]
