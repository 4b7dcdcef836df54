import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks.hypervisors import kvm_xml
from networks.hypervisors.base import AgentState, KernelRoot, NetworkRef, NicSpec, NicState, Refused
from networks.hypervisors.kvm_guest import agent_state
from tests.networks.hypervisors.factories import KERNEL, make_root, make_spec, make_vm

# Every element a definition may have; nothing a user types may add to it.
ELEMENTS = {
    "domain", "name", "uuid", "title", "metadata", f"{{{kvm_xml.NAMESPACE}}}vm", "memory", "vcpu", "os", "type", "boot",
    "kernel", "initrd", "cmdline", "features", "acpi", "apic", "cpu", "clock", "on_poweroff", "on_reboot", "on_crash",
    "devices", "disk", "driver", "source", "target", "readonly", "alias", "interface", "mac", "model", "serial", "log",
    "channel",
}  # fmt: skip
MARKUP = "x</name><uuid>0</uuid><devices><hostdev/></devices><name>&lt;\"'"


def tags(text):
    return {element.tag for element in ET.fromstring(text).iter()}


@given(title=st.text() | st.just(MARKUP), command_line=st.text() | st.just(MARKUP))
def test_free_text_adds_no_element(title, command_line):
    root = KernelRoot("/boot/vmlinuz", "/boot/initrd.img", command_line)
    definition = kvm_xml.domain(make_spec(title=title, root=root), "kvm", None)

    assert tags(definition) <= ELEMENTS
    assert "\n" not in (ET.fromstring(definition).findtext("title") or "")


def test_markup_in_a_title_is_text():
    assert ET.fromstring(kvm_xml.domain(make_spec(title=MARKUP), "kvm", None)).findtext("title") == MARKUP


@pytest.mark.parametrize("name", ["", ".", "..", "-rf", "$(id)", "a/b", "a\n", MARKUP, "x" * 101, "a b", "\u202etxt"])
def test_vm_name_that_could_be_more_than_a_name_is_refused(name):
    with pytest.raises(Refused):
        kvm_xml.domain(make_spec(make_vm(name=name)), "kvm", None)


@pytest.mark.parametrize("path", ["boot/x", "/a/../etc/shadow", "/a\n", "", "/", "/a;b", "/a$b", MARKUP])
def test_kernel_path_that_is_not_plain_is_refused(path):
    with pytest.raises(Refused):
        kvm_xml.domain(make_spec(root=KernelRoot(path, "/boot/initrd.img")), "kvm", None)


@pytest.mark.parametrize(
    "nic",
    [
        NicSpec("52:54:00:00:02:01", NetworkRef("a/b")),
        NicSpec("52:54:00:00:02:01", NetworkRef("sixteen-letters-")),
        NicSpec("52:54:00:00:02:0G", NetworkRef("cloudbr100")),
        NicSpec("53:54:00:00:02:01", NetworkRef("cloudbr100")),  # a group address
        NicSpec("52:54:00:00:02:AB", NetworkRef("cloudbr100")),  # ours are lower case
    ],
)
def test_nic_that_is_none_is_refused(nic):
    with pytest.raises(Refused):
        kvm_xml.domain(make_spec(nics=(nic,)), "kvm", None)


@pytest.mark.parametrize("fields", [{"cpus": 0}, {"memory": 0}])
def test_no_cpu_or_no_memory_is_refused(fields):
    with pytest.raises(Refused):
        kvm_xml.domain(make_spec(**fields), "kvm", None)


def test_definition_of_a_vm_with_a_disk():
    vm = make_vm(macs=("52:54:00:00:02:01", "52:54:00:00:02:02"))
    top = ET.fromstring(kvm_xml.domain(make_spec(vm, root=make_root()), "kvm", "/var/lib/pool/root-7"))

    assert top.get("type") == "kvm"
    assert top.findtext("uuid") == vm.uuid
    assert top.findtext("memory") == str(192 * 1024)
    disks = {disk.find("target").get("dev"): disk for disk in top.iterfind("devices/disk")}
    assert list(disks) == ["vda", "hdc", "hdd"]
    assert disks["vda"].find("driver").get("type") == "qcow2"
    assert disks["hdd"].find("alias").get("name") == "ua-configdrive"
    assert disks["hdd"].find("source") is None
    assert kvm_xml.macs(ET.tostring(top, encoding="unicode")) == vm.macs
    assert top.find("devices/channel/target").get("name") == "org.qemu.guest_agent.0"
    assert top.find("devices/serial/log").get("file") == f"/var/log/libvirt/qemu/{vm.name}-serial.log"


def test_vm_that_boots_a_kernel_has_no_disk_but_its_cdroms():
    top = ET.fromstring(kvm_xml.domain(make_spec(root=KERNEL), "qemu", None))

    assert [disk.get("device") for disk in top.iterfind("devices/disk")] == ["cdrom", "cdrom"]
    assert top.findtext("os/kernel") == KERNEL.kernel
    assert top.find("cpu") is None  # host-model is for hardware acceleration


