"""libvirt's XML, built and read. Values in, text out: nothing here talks to a host.

Sources: libvirt's domain, storage and capabilities formats. Everything that enters a document is
checked first, also what the builder would escape: a name also becomes a file on the host.
"""

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass

from networks.hypervisors.base import ImageRoot, KernelRoot, NicSpec, NicState, Refused, VmRef, VmSpec

NAMESPACE = "urn:extdhcp:vm"  # of the mark that says: this domain is ours
CONFIG_DRIVE_ALIAS = "ua-configdrive"  # libvirt keeps an alias only if it begins with "ua-"
# Machine type pc has four IDE units. The first CD-ROM is the user's, so ours takes the last. Neither
# could be plugged in later: IDE has no hot-plug.
USER_CDROM, CONFIG_DRIVE = "hdc", "hdd"
AGENT_CHANNEL = "org.qemu.guest_agent.0"
TEST_NETWORK = "default"
LOG_DIRECTORY = "/var/log/libvirt/qemu"
DOCUMENT_MAX_CHARACTERS = 4 * 1024 * 1024

_VM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_STORAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_MEDIA_NAME = re.compile(r"[A-Za-z0-9-]{1,100}\.iso")
_BRIDGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")  # IFNAMSIZ is 16 with the final NUL
_MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # an odd first octet is a group address
_PATH = re.compile(r"(/[A-Za-z0-9._+@=,~ -]+)+")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd]")
_IMAGE_FORMATS = ("qcow2", "raw")

ET.register_namespace("extdhcp", NAMESPACE)


# Checks: each gives its value back, or raises Refused -------------------------------------------


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise Refused(f"{what} {value[:100]!r} has a form that cannot be used on the host.")
    return value


def vm_name(name: str) -> str:
    return _checked(_VM_NAME, name, "The VM name")


def vm_uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Refused("The VM's UUID is none.") from None


def pool_name(name: str) -> str:
    return _checked(_STORAGE_NAME, name, "The storage pool name")


def volume_name(name: str) -> str:
    return _checked(_STORAGE_NAME, name, "The volume name")


def media_name(name: str) -> str:
    return _checked(_MEDIA_NAME, name, "The ISO name")


def is_media_name(name: str) -> bool:
    return _MEDIA_NAME.fullmatch(name) is not None


def bridge_name(name: str) -> str:
    return _checked(_BRIDGE, name, "The bridge name")


def mac_address(text: str) -> str:
    return _checked(_MAC, text, "The MAC address")


def file_path(path: str) -> str:
    if ".." in path.split("/"):
        raise Refused("A path on the host must not contain '..'.")
    return _checked(_PATH, path, "The path")


def _image_format(name: str) -> str:
    if name not in _IMAGE_FORMATS:
        raise Refused(f"Images are {' or '.join(_IMAGE_FORMATS)}, not {name[:20]!r}.")
    return name


def _positive(number: int, what: str) -> int:
    if number < 1:
        raise Refused(f"{what} must be 1 or more.")
    return number


def _printable(text: str) -> str:
    """Without what XML cannot hold, or a terminal would obey; also without line ends, which libvirt refuses."""
    return _UNPRINTABLE.sub(" ", text)


# Building ---------------------------------------------------------------------------------------


