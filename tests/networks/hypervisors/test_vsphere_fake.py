"""The driver where the vCenter simulator is too kind: on a vSphere in memory that asks questions and says no."""

import dataclasses
import threading
import time
from types import SimpleNamespace

import pytest

from networks.hypervisors import base, vsphere_session
from networks.hypervisors.base import (
    AskTheOperator,
    Busy,
    CredentialsRefused,
    DeadlineExceeded,
    EndpointAddress,
    GuestEvent,
    HostUnavailable,
    HypervisorError,
    Media,
    NetworkMissing,
    NetworkRef,
    NicSpec,
    NotFound,
    Outcome,
    PowerState,
    Refused,
    StorageProblem,
    StorageRoom,
    Transport,
)
from networks.hypervisors.vsphere import CLEAN_UP_SECONDS, VsphereHost
from networks.hypervisors.vsphere_guests import DRIVE_MARK, LATEST_SECONDS, VOLUME_MARK
from networks.hypervisors.vsphere_session import SESSIONS
from networks.hypervisors.vsphere_types import vim, vmodl
from tests.lab.system import wait_for
from tests.networks.hypervisors.factories import make_root, make_vm, soon
from tests.simulators.vsphere_fake import FakeVsphere, disc, drive, ide

PATIENCE = 20
MARKS = {VOLUME_MARK: "ROOT-1", DRIVE_MARK: "200:1"}
ADDRESS = EndpointAddress(Transport.TLS, "vcenter.example", username="u", password="p", fingerprint="0" * 64)


@pytest.fixture
def fake(monkeypatch):
    SESSIONS.close()
    fake = FakeVsphere()
    monkeypatch.setattr(vsphere_session, "SoapStub", fake)
    yield fake
    fake.failing.clear()
    SESSIONS.close()


@pytest.fixture
def host(fake):
    return VsphereHost(ADDRESS, "esx-1")


@pytest.fixture
def vm():
    return make_vm()


@pytest.fixture
def reference(fake, vm):
    """The running VM of ours, with a drive of ours on IDE."""
    return fake.make_vm(vm.uuid, ide(), drive(), marks=MARKS)


def hold(fake, reference, path: str) -> None:
    """The guest has mounted the disc in its drive."""
    fake.files.add(path)
    fake.objects[reference]["config.hardware.device"] = [ide(), drive(path)]
    fake.locked.add(reference)


HELD = "[store] extdhcp-configdrive/held.iso"


# A door that the guest has locked ---------------------------------------------------------------


def test_disc_that_must_go_goes_though_the_guest_holds_it(fake, host, vm, reference):
    hold(fake, reference, HELD)

    host.insert(vm, None, soon())

    assert fake.answers == ["0"]
    assert host.inserted(vm, soon()) is None


def test_disc_that_the_guest_holds_is_not_replaced_under_it(fake, host, vm, reference):
    hold(fake, reference, HELD)

    with pytest.raises(Busy, match="locked the door"):
        host.insert(vm, disc(fake, "new.iso"), soon())

    assert fake.answers == ["1"]
    assert host.inserted(vm, soon()) == HELD


@pytest.mark.parametrize("text", ["msg.cdromdisconnect.locked:x", "x. The guest has locked the CD-ROM door and ..."])
def test_question_of_the_door_is_known_by_its_name_or_its_words(fake, host, vm, reference, text):
    fake.question_text = text
    hold(fake, reference, HELD)

    host.insert(vm, None, soon())

    assert fake.answers == ["0"]


def test_question_that_is_not_ours_to_answer_is_for_the_operator(fake, host, vm, reference):
    fake.question_text = "msg.uuid.altered:This virtual machine might have been moved or copied."
    hold(fake, reference, HELD)

    with pytest.raises(AskTheOperator, match="question that a person has to answer"):
        host.insert(vm, None, soon())

    assert fake.answers == []


# Hosts that cannot be used ----------------------------------------------------------------------


@pytest.fixture(
    params=[
        {"runtime.connectionState": "disconnected"},
        {"runtime.connectionState": "notResponding"},
        {"runtime.inMaintenanceMode": True},
    ],
    ids=["disconnected", "not responding", "in maintenance"],
)
def unusable(fake, request):
    fake.make_host("esx-2", **request.param)
    return VsphereHost(ADDRESS, "esx-2")