def test_medium_goes_into_our_cdrom_and_out_of_it():
    empty = kvm_xml.domain(make_spec(root=make_root()), "kvm", "/pool/root")

    full = kvm_xml.with_media(empty, "/drives/a.iso")
    replaced = kvm_xml.with_media(full, "/drives/b.iso")

    assert [kvm_xml.inserted_path(text) for text in (empty, full, replaced)] == [None, "/drives/a.iso", "/drives/b.iso"]
    assert kvm_xml.inserted_path(kvm_xml.with_media(full, None)) is None
    assert kvm_xml.disk_paths(full) == ["/pool/root"]
    (source,) = (s for s in ET.fromstring(full).iterfind("devices/disk/source") if s.get("file") == "/drives/a.iso")
    assert source.get("startupPolicy") == "optional"  # a lost ISO must not keep the VM from starting


def test_foreign_cdrom_is_left_alone():
    foreign = "<domain><devices><disk device='cdrom'><source file='/u/install.iso'/></disk></devices></domain>"
    with pytest.raises(Refused):
        kvm_xml.with_media(foreign, "/drives/a.iso")


@pytest.mark.parametrize(
    "name", ["a.iso.", "a.img", "../a.iso", "a b.iso", "a_b.iso", ".iso", "x" * 101 + ".iso", "a.iso\n"]
)
def test_iso_name_that_is_none_is_refused(name):
    assert not kvm_xml.is_media_name(name)
    with pytest.raises(Refused):
        kvm_xml.media_volume(name, 2048)


def test_drive_is_for_its_owners_eyes_from_the_beginning():
    assert ET.fromstring(kvm_xml.media_volume("i-2-3-VM-1-ab.iso", 2048)).findtext("target/permissions/mode") == "0600"


def test_overlay_says_both_formats():
    top = ET.fromstring(kvm_xml.overlay_volume(make_root(image_format="raw"), "/pool/base.img", 10**9))

    assert top.find("target/format").get("type") == "qcow2"
    assert top.find("backingStore/format").get("type") == "raw"


@pytest.mark.parametrize("image_format", ["", "vmdk", "auto"])
def test_other_image_format_is_refused(image_format):
    with pytest.raises(Refused):
        kvm_xml.overlay_volume(make_root(image_format=image_format), "/pool/base", 10**9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<domain>",
        "<!DOCTYPE d [<!ENTITY a 'x'>]><domain>&a;</domain>",
        "<domain>" + " " * kvm_xml.DOCUMENT_MAX_CHARACTERS + "</domain>",
    ],
)
def test_document_that_cannot_be_libvirts_is_refused(text):
    with pytest.raises(Refused):
        kvm_xml.parse(text)


@pytest.mark.parametrize(("types", "expected"), [(["qemu"], "qemu"), (["qemu", "kvm"], "kvm"), ([], "qemu")])
def test_accelerator_is_used_where_the_host_lists_it(types, expected):
    domains = "".join(f"<domain type='{kind}'/>" for kind in types)
    other = "<guest><arch name='aarch64'><domain type='kvm'/></arch></guest>"
    text = f"<capabilities><guest><arch name='x86_64'>{domains}</arch></guest>{other}</capabilities>"
    assert kvm_xml.accelerator(text) == expected


@pytest.mark.parametrize(("state", "expected"), [("connected", True), ("disconnected", False), (None, None)])
def test_agent_channel_state(state, expected):
    attribute = f" state='{state}'" if state else ""
    target = f"<target type='virtio' name='org.qemu.guest_agent.0'{attribute}/>"
    assert kvm_xml.agent_connected(f"<domain><devices><channel>{target}</channel></devices></domain>") is expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("<target name='org.qemu.guest_agent.0' state='connected'/>", AgentState.CONNECTED),
        ("<target name='org.qemu.guest_agent.0' state='disconnected'/>", AgentState.NOT_CONNECTED),
        ("<target name='org.qemu.guest_agent.0'/>", None),
        ("<target name='com.redhat.spice.0' state='connected'/>", AgentState.NO_CHANNEL),
    ],
)
def test_agent_as_the_host_sees_it(target, expected):
    assert agent_state(f"<domain><devices><channel>{target}</channel></devices></domain>") is expected


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("<mac address='52:54:00:00:03:AB'/><source bridge='cloudbr100'/>", NicState.PLUGGED),
        ("<mac address='52:54:00:00:03:ab'/><source bridge='cloudbr100'/><link state='up'/>", NicState.PLUGGED),
        ("<mac address='52:54:00:00:03:ab'/><source bridge='cloudbr100'/><link state='down'/>", NicState.LINK_DOWN),
        ("<mac address='52:54:00:00:03:ab'/><source bridge='cloudbr200'/>", NicState.ELSEWHERE),
        ("<mac address='52:54:00:00:03:ab'/>", NicState.ELSEWHERE),
        ("<mac address='52:54:00:00:03:cd'/><source bridge='cloudbr100'/>", NicState.ABSENT),
        ("", NicState.ABSENT),
    ],
)
def test_nic_as_the_host_has_it(inside, expected):
    live = f"<domain><devices><interface type='bridge'>{inside}</interface></devices></domain>"
    spec = NicSpec("52:54:00:00:03:ab", NetworkRef("cloudbr100", 100))
    assert kvm_xml.nic_state(live, spec, on_test_driver=False) is expected