def _add(parent: ET.Element, tag: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _text(element: ET.Element) -> str:
    return ET.tostring(element, encoding="unicode")


def domain(spec: VmSpec, domain_type: str, root_path: str | None) -> str:
    """The definition of a VM, its CD-ROMs empty. `domain_type` is kvm, qemu or test.

    `root_path` is where the ROOT volume of an ImageRoot lies on the host.
    """
    top = ET.Element("domain", type=domain_type)
    _add(top, "name", vm_name(spec.vm.name))
    _add(top, "uuid", vm_uuid(spec.vm.uuid))  # QEMU makes it the SMBIOS UUID as well
    if title := _printable(spec.title).strip():
        _add(top, "title", title)
    _add(_add(top, "metadata"), f"{{{NAMESPACE}}}vm")
    _add(top, "memory", str(_positive(spec.memory, "Memory") // 1024), unit="KiB")
    _add(top, "vcpu", str(_positive(spec.cpus, "The number of CPUs")))
    _add_boot(top, spec.root)
    features = _add(top, "features")
    _add(features, "acpi")
    _add(features, "apic")
    if domain_type == "kvm":
        # QEMU's default processor is too old for current distributions (x86-64-v2).
        _add(top, "cpu", mode="host-model")
    _add(top, "clock", offset="utc")
    _add(top, "on_poweroff", "destroy")
    _add(top, "on_reboot", "restart")
    _add(top, "on_crash", "restart")
    devices = _add(top, "devices")
    if root_path is not None:
        _add_root_disk(devices, root_path)
    _add_user_cdrom(devices)
    devices.append(_config_drive(None))
    for spec_nic in spec.nics:
        devices.append(_nic(spec_nic, domain_type))
    _add_serial(devices, spec.vm)
    _add(_add(devices, "channel", type="unix"), "target", type="virtio", name=AGENT_CHANNEL)
    return _text(top)


def _add_boot(top: ET.Element, root: ImageRoot | KernelRoot) -> None:
    boot = _add(top, "os")
    _add(boot, "type", "hvm", arch="x86_64", machine="pc")
    if isinstance(root, KernelRoot):
        _add(boot, "kernel", file_path(root.kernel))
        _add(boot, "initrd", file_path(root.initrd))
        if root.command_line:
            _add(boot, "cmdline", _printable(root.command_line))
    else:
        _add(boot, "boot", dev="hd")


def _add_root_disk(devices: ET.Element, path: str) -> None:
    # By path, not by pool: AppArmor's profiles on Debian and Ubuntu do not know disks of type volume.
    disk = _add(devices, "disk", type="file", device="disk")
    # The format is always said: a guest could write another format's header into a probed disk.
    _add(disk, "driver", name="qemu", type="qcow2")
    _add(disk, "source", file=file_path(path))
    _add(disk, "target", dev="vda", bus="virtio")


def _add_user_cdrom(devices: ET.Element) -> None:
    disk = _add(devices, "disk", type="file", device="cdrom")
    _add(disk, "driver", name="qemu", type="raw")
    _add(disk, "target", dev=USER_CDROM, bus="ide")
    _add(disk, "readonly")


def config_drive(path: str | None) -> str:
    """Our CD-ROM with the ISO at `path`, or empty: what a change of media is told."""
    return _text(_config_drive(path))


def _config_drive(path: str | None) -> ET.Element:
    disk = ET.Element("disk", type="file", device="cdrom")
    _add(disk, "driver", name="qemu", type="raw")
    if path is not None:
        _add_media(disk, path)
    _add(disk, "target", dev=CONFIG_DRIVE, bus="ide")
    _add(disk, "readonly")
    _add(disk, "alias", name=CONFIG_DRIVE_ALIAS)
    return disk


def _add_media(disk: ET.Element, path: str) -> None:
    # Optional: an ISO that got lost must not keep a user's VM from starting.
    _add(disk, "source", file=file_path(path), startupPolicy="optional")


def nic(spec: NicSpec, domain_type: str) -> str:
    """A NIC as a VM that is there is given one more."""
    return _text(_nic(spec, domain_type))


def _nic(nic: NicSpec, domain_type: str) -> ET.Element:
    on_test_driver = domain_type == "test"
    interface = ET.Element("interface", type="network" if on_test_driver else "bridge")
    _add(interface, "mac", address=mac_address(nic.mac))
    bridge = bridge_name(nic.network.label)
    if on_test_driver:
        # The test driver has no bridges, and gives each NIC of this network an address of its own.
        _add(interface, "source", network=TEST_NETWORK)
    else:
        _add(interface, "source", bridge=bridge)
    _add(interface, "model", type="virtio")
    return interface


def _add_serial(devices: ET.Element, vm: VmRef) -> None:
    # libvirt's virtlogd writes and rotates the log, so a chatty guest cannot fill the host.
    serial = _add(devices, "serial", type="pty")
    _add(serial, "log", file=f"{LOG_DIRECTORY}/{vm_name(vm.name)}-serial.log", append="on")


def media_pool(name: str, directory: str) -> str:
    pool = ET.Element("pool", type="dir")
    _add(pool, "name", pool_name(name))
    target = _add(pool, "target")
    _add(target, "path", file_path(directory))
    _add(_add(target, "permissions"), "mode", "0711")
    return _text(pool)


def media_volume(name: str, size: int) -> str:
    """A file of `size` bytes that only its owner may read, from its creation on."""
    volume = _volume(media_name(name), size, "raw")
    return _text(volume)


def overlay_volume(root: ImageRoot, image_path: str, size: int) -> str:
    volume = _volume(volume_name(root.volume), size, "qcow2")
    backing = _add(volume, "backingStore")
    _add(backing, "path", file_path(image_path))
    _add(backing, "format", type=_image_format(root.image_format))
    return _text(volume)


def _volume(name: str, size: int, file_format: str) -> ET.Element:
    volume = ET.Element("volume")
    _add(volume, "name", name)
    _add(volume, "capacity", str(size), unit="bytes")
    target = _add(volume, "target")
    _add(target, "format", type=file_format)
    _add(_add(target, "permissions"), "mode", "0600")
    return volume


# Reading ----------------------------------------------------------------------------------------


def parse(text: str) -> ET.Element:
    """A host's document. Hosts are not trusted: no DTD (entities expand), no endless text."""
    if len(text) > DOCUMENT_MAX_CHARACTERS or "<!DOCTYPE" in text:
        raise Refused("The host answered with a document that cannot be libvirt's.")
    try:
        return ET.fromstring(text)  # noqa: S314 - bounded, and without a DTD there are no entities
    except ET.ParseError:
        raise Refused("The host answered with a document that is not XML.") from None


def accelerator(capabilities: str) -> str:
    """The domain type to use on a host: kvm where its processor helps, else qemu."""
    types = parse(capabilities).iterfind("guest/arch[@name='x86_64']/domain")
    return "kvm" if any(element.get("type") == "kvm" for element in types) else "qemu"


def macs(domain_xml: str) -> tuple[str, ...]:
    found = (element.get("address", "").lower() for element in parse(domain_xml).iterfind("devices/interface/mac"))
    return tuple(mac for mac in found if mac)


def bridges(domain_xml: str) -> list[str]:
    sources = parse(domain_xml).iterfind("devices/interface[@type='bridge']/source")
    return [bridge for source in sources if (bridge := source.get("bridge"))]


def disk_paths(domain_xml: str) -> list[str]:
    """The files of a VM's disks; its CD-ROMs left out."""
    sources = parse(domain_xml).iterfind("devices/disk[@device='disk']/source")
    return [path for source in sources if (path := source.get("file"))]


def has_agent_channel(domain_xml: str) -> bool:
    return any(target.get("name") == AGENT_CHANNEL for target in parse(domain_xml).iterfind("devices/channel/target"))


def agent_connected(live_xml: str) -> bool | None:
    """Whether the guest agent holds its end of the channel; None when the host does not say."""
    for target in parse(live_xml).iterfind("devices/channel/target"):
        if target.get("name") == AGENT_CHANNEL and (state := target.get("state")):
            return state == "connected"
    return None


def with_media(inactive_xml: str, path: str | None) -> str:
    """A VM's definition with the ISO at `path` in our own CD-ROM, or nothing in it."""
    top = parse(inactive_xml)
    drive = next(_config_drives(top), None)
    if drive is None:
        raise Refused("The VM has no CD-ROM of ours: define it again.")
    for source in drive.findall("source"):
        drive.remove(source)
    if path is not None:
        _add_media(drive, path)
    return _text(top)


def has_config_drive(domain_xml: str) -> bool:
    return next(_config_drives(parse(domain_xml)), None) is not None


def inserted_path(domain_xml: str) -> str | None:
    """The file in our own CD-ROM."""
    drive = next(_config_drives(parse(domain_xml)), None)
    source = None if drive is None else drive.find("source")
    return None if source is None else source.get("file")


def _config_drives(top: ET.Element) -> Iterator[ET.Element]:
    for disk in top.iterfind("devices/disk[@device='cdrom']"):
        alias = disk.find("alias")
        if alias is not None and alias.get("name") == CONFIG_DRIVE_ALIAS:
            yield disk


def nic_of(domain_xml: str, mac: str) -> str | None:
    """The description of the NIC with this MAC, as the VM has it; None when it has none."""
    interface = next(_interfaces(parse(domain_xml), mac), None)
    return None if interface is None else _text(interface)


def nic_state(live_xml: str, spec: NicSpec, *, on_test_driver: bool) -> NicState:
    """Whether the VM has the NIC on its bridge; the test driver has one network, and no bridges."""
    interface = next(_interfaces(parse(live_xml), spec.mac), None)
    if interface is None:
        return NicState.ABSENT
    source = interface.find("source")
    if not on_test_driver and (source is None or source.get("bridge") != spec.network.label):
        return NicState.ELSEWHERE
    link = interface.find("link")
    return NicState.LINK_DOWN if link is not None and link.get("state") == "down" else NicState.PLUGGED


def with_nic(inactive_xml: str, spec: NicSpec, domain_type: str) -> str:
    """A VM's definition with one NIC more, after those it has."""
    top = parse(inactive_xml)
    _devices(top).append(_nic(spec, domain_type))
    return _text(top)


def without_nic(inactive_xml: str, mac: str) -> str:
    top = parse(inactive_xml)
    devices = _devices(top)
    for interface in list(_interfaces(top, mac)):
        devices.remove(interface)
    return _text(top)


def _devices(top: ET.Element) -> ET.Element:
    devices = top.find("devices")
    if devices is None:
        raise Refused("The host answered with a VM that has no devices.")
    return devices


def _interfaces(top: ET.Element, mac: str) -> Iterator[ET.Element]:
    for interface in top.iterfind("devices/interface"):
        address = interface.find("mac")
        if address is not None and address.get("address", "").lower() == mac:
            yield interface


# Pools of these types have a directory on the host; the others hold volumes that are no files.
_POOLS_OF_FILES = ("dir", "fs", "netfs")


def pool_directory(pool_xml: str) -> str | None:
    """Where a pool's files lie; None for a pool of devices or of somebody's network storage."""
    top = parse(pool_xml)
    path = top.findtext("target/path") if top.get("type") in _POOLS_OF_FILES else None
    return path.rstrip("/") or None if path else None


@dataclass(frozen=True)
class VolumeFacts:
    """What a volume's description says; capacity in bytes."""

    path: str
    capacity: int
    backing_path: str | None


def volume_facts(volume_xml: str) -> VolumeFacts:
    top = parse(volume_xml)
    capacity = top.findtext("capacity", "")
    return VolumeFacts(
        path=top.findtext("target/path", ""),
        capacity=int(capacity) if capacity.isascii() and capacity.isdigit() else 0,
        backing_path=top.findtext("backingStore/path"),
    )