def test_host_that_cannot_be_used_says_so(unusable):
    with pytest.raises(HostUnavailable, match="esx-2"):
        unusable.host_facts(soon())


def test_vcenter_and_its_other_hosts_answer_while_one_cannot_be_used(unusable, host):
    assert VsphereHost(ADDRESS).host_facts(soon()).cpus == 4
    assert host.host_facts(soon()).cpus == 2


def test_no_vm_is_put_on_a_host_that_cannot_be_used(fake, unusable, host, template, root):
    off, on = make_vm(), make_vm()
    fake.make_vm(off.uuid, ide(), drive(), marks=MARKS, on=False)
    fake.make_vm(on.uuid, ide(), drive(), marks=MARKS)

    for act in (
        lambda: unusable.ensure_root(root, soon()),
        lambda: unusable.start(off, soon()),
        lambda: host.migrate(on, unusable, soon()),
    ):
        with pytest.raises(HostUnavailable):
            act()

    assert not {"CloneVM_Task", "RelocateVM_Task", "PowerOnVM_Task"} & set(fake.calls)


# Drives -----------------------------------------------------------------------------------------


def test_running_vm_that_has_lost_its_drive_needs_a_restart(fake, host, vm):
    fake.make_vm(vm.uuid, ide(), marks=MARKS)

    with pytest.raises(Refused, match="stop and a start"):
        host.insert(vm, disc(fake, "new.iso"), soon())


def test_vm_that_is_off_gets_its_lost_drive_back(fake, host, vm):
    fake.make_vm(vm.uuid, ide(), marks=MARKS, on=False)
    media = disc(fake, "new.iso")

    host.insert(vm, media, soon())

    assert host.inserted(vm, soon()) == media.path


def test_drive_of_the_user_is_left_alone(fake, host, vm):
    theirs = drive("[store] isos/debian.iso", key=3000, unit=0)
    reference = fake.make_vm(vm.uuid, ide(), theirs, drive(), marks=MARKS)
    media = disc(fake, "new.iso")

    host.insert(vm, media, soon())

    paths = {device.key: getattr(device.backing, "fileName", None) for device in devices(fake, reference)}
    assert paths == {200: None, 3000: "[store] isos/debian.iso", 3001: media.path}


def devices(fake, reference) -> list:
    return fake.objects[reference]["config.hardware.device"]


def test_vm_without_a_place_for_a_drive_is_refused(fake, host, vm):
    fake.make_vm(vm.uuid, ide(), drive(key=3000, unit=0), drive(), marks={VOLUME_MARK: "ROOT-1"}, on=False)

    with pytest.raises(Refused, match="no place left"):
        host.insert(vm, disc(fake, "new.iso"), soon())


def test_disc_whose_file_is_missing_is_not_found(host, vm, reference):
    with pytest.raises(NotFound):
        host.insert(vm, Media("x.iso", "[store] extdhcp-configdrive/x.iso"), soon())


@pytest.mark.parametrize("mark", ["", "200", "200:1:1", "x:y", "-1:0", "9" * 40])
def test_mark_that_somebody_has_changed_is_no_drive(fake, host, vm, mark):
    fake.make_vm(vm.uuid, ide(), drive(), marks=MARKS | {DRIVE_MARK: mark})

    assert host.inserted(vm, soon()) is None


# Sessions and pages -----------------------------------------------------------------------------


def test_many_vms_are_read_page_by_page(fake, host):
    fake.page = 10
    for number in range(25):
        fake.make_vm(f"0000000{number}", ide())
    fake.calls.clear()

    assert len(host.list_vms(soon())) == 25

    assert fake.calls.count("ContinueRetrievePropertiesEx") == 2
    assert fake.calls.count("WaitForUpdatesEx") == 3


