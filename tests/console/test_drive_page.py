"""The admin's page of a VM's config drive: where it is, what it says with secrets masked, what can be done to it."""

import base64
import hashlib
import json
import re

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from configdrive import facts as drive_facts
from configdrive import upkeep
from configdrive.models import ConfigDrive
from extdhcp_site.accounts.models import Caller
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.hypervisors.base import Busy, StorageProblem
from networks.models import ConfigDriveUse, VirtualMachine, Zone
from networks.services import guest_data, vms
from tests import factories
from tests.console.worlds import client_of, make_root
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

PASSWORD = "Vq7mZ2kT9xLw4RbN"
USER_DATA = b"#cloud-config\nchpasswd: ud-canary-81f3\n"
CHANGELIST = reverse("admin:configdrive_configdrive_changelist")
FORM = re.compile(r'<form method="post" action="([^"]+)" class="drive-actions">(.*?)</form>', re.DOTALL)
ACTIONS = {"rebuild": "refreshVirtualMachine", "verify": "verifyConfigDrive", "eject": "ejectConfigDrive"}


@pytest.fixture
def fake():
    fake = FakeHypervisor()
    with hypervisors(fake):
        yield fake


@pytest.fixture
def caller() -> Caller:
    return factories.make_caller()


@pytest.fixture
def cluster():
    cluster = factories.make_cluster()
    factories.make_host(cluster)
    return cluster


@pytest.fixture
def vm(fake, caller, cluster) -> VirtualMachine:
    """Running; every kind of secret is on its drive."""
    template = factories.make_template(password_enabled=True, os_family="Windows")
    user_data = base64.b64encode(USER_DATA).decode()
    return deploy(caller, cluster, name="web", template=template, password=PASSWORD, user_data=user_data)


@pytest.fixture
def client():
    return client_of(make_root())


def again(vm: VirtualMachine) -> VirtualMachine:
    return VirtualMachine.objects.get(pk=vm.pk)


def drive_of(vm: VirtualMachine) -> ConfigDrive:
    return ConfigDrive.objects.get(vm=vm)


def address(vm: VirtualMachine) -> str:
    return reverse("admin:configdrive_configdrive_change", args=[drive_of(vm).pk])


def page_of(client, vm: VirtualMachine) -> str:
    answer = client.get(address(vm))
    assert answer.status_code == 200
    return answer.text


def shown_state(client, vm: VirtualMachine) -> str:
    """The word in the list; the page must have the same."""
    (word,) = re.findall(r'class="field-state">([^<]+)<', client.get(CHANGELIST).text)
    assert re.search(rf'class="readonly">{word}<', page_of(client, vm))
    return word


def with_permissions(*codenames: str):
    user = make_root(is_superuser=False)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return client_of(user)


class TestState:
    def test_in_the_cdrom(self, client, vm):
        assert shown_state(client, vm) == "In the CD-ROM"

    def test_waits_for_a_restart(self, client, vm, fake, caller):
        fake.failing["insert"] = Busy("shut")
        run(guest_data.reset_password(vm, caller))
        assert shown_state(client, vm) == "Waits for a restart"

    def test_none_while_the_vm_is_off(self, client, vm, caller):
        run(vms.stop(vm, caller))
        assert shown_state(client, vm) == "None"

    def test_none_when_it_is_switched_off(self, client, fake, caller, cluster):
        assert shown_state(client, deploy(caller, cluster, drive_use=ConfigDriveUse.NEVER)) == "None"

    def test_missing_with_the_reason(self, client, fake, caller, cluster):
        fake.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster)
        assert shown_state(client, vm) == "Missing"
        assert "The pool is full." in page_of(client, vm)

    def test_ejected(self, client, vm):
        client.post(CHANGELIST, {"action": "eject", "_selected_action": drive_of(vm).pk})
        run(AsyncJob.objects.get(command="ejectConfigDrive"))
        assert shown_state(client, vm) == "Ejected"


