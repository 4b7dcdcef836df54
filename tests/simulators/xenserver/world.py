"""What is in the pool at first, and how many VMs are made at once."""

import ipaddress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from . import devices, guests, storage, vms
from .classes import NULL

if TYPE_CHECKING:
    from .simulator import XenServer

GIB = 1024**3
MIB = 1024**2
HOST_MEMORY = 256 * GIB
SOFTWARE = {
    "product_version": "8.3.0",
    "product_version_text": "8.3",
    "product_brand": "XCP-ng",
    "platform_name": "XCP",
    "platform_version": "3.4.0",
    "build_number": "cloud",
    "hostname": "localhost",
    "date": "20241004T00:00:00Z",
    "xapi": "24.39",
    "xen": "4.17.5-13",
    "linux": "4.19.0+1",
}
PLATFORM = {
    "acpi": "1",
    "apic": "true",
    "device-model": "qemu-upstream-compat",
    "hpet": "true",
    "nx": "true",
    "pae": "true",
    "secureboot": "auto",
    "timeoffset": "0",
    "vga": "std",
    "videoram": "8",
    "viridian": "false",
}
RECOMMENDATIONS = (
    '<restrictions><restriction field="memory-static-max" max="1649267441664"/>'
    '<restriction field="vcpus-max" max="32"/>'
    '<restriction field="has-vendor-device" value="false"/><restriction field="allow-gpu-passthrough" value="1"/>'
    '<restriction field="allow-vgpu" value="1"/><restriction field="allow-network-sriov" value="1"/>'
    '<restriction field="supports-bios" value="yes"/><restriction field="supports-uefi" value="yes"/>'
    '<restriction max="255" property="number-of-vbds"/><restriction max="7" property="number-of-vifs"/></restrictions>'
)
BIOS = {
    "bios-vendor": "Xen",
    "bios-version": "",
    "system-manufacturer": "Xen",
    "system-product-name": "HVM domU",
    "system-version": "",
    "system-serial-number": "",
    "baseboard-manufacturer": "",
    "enclosure-asset-tag": "",
    "hp-rombios": "",
    "oem-1": "Xen",
    "oem-2": "MS_VM_CERT/SHA1/bdbeb6e0a816d43fa6d3fe8aaef04c2bad9d3e3d",
}
GUEST = {
    "platform": PLATFORM,
    "recommendations": RECOMMENDATIONS,
    "bios_strings": BIOS,
    "HVM_boot_policy": "BIOS order",
    "HVM_boot_params": {"firmware": "bios", "order": "cdn"},
    "other_config": {
        "base_template_name": "Debian Bookworm 12",
        "install-methods": "cdrom,nfs,http,ftp",
        "linux_template": "true",
    },
    "reference_label": "debian-12",
}
TEMPLATE = "debian-12"
PRIMARY = "primary"
TRUNK = "Pool-wide network associated with eth0"
TRUNK_BRIDGE = "xenbr0"


def build(xen: "XenServer") -> None:
    """A pool, its hosts with a disk of their own each, one network, one shared repository, one template."""
    db = xen.db
    trunk = db.create("network", name_label=TRUNK, bridge=TRUNK_BRIDGE)
    hosts = [_add_host(xen, f"xen{number + 1}", address, trunk) for number, address in enumerate(xen.addresses)]
    for number, host in enumerate(hosts):
        config = {"device": f"/dev/disk/by-id/scsi-{number}"}
        storage.add_sr(xen, host, config, "Local storage", "", "ext", "user", False, {})
    config = {"server": "nas", "serverpath": "/primary", "nfsversion": "3"}
    primary = storage.add_sr(xen, hosts[0], config, PRIMARY, "", "nfs", "", True, {}, 20_000 * GIB)
    db.create("pool", name_label="pool", master=hosts[0], default_SR=primary, suspend_image_SR=primary)
    _add_template(xen, primary, trunk)