def test_session_forgotten_between_two_pages_is_renewed(fake, host, monkeypatch):
    fake.page = 10
    for number in range(25):
        fake.make_vm(f"0000000{number}", ide())
    following, forgotten = fake.ContinueRetrievePropertiesEx, []

    def forget(this, token):
        if not forgotten:
            forgotten.append(token)
            fake.logged_in = False
            raise vim.fault.NotAuthenticated(object=this, privilegeId="System.View")
        return following(this, token)

    monkeypatch.setattr(fake, "ContinueRetrievePropertiesEx", forget)

    assert len(host.list_vms(soon())) == 25
    assert fake.calls.count("Login") == 2


def test_collector_that_has_forgotten_what_it_told_tells_all_again(fake, host, vm, reference, monkeypatch):
    host.running_vms(soon())
    waiting, forgotten = fake.WaitForUpdatesEx, []

    def forget(this, version, options):
        if not forgotten:
            forgotten.append(version)
            raise vmodl.query.InvalidCollectorVersion()
        return waiting(this, version, options)

    monkeypatch.setattr(fake, "WaitForUpdatesEx", forget)

    assert host.running_vms(soon()) == {vm.uuid}
    assert fake.calls.count("Login") == 1


def test_first_answer_that_takes_longer_than_one_caller_has_is_gone_on_with(fake, host, monkeypatch):
    fake.page = 10
    for number in range(25):
        fake.make_vm(f"0000000{number}", ide())
    waiting, asked = fake.WaitForUpdatesEx, []

    def wait(this, version, options):
        asked.append(version)
        if len(asked) == 3:
            raise DeadlineExceeded("two pages were told")
        return waiting(this, version, options)

    monkeypatch.setattr(fake, "WaitForUpdatesEx", wait)
    with pytest.raises(DeadlineExceeded):
        host.running_vms(soon())

    assert len(host.running_vms(soon())) == 25
    assert len(asked) == 4
    assert fake.calls.count("CreatePropertyCollector") == 1


def test_news_that_did_not_arrive_are_not_missed(fake, host, vm, reference, monkeypatch):
    host.running_vms(soon())
    waiting = fake.WaitForUpdatesEx

    def lose(this, version, options):
        waiting(this, version, options)
        monkeypatch.setattr(fake, "WaitForUpdatesEx", waiting)
        raise DeadlineExceeded("it was told to nobody")

    fake.objects[reference]["runtime.powerState"] = "poweredOff"
    monkeypatch.setattr(fake, "WaitForUpdatesEx", lose)
    with pytest.raises(DeadlineExceeded):
        host.running_vms(soon())

    assert host.running_vms(soon()) == set()


def test_session_that_is_forgotten_at_once_again_is_not_renewed_for_ever(fake, host):
    fake.failing["WaitForUpdatesEx"] = vim.fault.NotAuthenticated(object=fake.root, privilegeId="System.View")

    with pytest.raises(CredentialsRefused):
        host.running_vms(soon())

    assert fake.calls.count("Login") == 2


def test_two_vms_that_share_a_uuid_are_not_told_apart(fake, host, vm, reference):
    fake.make_vm(vm.uuid, ide())

    ((_vm, reading),) = host.read_addresses([vm], soon())

    assert reading.problem is Outcome.AMBIGUOUS


# A vCenter that falls silent ---------------------------------------------------------------------


def test_heart_beats_while_a_vcenter_is_silent_and_it_is_given_up_before_a_long_deadline(fake, host, monkeypatch):
    monkeypatch.setattr(base, "HEARTBEAT_SECONDS", 0.02)
    monkeypatch.setattr(vsphere_session, "CALL_SECONDS", 0.3)
    heard, beats = threading.Event(), []
    fake.CreateContainerView = lambda *_arguments: heard.wait(PATIENCE)
    before = time.monotonic()

    with base.heartbeat(lambda: beats.append(1)), pytest.raises(DeadlineExceeded):
        host.host_facts(soon(600))
    heard.set()

    assert time.monotonic() - before < PATIENCE
    assert beats


# Events -----------------------------------------------------------------------------------------


@pytest.fixture
def told():
    return []


def make_vms_of_several_pages(fake) -> list:
    fake.page = 10
    return [fake.make_vm(f"0000000{number}", ide()) for number in range(25)]