class TestPage:
    def test_where_it_is_and_what_it_is(self, client, vm):
        page, drive = page_of(client, vm), drive_of(vm)
        for fact in (drive.path, drive.label, drive.sha256, str(vm.host), str(vm), str(drive.generation)):
            assert f'class="readonly">{fact}<' in page or f">{fact}</a>" in page, fact
        # Big numbers are read in groups, by whoever's locale.
        assert str(drive.size) in page.replace(",", "").replace("\u202f", "")

    def test_the_checksum_is_that_of_the_file_on_the_host(self, client, vm, fake):
        (image,) = fake.media.values()
        assert hashlib.sha256(image).hexdigest() in page_of(client, vm)

    def test_every_file_is_listed_with_its_size(self, client, vm):
        page = page_of(client, vm)
        for file in drive_facts.shown_files(again(vm)):
            assert f"<code>{file.path}</code>" in page
        assert {"cloudstack/metadata/local_hostname.txt", "openstack/latest/meta_data.json"} <= {
            file.path for file in drive_facts.shown_files(again(vm))
        }

    def test_what_is_no_secret_is_readable(self, client, vm):
        assert re.search(r"local_hostname\.txt</code>.*?<pre>web</pre>", page_of(client, vm), re.DOTALL)

    def test_no_secret_stands_anywhere_in_it(self, client, vm):
        page = page_of(client, vm)
        checksum = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
        encoded = base64.b64encode(USER_DATA).decode()
        for secret in (PASSWORD, "ud-canary-81f3", encoded, checksum):
            assert secret.lower() not in page.lower()
        assert page.count("(not shown)") >= 7, "password, checksums, user data, meta data, vendor data"

    def test_the_masked_files_are_the_real_ones_but_for_the_secrets(self, vm):
        """Else the page would show a drive that nobody has."""
        vm = again(vm)
        real = drive_facts.drive_files(drive_facts.plan(vm).facts)
        shown = {file.path: file for file in drive_facts.shown_files(vm)}
        assert {path: len(content) for path, content in real.items()} == {
            path: file.size for path, file in shown.items()
        }
        secret = {path for path, content in real.items() if content.decode() != shown[path].text}
        assert secret == {
            *("cloudstack/password/vm_password.txt", "cloudstack/password/vm_password_md5checksum.txt"),
            *("cloudstack/password/vm-password-md5checksum.txt", "cloudstack/userdata/user_data.txt"),
            *("cloudstack/userdata/userdata.txt", "openstack/latest/user_data"),
            *("openstack/latest/meta_data.json", "openstack/latest/vendor_data.json"),
        }
        masked = json.loads(shown["openstack/latest/meta_data.json"].text)
        assert masked == {**json.loads(real["openstack/latest/meta_data.json"]), "admin_pass": drive_facts.MASK}

    def test_binary_user_data_is_no_obstacle(self, client, fake, caller, cluster):
        vm = deploy(caller, cluster, user_data=base64.b64encode(b"\x1f\x8b\xff\x00\xfe").decode())
        assert "openstack/latest/user_data" in page_of(client, vm)

    def test_it_says_whether_the_disc_holds_this(self, client, vm, caller):
        assert "The disc in the CD-ROM holds these files." in page_of(client, vm)
        guest_data.reset_user_data(vm, caller, base64.b64encode(b"new").decode())
        assert "if it were built now" in page_of(client, vm)

    def test_names_are_escaped(self, client, vm):
        Zone.objects.update(name="<script>alert(1)</script>")
        page = page_of(client, vm)
        assert "<script>alert(1)" not in page
        assert "&lt;script&gt;alert(1)" in page

    def test_one_that_cannot_be_built_says_why(self, client, vm):
        VirtualMachine.objects.update(ssh_keys=[{"name": "x", "public_key": "ssh-rsa A\nssh-rsa B"}])
        page = page_of(client, vm)
        assert "cannot be built: public key 1: must be one line" in page
        assert "<code>openstack" not in page

    def test_one_that_is_not_there_leads_back(self, client):
        for key in ("999999", "x", "'", "9" * 30):
            answer = client.get(f"{CHANGELIST}{key}/change/")
            assert (answer.status_code, answer.url) == (302, "/admin/")

    def test_it_asks_no_host(self, client, vm, fake):
        before = list(fake.calls)
        page_of(client, vm)
        client.get(CHANGELIST)
        assert fake.calls == before


