"""What `troubleshoot` finds out about a drive: one world a verdict, with what to do about it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from configdrive import upkeep
from configdrive.guest_scripts import STATUS_FILE, WINDOWS_STATUS_FILE
from configdrive.models import ConfigDrive
from configdrive.storage import READ_WITHIN
from configdrive.troubleshooting import MORE_THAN_FIRMWARE_READS, drive_checks
from extdhcp_site.jobs.models import AsyncJob
from networks.checks import Check
from networks.hypervisors.base import AgentAbsent, Busy, EndpointUnreachable, StorageProblem
from networks.models import ConfigDriveUse, Template, VirtualMachine, VmState
from networks.services import guest_data, vms
from tests.factories import make_cluster, make_endpoint, make_host, make_template
from tests.fakes import FakeHypervisor
from tests.life import deploy, run

pytestmark = pytest.mark.django_db

REPORT = {
    "version": "1",
    "script": "script",
    "ran_at": "2031-02-03T04:05:06Z",
    "label": "config",
    "drive": "/dev/sr0",
    "instance_id": "i-2-21-VM",
    "user": "root",
    "password": "set",
    "keys": "unchanged",
    "user_data_bytes": "21",
}


@pytest.fixture
def cluster():
    cluster = make_cluster()
    make_host(cluster, endpoint=make_endpoint(name="kvm-1"))
    return cluster


@pytest.fixture
def vm(fake, caller, cluster) -> VirtualMachine:
    """Running, with its drive in the CD-ROM, and a password that waits."""
    return deploy(caller, cluster, template=make_template(name="debian", password_enabled=True))


def again(vm: VirtualMachine) -> VirtualMachine:
    return VirtualMachine.objects.for_listing().get(pk=vm.pk)


def found(vm: VirtualMachine) -> dict[str, Check]:
    """The checks by their names; none comes twice."""
    checks = list(drive_checks(again(vm)))
    by_name = {check.name: check for check in checks}
    assert len(by_name) == len(checks)
    return by_name


def verdict(vm: VirtualMachine, name: str, passed: bool | None, *words: str) -> None:
    check = found(vm)[name]
    assert check.passed is passed, check
    for word in words:
        assert word in check.text


def report(vm: VirtualMachine, fake: FakeHypervisor, path: str = STATUS_FILE, **changes: str | None) -> None:
    """What our script in the guest has left; None leaves a line out."""
    lines = {**REPORT, **changes}
    text = "".join(f"{key}={value}\n" for key, value in lines.items() if value is not None)
    fake.guest_files[str(vm.uuid), path] = text.encode()


class TestDrive:
    def test_one_in_order(self, vm, fake):
        drive = ConfigDrive.objects.get()
        verdict(vm, "drive", True, "generation 1", f"{drive.size} bytes", drive.path, str(vm.host))
        assert "news" not in found(vm)

    def test_missing_because_it_could_not_be_made(self, fake, caller, cluster):
        fake.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster)
        verdict(vm, "drive", False, "The pool is full.", "tried again every ten minutes")
        assert set(found(vm)) == {"password", "user data", "drive"}

    def test_a_vm_that_is_off_is_not_tried_again(self, fake, caller, cluster):
        fake.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster)
        run(vms.stop(vm, caller))
        verdict(vm, "drive", False, "The pool is full.", "when the VM starts")
        assert "ten minutes" not in found(vm)["drive"].text

    def test_one_that_its_template_requires_says_why_it_did_not_start(self, fake, caller, cluster):
        fake.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster, template=make_template(drive_required=True))
        verdict(vm, "drive", False, "The pool is full.")

    def test_an_old_one_stays_when_its_successor_cannot_be_made(self, vm, fake, caller):
        fake.failing["place"] = StorageProblem("The pool is full.")
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        verdict(vm, "drive", True, "generation 1")
        verdict(vm, "news", False, "The pool is full.")

    def test_none_while_the_vm_is_off(self, vm, caller):
        run(vms.stop(vm, caller))
        verdict(vm, "drive", None, "while the VM is off")

    def test_switched_off(self, fake, caller, cluster):
        vm = deploy(caller, cluster, drive_use=ConfigDriveUse.NEVER)
        verdict(vm, "drive", None, "as the VM's setting says: No drive")

    def test_switched_off_after_a_failure(self, fake, caller, cluster):
        """The failure is history: it is neither told nor tried again."""
        fake.failing["place"] = StorageProblem("The pool is full.")
        vm = deploy(caller, cluster)
        guest_data.update(vm, caller, drive_use=ConfigDriveUse.NEVER)
        run(AsyncJob.objects.get(command="refreshVirtualMachine"))

        verdict(vm, "drive", None, "as the VM's setting says")
        AsyncJob.objects.update(created_at=timezone.now() - timedelta(days=1))
        upkeep.look_after()
        assert AsyncJob.objects.filter(command="refreshVirtualMachine").count() == 1

    def test_ejected_after_the_first_boot(self, fake, caller, cluster):
        vm = deploy(caller, cluster, drive_use=ConfigDriveUse.FIRST_BOOT)
        ConfigDrive.objects.update(served_at=timezone.now() - READ_WITHIN)
        run(guest_data.refresh(vm, caller))
        verdict(vm, "drive", None, "as the VM's setting says: Until the guest has booted")

    def test_ejected_by_a_person(self, vm, fake, caller):
        run(upkeep.eject_now(ConfigDrive.objects.get(), caller))
        verdict(vm, "drive", False, "It was ejected", "Stop and start")

    def test_deleted_on_the_host(self, vm, fake):
        fake.media.clear()
        verdict(vm, "drive", False, "it is deleted on its host", "Verify it in the admin")

    def test_changed_on_the_host(self, vm, fake):
        fake.media.update(dict.fromkeys(fake.media, b"other"))
        verdict(vm, "drive", False, "it is changed on its host")

    def test_taken_out_of_the_cdrom(self, vm, fake):
        fake.discs[str(vm.uuid)] = None
        verdict(vm, "drive", False, "missing from the VM's CD-ROM")

    def test_a_host_that_does_not_answer_decides_nothing(self, vm, fake):
        for method in ("inserted", "bytes_read", "read_guest_file"):
            fake.failing[method] = EndpointUnreachable("No answer.")
        verdict(vm, "drive", None, "could not be asked: No answer.")
        verdict(vm, "read", None, "could not be asked: No answer.")
        verdict(vm, "guest script", None, "No answer.")


class TestNews:
    def test_what_waits_for_a_restart(self, vm, fake, caller):
        fake.failing["insert"] = Busy("shut")
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        verdict(vm, "news", False, "Reboot the VM by the API, or stop and start it")

        fake.failing.clear()
        run(vms.reboot(again(vm), caller))
        assert "news" not in found(vm)


class TestLabel:
    @pytest.mark.parametrize(
        ("template", "passed", "words"),
        [
            ({}, None, ("config:", "look for config-2 only", "Say in the template")),
            ({"drive_reader": "scripts"}, True, ("config",)),
            ({"drive_reader": "cloud-init"}, True, ("config-2",)),
            ({"drive_reader": "ignition", "config_drive_label": "CONFIG-2"}, True, ("looks for config-2",)),
            ({"drive_reader": "cloud-init", "config_drive_label": "config"}, False, ("config;", "looks for config-2")),
            ({"config_drive_label": "config-2"}, True, ("config-2",)),
        ],
    )
    def test_against_what_reads_it(self, fake, caller, cluster, template, passed, words):
        vm = deploy(caller, cluster, template=make_template(**template))
        verdict(vm, "label", passed, *words)

    def test_one_that_comes_with_the_next_start(self, vm):
        Template.objects.update(drive_reader="cloud-init")
        verdict(vm, "label", None, "config; after the next start config-2")


class TestRead:
    def test_nothing_but_what_firmware_reads(self, vm, fake):
        fake.reads[str(vm.uuid)] = 2048
        verdict(vm, "read", False, "has not read the disc")

    def test_enough_for_a_mount(self, vm, fake):
        fake.reads[str(vm.uuid)] = MORE_THAN_FIRMWARE_READS
        verdict(vm, "read", True, f"{MORE_THAN_FIRMWARE_READS} bytes")

    def test_a_host_that_does_not_count(self, vm, fake):
        fake.reads[str(vm.uuid)] = None
        verdict(vm, "read", None, "does not count")

    def test_a_vm_that_is_off_is_not_asked(self, vm, fake, caller):
        VirtualMachine.objects.update(state=VmState.STARTING)
        assert not {"read", "boot", "guest script"} & set(found(vm))


class TestBoot:
    def test_not_yet_with_this_disc(self, vm, fake, caller):
        run(guest_data.reset_password(vm, caller, "n3wPassword"))
        verdict(vm, "boot", False, "reboot it")

    def test_powered_on_and_not_seen(self, vm):
        verdict(vm, "boot", None, "not seen since")

    def test_seen_since(self, vm):
        VirtualMachine.objects.update(guest_seen_at=timezone.now() + timedelta(seconds=30))
        verdict(vm, "boot", True, "and seen since")


class TestPassword:
    def test_one_that_waits(self, vm):
        verdict(vm, "password", None, "one waits to be set")
        assert vm.password not in found(vm)["password"].text

    def test_none_that_waits(self, vm, fake, caller):
        run(guest_data.reset_password(vm, caller, "n3wPassword", agent_user="root"))
        verdict(vm, "password", True, "none waits")

    def test_without_a_drive_no_guest_has_booted_with_one(self, fake, caller, cluster):
        template = make_template(password_enabled=True)
        vm = deploy(caller, cluster, template=template, drive_use=ConfigDriveUse.NEVER)
        verdict(vm, "password", None, "only a reset with guestuser")

    def test_a_template_without(self, fake, caller, cluster):
        vm = deploy(caller, cluster, template=make_template(name="cirros"))
        verdict(vm, "password", None, "Template cirros is not password enabled")


class TestUserData:
    def test_none(self, vm):
        verdict(vm, "user data", None, "has none", "updateVirtualMachine")

    def test_its_size_and_not_its_words(self, fake, caller, cluster):
        vm = deploy(caller, cluster, user_data="aGVsbG8=")
        verdict(vm, "user data", None, "5 bytes")
        assert "hello" not in str(found(vm))


class TestGuestScript:
    def test_all_done(self, vm, fake):
        report(vm, fake)
        verdict(
            vm, "guest script", True, "2031-02-03 04:05:06", "/dev/sr0", "password: set, keys: unchanged", "21 bytes"
        )

    @pytest.mark.parametrize("act", ["password", "keys"])
    def test_what_failed(self, vm, fake, act):
        report(vm, fake, **{act: "failed"})
        verdict(vm, "guest script", False, f"{act}: failed")

    @pytest.mark.parametrize("act", ["deferred", "absent", "unchanged"])
    def test_what_was_left_alone_is_no_failure(self, vm, fake, act):
        report(vm, fake, password=act)
        verdict(vm, "guest script", True, f"password: {act}")

    def test_no_drive_with_its_label(self, vm, fake):
        report(vm, fake, label="config-2", drive="", password="", keys="", user_data_bytes="")
        verdict(vm, "guest script", False, "no drive labelled config-2", "password: not reached", "user data: not rea")

    def test_none_left(self, vm):
        verdict(vm, "guest script", None, f"left no {STATUS_FILE}", "/guest/")

    def test_windows_leaves_it_elsewhere(self, vm, fake):
        Template.objects.update(os_family="Windows")
        verdict(vm, "guest script", None, WINDOWS_STATUS_FILE)
        report(vm, fake, WINDOWS_STATUS_FILE, script="windows")
        verdict(vm, "guest script", True, "password: set")

    def test_an_agent_that_is_not_there(self, vm, fake):
        fake.failing["read_guest_file"] = AgentAbsent("The guest agent does not answer.")
        verdict(vm, "guest script", None, "The guest agent does not tell: The guest agent does not answer.")

    @pytest.mark.parametrize(
        "changes",
        [
            {"drive": "/dev/sr0; <script>alert(1)</script>"},
            {"drive": "\x1b[2J\x1b]0;owned\x07"},
            {"label": "config\u202egnp"},
            {"password": "set, and everything is fine"},
            {"user_data_bytes": "9" * 40},
            {"ran_at": "2031-99-99T99:99:99Z"},
            {"ran_at": None},
            {"version": "2"},
        ],
    )
    def test_a_hostile_report_is_refused_and_not_repeated(self, vm, fake, changes):
        report(vm, fake, **changes)
        verdict(vm, "guest script", None, "is not its report")
        text = found(vm)["guest script"].text
        assert not [value for value in changes.values() if value and len(value) > 1 and value in text]
        assert text.isprintable()

    @pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"\0" * 100, b"<script>alert(1)</script>", b"a=b\n" * 500])
    def test_what_is_no_report_at_all(self, vm, fake, content):
        fake.guest_files[str(vm.uuid), STATUS_FILE] = content
        verdict(vm, "guest script", None, "is not its report")
        assert found(vm)["guest script"].text.isprintable()

    def test_a_hypervisor_without_an_agent(self, vm, fake, monkeypatch):
        class WithoutAgent:
            """Only what a media store and VM operations need."""

            def __init__(self, whole: FakeHypervisor) -> None:
                for name in ("inserted", "read", "list_media", "bytes_read", "power_state"):
                    setattr(self, name, getattr(whole, name))

        # In a context: undone after `fake`'s own patch is, it would bring that one back for all later tests.
        with monkeypatch.context() as patch:
            patch.setattr("networks.services.places.driver", lambda kind, address, host="": WithoutAgent(fake))
            verdict(vm, "guest script", None, "cannot look into a guest")