def break_at(fake, monkeypatch, number: int, error: Exception) -> None:
    """What the collector answers to this one of its calls."""
    waiting, asked = fake.WaitForUpdatesEx, []

    def wait(this, version, options):
        asked.append(version)
        if len(asked) == number:
            raise error
        return waiting(this, version, options)

    monkeypatch.setattr(fake, "WaitForUpdatesEx", wait)


def test_vcenter_whose_first_answer_takes_long_is_watched_nevertheless(fake, told, monkeypatch):
    vms = make_vms_of_several_pages(fake)
    break_at(fake, monkeypatch, 2, DeadlineExceeded("one page was told"))

    watch = VsphereHost(ADDRESS).watch(lambda uuid, event: told.append((uuid, event)), soon())
    wait_for("the rest", lambda: fake.calls.count("WaitForUpdatesEx") > 5, PATIENCE)
    for vm in vms:
        fake.objects[vm]["runtime.powerState"] = "poweredOff"
    wait_for("the end of all", lambda: len(told) == 25, PATIENCE)
    watch.close()

    assert {event for _uuid, event in told} == {GuestEvent.STOPPED}
    assert fake.calls.count("CreatePropertyCollector") == 1


def test_vcenter_that_forgets_the_watch_amid_its_first_answer_tells_all_again(fake, told, monkeypatch):
    vms = make_vms_of_several_pages(fake)
    break_at(fake, monkeypatch, 2, DeadlineExceeded("one page was told"))
    break_at(fake, monkeypatch, 3, vmodl.query.InvalidCollectorVersion())

    watch = VsphereHost(ADDRESS).watch(lambda uuid, event: told.append((uuid, event)), soon())
    wait_for("the rest", lambda: fake.calls.count("WaitForUpdatesEx") > 7, PATIENCE)
    fake.objects[vms[24]]["runtime.powerState"] = "poweredOff"
    wait_for("its end", lambda: told, PATIENCE)
    watch.close()

    assert told == [("000000024", GuestEvent.STOPPED)]


# Tasks ------------------------------------------------------------------------------------------


def test_migration_that_does_not_end_is_cancelled(fake, host, vm, reference):
    fake.make_host("esx-2")
    fake.stuck.add("RelocateVM_Task")

    with pytest.raises(Busy, match="cancelled"):
        host.migrate(vm, VsphereHost(ADDRESS, "esx-2"), soon(CLEAN_UP_SECONDS + 0.5))

    assert "CancelTask" in fake.calls


def test_vm_is_not_moved_to_a_host_without_its_datastore(fake, host, vm, reference):
    fake.make_host("esx-2", datastore=[])

    with pytest.raises(Refused, match="does not see this VM's datastore"):
        host.migrate(vm, VsphereHost(ADDRESS, "esx-2"), soon())


def test_guest_that_takes_no_notice_is_cut_off_after_its_grace(fake, host, vm, reference):
    host.stop(vm, soon(30), grace=0.5)

    assert host.power_state(vm, soon()) is PowerState.OFF
    assert fake.calls.index("ShutdownGuest") < fake.calls.index("PowerOffVM_Task")


FAULTS = [
    (vim.fault.NoDiskSpace(datastore="store"), StorageProblem),
    (vim.fault.DuplicateName(name="x"), Refused),
    (vim.fault.TaskInProgress(), Busy),
    (vim.fault.FileLocked(file="/vmfs/volumes/secret/x.vmdk"), Busy),
    (vim.fault.InsufficientHostCapacityFault(), AskTheOperator),
    (vim.fault.NoPermission(privilegeId="VirtualMachine.Interact.PowerOn"), CredentialsRefused),
    (vmodl.fault.HostNotReachable(), HostUnavailable),
    (vmodl.fault.HostNotConnected(), HostUnavailable),
    (vim.fault.InvalidHostState(), HostUnavailable),
    (vmodl.fault.ManagedObjectNotFound(), NotFound),
    (vim.fault.CannotAccessNetwork(), NetworkMissing),
    (vmodl.fault.SystemError(reason="in /var/log/vmware of 192.0.2.1"), AskTheOperator),
    (vim.fault.InvalidState(), Refused),
]