class TestActions:
    @pytest.mark.parametrize(("action", "command"), ACTIONS.items())
    def test_each_submits_a_job_that_succeeds(self, client, vm, action, command):
        answer = client.post(CHANGELIST, {"action": action, "_selected_action": drive_of(vm).pk}, follow=True)
        assert "1 job submitted." in answer.text
        assert run(AsyncJob.objects.get(command=command)).status == Status.SUCCEEDED

    @pytest.mark.parametrize("action", ACTIONS)
    def test_the_pages_button_sends_what_the_list_expects(self, client, vm, action):
        """The form as it stands in the HTML, sent by a browser that knows nothing else."""
        page = page_of(client, vm)
        (form,) = FORM.findall(page)
        assert re.search(rf'<button[^>]* name="action" value="{action}"', form[1])
        hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]+)"', form[1]))
        assert "csrfmiddlewaretoken" in hidden

        answer = client.post(form[0], {**hidden, "action": action}, follow=True)

        assert "1 job submitted." in answer.text
        assert AsyncJob.objects.filter(command=ACTIONS[action]).exists()

    def test_verifying_notes_when(self, client, vm):
        client.post(CHANGELIST, {"action": "verify", "_selected_action": drive_of(vm).pk})
        run(AsyncJob.objects.get(command="verifyConfigDrive"))
        assert drive_of(vm).verified_at

    def test_verifying_mends_what_was_deleted(self, client, vm, fake):
        fake.media.clear()
        client.post(CHANGELIST, {"action": "verify", "_selected_action": drive_of(vm).pk})
        run(AsyncJob.objects.get(command="verifyConfigDrive"))
        assert list(fake.media) == [drive_of(vm).name]

    def test_what_cannot_be_done_has_no_button(self, client, vm, caller, fake):
        run(upkeep.eject_now(drive_of(vm), caller))
        page = page_of(client, vm)
        assert [f'value="{action}"' in page for action in ACTIONS] == [True, False, False]

        run(vms.stop(again(vm), caller))
        page = page_of(client, vm)
        assert not FORM.search(page)
        assert "web is Stopped. Its drive is built when it starts." in page

    @pytest.mark.parametrize("action", ACTIONS)
    def test_a_vm_that_is_off_is_named_with_the_reason(self, client, vm, caller, action):
        run(vms.stop(vm, caller))
        answer = client.post(CHANGELIST, {"action": action, "_selected_action": drive_of(vm).pk}, follow=True)
        assert 'class="error"' in answer.text
        assert not AsyncJob.objects.filter(command=ACTIONS[action]).exists()

    @pytest.mark.parametrize("action", ACTIONS)
    def test_who_may_only_look_has_no_buttons_and_no_actions(self, vm, action):
        client = with_permissions("view_configdrive")
        page = page_of(client, vm)
        assert "drive-actions" not in page
        client.post(CHANGELIST, {"action": action, "_selected_action": drive_of(vm).pk}, follow=True)
        assert not AsyncJob.objects.filter(command=ACTIONS[action]).exists()

    def test_who_may_change_drives_has_both(self, vm):
        client = with_permissions("view_configdrive", "change_configdrive")
        assert "drive-actions" in page_of(client, vm)
        client.post(CHANGELIST, {"action": "verify", "_selected_action": drive_of(vm).pk})
        assert AsyncJob.objects.filter(command="verifyConfigDrive").exists()

    def test_who_may_not_look_sees_nothing(self, vm):
        assert with_permissions("view_zone").get(address(vm)).status_code == 403


class TestLabelsInForms:
    @pytest.mark.parametrize("label", ["config-2", "CONFIG", ""])
    def test_a_zones(self, client, label):
        zone = factories.make_zone()
        self.change(client, zone, label)
        zone.refresh_from_db()
        assert zone.config_drive_label == label

    @pytest.mark.parametrize("label", ["cidata", "a b", "é", "seventeen-letters", "a/b"])
    def test_a_bad_one_is_refused_beside_its_field(self, client, label):
        zone = factories.make_zone()
        answer = self.change(client, zone, label)
        assert list(answer.context["adminform"].form.errors) == ["config_drive_label"]
        zone.refresh_from_db()
        assert zone.config_drive_label == ""

    @pytest.mark.parametrize("label", ["cidata", "a b", "seventeen-letters"])
    def test_a_templates_likewise(self, client, label):
        template = factories.make_template()
        page = reverse("admin:networks_template_change", args=[template.pk])
        form = {"name": "t", "os_family": "Linux", "config_drive_label": label}
        assert "config_drive_label" in client.post(page, form).context["adminform"].form.errors

    def change(self, client, zone: Zone, label: str):
        form = {
            "name": zone.name,
            "allocation_state": "Enabled",
            "bridge_pattern": zone.bridge_pattern,
            "config_drive_label": label,
        }
        return client.post(reverse("admin:networks_zone_change", args=[zone.pk]), form)


def test_a_vms_page_shows_its_switch_and_whether_it_needs_a_restart(client, vm, fake, caller):
    fake.failing["insert"] = Busy("shut")
    run(guest_data.reset_password(vm, caller))
    page = client.get(reverse("admin:networks_virtualmachine_change", args=[vm.pk])).text
    assert again(vm).get_drive_use_display() in page
    assert re.search(r'field-needs_restart.*?alt="True"', page, re.DOTALL)