def _add_host(xen: "XenServer", hostname: str, address: str, trunk: str) -> str:
    db = xen.db
    metrics = db.create(
        "host_metrics", memory_total=HOST_MEMORY, memory_free=HOST_MEMORY, last_updated=datetime.now(UTC)
    )
    host = db.create(
        "host",
        name_label=hostname,
        hostname=hostname,
        address=address,
        metrics=metrics,
        software_version=SOFTWARE | {"hostname": hostname},
        capabilities=("xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"),
        cpu_info={
            "cpu_count": "16",
            "socket_count": "2",
            "threads_per_core": "1",
            "vendor": "GenuineIntel",
            "speed": "2394.454",
            "modelname": "Intel(R) Xeon(R) Silver 4210R CPU @ 2.40GHz",
        },
        allowed_operations=("vm_start", "vm_migrate", "provision", "vm_resume", "evacuate"),
    )
    add_interface(
        xen, host, trunk, "eth0", management=True, ip_configuration_mode="Static", IP=address, netmask="255.0.0.0"
    )
    control = db.create(
        "VM",
        name_label=f"Control domain on host: {hostname}",
        is_control_domain=True,
        power_state="Running",
        resident_on=host,
        domid=0,
        domain_type="pv",
    )
    db.set("host", host, control_domain=control)
    return host


def add_interface(xen: "XenServer", host: str, network: str, device: str, **more: object) -> str:
    mac = devices.random_mac()
    return xen.db.create("PIF", host=host, network=network, device=device, MAC=mac, physical=True, **more)


def _add_template(xen: "XenServer", sr: str, trunk: str) -> None:
    db = xen.db
    template = db.create(
        "VM",
        name_label=TEMPLATE,
        is_a_template=True,
        memory_static_min=512 * MIB,
        memory_static_max=GIB,
        memory_dynamic_min=GIB,
        memory_dynamic_max=GIB,
        metrics=db.create("VM_metrics"),
        allowed_operations=("clone", "copy", "destroy", "export", "provision"),
        **GUEST,
    )
    size = 8 * GIB
    disk = db.create("VDI", SR=sr, name_label=f"{TEMPLATE} root", virtual_size=size, physical_utilisation=GIB)
    db.set("VDI", disk, location=db.get("VDI", disk)["uuid"])
    common = {"VM": template, "allowed_operations": ("attach",)}
    db.create("VBD", VDI=disk, userdevice="0", bootable=True, mode="RW", type="Disk", unpluggable=True, **common)
    db.create("VBD", VDI=NULL, userdevice="3", mode="RO", type="CD", empty=True, **common)


def add_vms(xen: "XenServer", count: int, cidr: str) -> list[str]:
    db = xen.db
    network = ipaddress.IPv4Network(cidr)
    trunk = db.one("network", bridge=TRUNK_BRIDGE).ref
    with db.lock:
        running_on = [row.ref for row in db.rows_by_creation("host")]
        memory = 256 * MIB
        for host in running_on:
            metrics = db.get("host_metrics", db.get("host", host)["metrics"])
            db.set("host_metrics", metrics.ref, memory_total=metrics.number("memory_total") + count * memory)
        first = db.count("VM")
        return [
            _add_vm(
                xen,
                first + number,
                running_on[number % len(running_on)],
                trunk,
                memory,
                str(network[number % (network.num_addresses - 2) + 1]),
            )
            for number in range(count)
        ]


def _add_vm(xen: "XenServer", number: int, host: str, trunk: str, memory: int, address: str) -> str:
    db = xen.db
    now = datetime.now(UTC)
    mac = f"02:00:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"
    sizes = {f"memory_{name}": memory for name in ("static_min", "static_max", "dynamic_min", "dynamic_max", "target")}
    vm = db.create(
        "VM",
        name_label=f"vm-{number:05}",
        name_description="one of many",
        power_state="Running",
        resident_on=host,
        domid=xen.next_domid(),
        domarch="x86_64",
        metrics=db.create(
            "VM_metrics", memory_actual=memory, VCPUs_number=1, start_time=now, last_updated=now, hvm=True
        ),
        guest_metrics=db.create(
            "VM_guest_metrics", **guests.ABOUT, networks=guests.by_device("0", [address]), last_updated=now
        ),
        allowed_operations=vms.ALLOWED["Running"],
        **sizes,
        **GUEST,
    )
    plugged = {"VM": vm, "currently_attached": True, "allowed_operations": ("attach", "unplug")}
    db.create("VIF", network=trunk, device="0", MAC=mac, **plugged)
    db.create("VBD", userdevice="3", device="xvdd", mode="RO", type="CD", empty=True, **plugged)
    return vm