@pytest.mark.parametrize(("fault", "error"), FAULTS, ids=[type(fault).__name__ for fault, _ in FAULTS])
def test_what_a_task_ends_with_is_told_in_our_words(fake, host, vm, fault, error):
    fake.make_vm(vm.uuid, ide(), drive(), marks=MARKS, on=False)
    fake.ending["PowerOnVM_Task"] = fault

    with pytest.raises(error) as raised:
        host.start(vm, soon())

    assert type(fault).__name__.rpartition(".")[2] in str(raised.value)
    assert "/v" not in str(raised.value)


def test_vm_that_somebody_else_started_has_started(fake, host, vm):
    reference = fake.make_vm(vm.uuid, ide(), drive(), marks=MARKS, on=False)

    class Faster(dict):
        def get(self, name, default=None):
            fake.objects[reference]["runtime.powerState"] = "poweredOn"
            return vim.fault.InvalidPowerState(requestedState="poweredOn", existingState="poweredOn")

    fake.ending = Faster()

    host.start(vm, soon())


def test_vm_whose_files_no_host_reaches_is_busy(fake, host, vm, reference):
    def gone(*_arguments):
        fake.objects[reference]["config.uuid"] = None
        return reference

    fake.FindByUuid = gone

    with pytest.raises(Busy, match="cannot reach its files"):
        host.start(vm, soon())


def test_vm_on_a_host_that_vcenter_has_forgotten_is_nowhere(fake, host, vm, reference):
    fake.objects[reference] |= {"runtime.host": None, "runtime.connectionState": "orphaned"}

    assert host.power_state(vm, soon()) is None
    with pytest.raises(Busy):
        host.stop(vm, soon(), grace=0)


# Storage ----------------------------------------------------------------------------------------


class Files:
    """HTTPS access to the datastore's files."""

    def __init__(self, error: HypervisorError | None = None) -> None:
        self.error, self.put_to = error, []

    def __call__(self, _address):
        return self

    def put(self, path, content, deadline, *, query, headers):
        self.put_to.append((path, query))
        if self.error:
            raise self.error

    def close(self):
        pass


@pytest.fixture
def files(monkeypatch, host):
    files = Files()
    monkeypatch.setattr(vsphere_session, "HttpsClient", files)
    return files


def test_iso_goes_to_its_datacenter_and_datastore_by_their_escaped_names(fake, host, files):
    fake.objects[fake.store]["summary"] = fake.summary(name="fast%2fssd [1] 100%25")

    media = host.place("a-1.iso", b"x", soon(), storage="fast/ssd [1] 100%")

    assert files.put_to == [
        ("/folder/extdhcp-configdrive/a-1.iso", {"dcPath": "dc%2feast", "dsName": "fast%2fssd [1] 100%25"})
    ]
    assert media.path == "[fast%2fssd [1] 100%25] extdhcp-configdrive/a-1.iso"


@pytest.mark.parametrize(
    ("kind", "method"), [("VMFS", "MakeDirectory"), ("NFS", "MakeDirectory"), ("vsan", "CreateDirectory")]
)
def test_directory_is_made_as_the_kind_of_datastore_wants_it(fake, host, files, kind, method):
    fake.objects[fake.store]["summary"] = fake.summary(type=kind)

    host.place("a-1.iso", b"x", soon(), storage="store")

    assert method in fake.calls


@pytest.mark.parametrize("status", [500, 507])
def test_iso_that_the_datastore_did_not_take_leaves_nothing(fake, host, files, status):
    from networks.hypervisors.bounded import StatusRefused

    files.error = StatusRefused(status)

    with pytest.raises(StorageProblem, match="Datastore store could not be written"):
        host.place("a-1.iso", b"x", soon(), storage="store")

    assert fake.calls.count("DeleteDatastoreFile_Task") == 1


@pytest.mark.parametrize("fields", [{"accessible": False}, {"maintenanceMode": "inMaintenance"}])
def test_datastore_that_cannot_be_used_now_is_named(fake, host, files, fields):
    fake.objects[fake.store]["summary"] = fake.summary(**fields)

    with pytest.raises(StorageProblem, match="store is not accessible on host esx-1"):
        host.place("a-1.iso", b"x", soon(), storage="store")


