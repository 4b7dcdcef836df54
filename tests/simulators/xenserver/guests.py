"""What the guests do: report addresses through their agent, obey a shut-down or not, lock the door of their CD drive.

A guest says nothing by itself unless `automatic` is set; it has paravirtual drivers unless it is said not to. Each boot
makes a new VM_guest_metrics object with the first report.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .classes import NULL
from .database import Row
from .errors import XenError

if TYPE_CHECKING:
    from .simulator import XenServer

_DEBIAN = {
    "name": "Debian GNU/Linux 12 (bookworm)",
    "distro": "debian",
    "major": "12",
    "minor": "5",
    "uname": "6.1.0-18-amd64",
}
_DRIVERS = {"major": "8", "minor": "3", "micro": "60", "build": "1"}
_OTHER = {
    "platform-feature-multiprocessor-suspend": "1",
    "feature-balloon": "1",
    "feature-poweroff": "1",
    "feature-reboot": "1",
    "feature-suspend": "1",
    "feature-vcpu-hotplug": "1",
    "has-vendor-device": "0",
}
# How xapi finds a number in the name that an old agent has for an interface.
_LEGACY_NAME = re.compile(r"(?:eth|xenbr|eno|ens|emp|enx)(\d+)")

ABOUT = {
    "os_version": _DEBIAN,
    "PV_drivers_version": _DRIVERS,
    "other": _OTHER,
    "can_use_hotplug_vbd": "yes",
    "can_use_hotplug_vif": "yes",
}


class Guests:
    """By reference of their VMs. Times in seconds."""

    def __init__(self, xen: "XenServer") -> None:
        self._xen = xen
        self._without_drivers: set[str] = set()
        self._disobedient: set[str] = set()
        self._locked: set[str] = set()
        self._automatic: tuple[float, ipaddress.IPv4Network] | None = None
        self.shutdown_seconds = 0.2
        self.door_seconds = 0.2

    # What a guest reports

    def report(self, vm: str, networks: Mapping[str, str], **more: object) -> str:
        """Have the agent of a running guest report this map of addresses; its VM_guest_metrics."""
        db = self._xen.db
        with db.lock:
            row = db.get("VM", vm)
            assert row["power_state"] != "Halted", "a guest that is off reports nothing"
            values = {"networks": dict(networks), "last_updated": datetime.now(UTC), **more}
            metrics = row.text("guest_metrics")
            if metrics == NULL:
                metrics = db.create("VM_guest_metrics", **{**ABOUT, **values})
                db.set("VM", vm, guest_metrics=metrics)
            else:
                db.set("VM_guest_metrics", metrics, **values)
            return metrics

    def has_addresses(self, vm: str, mac: str, *addresses: str) -> str:
        """As today's agents report it: by the device number of the VIF with this MAC. Other VIFs keep what they had."""
        db = self._xen.db
        row = db.get("VM", vm)
        vif = next(one for one in self._vifs(row) if one.text("MAC").lower() == mac.lower())
        device = vif.text("device")
        known = db.find("VM_guest_metrics", row["guest_metrics"])
        before = known.mapping("networks") if known else {}
        others = {key: value for key, value in before.items() if not key.startswith(f"{device}/")}
        return self.report(vm, others | by_device(device, addresses))

    def has_interfaces(self, vm: str, interfaces: Mapping[str, str]) -> str:
        """As old agents report it: an IPv4 address by the guest's own name of each interface."""
        numbered = {name: _LEGACY_NAME.fullmatch(name) for name in interfaces}
        known = {f"{found[1]}/ip": interfaces[name] for name, found in numbered.items() if found}
        return self.report(vm, known)

    def falls_silent(self, vm: str) -> None:
        """The agent died: what it said last stays."""
        self._xen.db.set("VM_guest_metrics", self._xen.db.get("VM", vm).text("guest_metrics"), live=False)

    def automatic(self, seconds: float, cidr: str) -> None:
        """From now on each guest that starts has an address of `cidr` on every VIF `seconds` later."""
        self._automatic = (seconds, ipaddress.IPv4Network(cidr))

    def started(self, vm: str) -> None:
        """A boot; the door is unlocked."""
        self._locked.discard(vm)
        if self._automatic is not None:
            seconds, network = self._automatic
            domid = self._xen.db.get("VM", vm)["domid"]
            self._xen.run_later(seconds, lambda: self._report_all(vm, domid, network))

    def _report_all(self, vm: str, domid: object, network: ipaddress.IPv4Network) -> None:
        with self._xen.db.lock:
            row = self._xen.db.find("VM", vm)
            if row is None or row["domid"] != domid:
                return
            networks: dict[str, str] = {}
            for vif in self._vifs(row):
                # The same NIC is always given the same one, as a DHCP server would.
                number = int(vif.text("MAC").replace(":", "")[-6:], 16) % (network.num_addresses - 20) + 10
                networks |= by_device(vif.text("device"), [str(network[number])])
            self.report(vm, networks)

    def _vifs(self, row: Row) -> list[Row]:
        return [self._xen.db.get("VIF", ref) for ref in row.refs("VIFs")]

    # How it behaves

    def without_drivers(self, vm: str) -> None:
        """It cannot be asked to shut down, nor be migrated."""
        self._without_drivers.add(vm)

    def ignores_shutdown(self, vm: str) -> None:
        self._disobedient.add(vm)

    def locks_door(self, vm: str) -> None:
        self._locked.add(vm)

    def unlocks_door(self, vm: str) -> None:
        self._locked.discard(vm)

    def assert_has_drivers(self, vm: str) -> None:
        if vm in self._without_drivers:
            raise XenError("VM_LACKS_FEATURE", vm)

    def obeys(self, vm: str) -> bool:
        return vm not in self._disobedient

    def has_locked_door(self, vm: str) -> bool:
        return vm in self._locked


def by_device(device: str, addresses: Iterable[str]) -> dict[str, str]:
    """The keys of today's agents, and the one that xapi adds for older readers."""
    versions: dict[int, list[str]] = {4: [], 6: []}
    for address in addresses:
        versions[ipaddress.ip_address(address).version].append(address)
    keys = {
        f"{device}/ipv{version}/{number}": address
        for version, found in versions.items()
        for number, address in enumerate(found)
    }
    return ({f"{device}/ip": versions[4][0]} if versions[4] else {}) | keys