def test_iso_that_a_running_vm_holds_is_not_deleted(fake, host):
    fake.ending["DeleteDatastoreFile_Task"] = vim.fault.FileLocked(file="x")

    with pytest.raises(Busy):
        host.remove("a-1.iso", soon(), storage="store")


LOCAL = {"multipleHostAccess": False}


@pytest.mark.parametrize("is_shared", [True, False])
def test_datastore_is_shared_when_further_hosts_see_it(fake, host, is_shared):
    fake.objects[fake.store]["summary"] = fake.summary(multipleHostAccess=is_shared)

    assert host.is_shared("store", soon()) is is_shared


def test_room_of_a_datastore(fake, host):
    fake.objects[fake.store]["summary"] = fake.summary(freeSpace=3 * 10**9)

    assert host.room("store", soon()) == StorageRoom(10**10, 3 * 10**9)


def test_datastore_that_one_of_several_hosts_sees_takes_no_config_drive(fake, host, files):
    fake.objects[fake.store]["summary"] = fake.summary(**LOCAL)
    fake.make_host("esx-2", datastore=[])

    with pytest.raises(Refused, match="Only host esx-1 sees datastore store"):
        host.place("a-1.iso", b"x", soon(), storage="store")

    assert files.put_to == []


def test_datastore_of_the_only_host_takes_config_drives(fake, host, files):
    fake.objects[fake.store]["summary"] = fake.summary(**LOCAL)

    host.place("a-1.iso", b"x", soon(), storage="store")

    assert len(files.put_to) == 1


def test_one_iso_is_asked_for_by_its_name(fake, host):
    host.list_media(soon(), storage="store", name="a-1.iso")

    assert fake.searched == ["a-1.iso"]


DISK = vim.vm.device.VirtualDisk(key=2000, capacityInKB=1024, capacityInBytes=1024 * 1024)


@pytest.fixture
def root():
    return make_root(pool="store", image="debian")


@pytest.fixture
def template(fake):
    template = fake.make_vm("template", DISK)
    fake.objects[template] |= {"name": "debian", "config.template": True}
    return template


def test_clone_that_a_former_attempt_did_not_wait_for_is_taken(fake, host, template, root):
    clone = fake.make_vm("clone", DISK, marks={VOLUME_MARK: root.volume}, on=False)
    fake.objects[clone]["name"] = root.volume
    fake.ending["CloneVM_Task"] = vim.fault.DuplicateName(name=root.volume)

    host.ensure_root(root, soon())


@pytest.fixture
def unfinished(fake, template, root):
    """A clone that vSphere goes on to make, though nobody waits for it any more."""
    clone = fake.make_vm("clone", DISK, marks={VOLUME_MARK: root.volume}, on=False)
    fake.objects[clone] |= {"name": root.volume, "config.uuid": None, "config.instanceUuid": None}
    fake.ending["CloneVM_Task"] = vim.fault.DuplicateName(name=root.volume)
    return clone


def test_clone_that_is_being_made_is_waited_for(fake, host, root, unfinished, monkeypatch):
    waiting, asked = fake.WaitForUpdatesEx, []

    def wait(this, version, options):
        asked.append(version)
        if len(asked) == 4:
            fake.objects[unfinished] |= {"config.uuid": "clone", "config.instanceUuid": "clone"}
        return waiting(this, version, options)

    monkeypatch.setattr(fake, "WaitForUpdatesEx", wait)

    host.ensure_root(root, soon())

    assert "ReconfigVM_Task" in fake.calls


def test_clone_that_is_not_made_in_time_is_left_for_later(host, root, unfinished):
    with pytest.raises(Busy, match="not finished"):
        host.ensure_root(root, soon(LATEST_SECONDS + 0.5))


def test_clone_that_fails_while_it_is_waited_for_is_made_later(fake, host, root, unfinished, monkeypatch):
    waiting = fake.WaitForUpdatesEx

    def wait(this, version, options):
        answer = waiting(this, version, options)
        if answer is not None or unfinished not in fake.objects:
            return answer
        del fake.objects[unfinished]
        gone = SimpleNamespace(kind="leave", obj=unfinished)
        return SimpleNamespace(version="9", filterSet=[SimpleNamespace(objectSet=[gone])], truncated=False)

    monkeypatch.setattr(fake, "WaitForUpdatesEx", wait)

    with pytest.raises(Busy, match="could not be made"):
        host.ensure_root(root, soon())


def test_root_volume_that_is_being_made_is_not_deleted_yet(fake, host, root, unfinished):
    with pytest.raises(Busy, match="not finished"):
        host.delete_root(root, soon())

    fake.objects[unfinished]["config.uuid"] = "clone"
    fake.objects[unfinished]["config.instanceUuid"] = "clone"
    host.delete_root(root, soon())

    assert unfinished not in fake.objects


def test_vm_of_others_with_the_volumes_name_is_not_deleted(fake, host, root):
    theirs = fake.make_vm("theirs", DISK, on=False)
    fake.objects[theirs]["name"] = root.volume

    host.delete_root(root, soon())

    assert theirs in fake.objects


def test_another_vm_with_the_volumes_name_is_not_taken(fake, host, template, root):
    theirs = fake.make_vm("theirs", DISK)
    fake.objects[theirs]["name"] = root.volume
    fake.ending["CloneVM_Task"] = vim.fault.DuplicateName(name=root.volume)

    with pytest.raises(Refused, match="Something else"):
        host.ensure_root(root, soon())


# Names and rights -------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["a/b", "100%", "back\\slash", "ünïcode 网络", "[x] (y)", "%2f"])
def test_port_group_is_found_whatever_characters_its_name_has(fake, host, label):
    escaped = label.replace("%", "%25").replace("/", "%2f").replace("\\", "%5c")
    fake.objects[fake.network]["name"] = escaped

    host.ensure_network(NetworkRef(label), soon())


def test_template_in_a_folder_is_found_by_its_displayed_name(fake, host, template):
    fake.objects[template]["name"] = "Linux 9%2fx (100%25)"
    fake.FindChild = lambda *_arguments: None
    fake.ending["CloneVM_Task"] = vim.fault.NoDiskSpace(datastore="store")

    with pytest.raises(StorageProblem, match="full"):
        host.ensure_root(make_root(pool="store", image="Linux 9/x (100%)"), soon())


def test_what_the_user_may_not_do_is_named(fake, host):
    fake.denied = {"VirtualMachine.Interact.PowerOn", "Datastore.FileManagement"}

    assert host.missing_rights(soon()) == ("Datastore.FileManagement", "VirtualMachine.Interact.PowerOn")


def test_user_who_sees_no_datacenter_is_told_so(fake):
    del fake.objects[fake.datacenter]

    with pytest.raises(CredentialsRefused, match="sees no datacenter"):
        VsphereHost(ADDRESS).missing_rights(soon())


def test_privilege_that_a_call_lacks_is_named(fake, host, vm):
    fake.make_vm(vm.uuid, ide(), drive(), marks=MARKS, on=False)
    fake.failing["PowerOnVM_Task"] = vim.fault.NoPermission(privilegeId="VirtualMachine.Interact.PowerOn")

    with pytest.raises(CredentialsRefused, match=r"lacks a privilege.*VirtualMachine\.Interact\.PowerOn"):
        host.start(vm, soon())


def test_nic_that_was_cut_off_is_told(fake, host, vm):
    card = vim.vm.device.VirtualVmxnet3(
        key=4000,
        macAddress=vm.macs[0].upper(),
        backing=vim.vm.device.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network"),
        connectable=vim.vm.device.VirtualDevice.ConnectInfo(
            connected=False, startConnected=True, allowGuestControl=True
        ),
    )
    fake.make_vm(vm.uuid, card, marks=MARKS)

    state = host.nic_state(vm, NicSpec(vm.macs[0], NetworkRef("VM Network")), soon())

    assert state == "link down"


def test_another_users_session_is_another(fake):
    for user in ("one", "two"):
        VsphereHost(dataclasses.replace(ADDRESS, username=user)).running_vms(soon())

    assert fake.calls.count("Login") == 2
