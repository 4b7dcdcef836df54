"""`make demo`: the whole idea on one machine, with libvirt's test driver for a hypervisor.

DEMO_EXIT=1 ends after the table instead of serving until Ctrl-C.
"""

import base64
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.server import ROOT, ApiFailed, Client, Server, ServerFailed
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

VMS = 5
ADDRESSES_WITHIN = 180.0
NOTE = (
    "These addresses are inventions of libvirt's test driver, which has VMs and NICs but no guests. "
    "`make lab` shows real guests with real leases."
)
USER_DATA = b"#cloud-config\npackages: [htop]\n"

console = Console(stderr=True)


def main() -> int:
    var = Path(os.environ.get("VAR_DIR", ROOT / "var")).absolute()
    state = var / "demo"
    libvirtd = PrivateLibvirtd(var / "libvirt")
    server = Server(state, var, LIBVIRT_TEST_SOCKET=libvirtd.socket, ALLOW_TEST_HYPERVISOR="true")
    try:
        _step("Making a fresh database")
        server.prepare()
        _step("Starting a private libvirtd with the test driver")
        libvirtd.start()
        server.environment["LIBVIRT_TEST_SOCKET"] = libvirtd.socket
        server.run("-m", "tests.seed", "demo")
        _step("Starting the server")
        server.start()
        complete = _deploy_and_show(server)
        if not os.environ.get("DEMO_EXIT"):
            _serve_until_interrupted(server)
        return 0 if complete else 1
    except (ServerFailed, LibvirtdMissing, ApiFailed, TimeoutError) as error:
        console.print(f"[bold red]The demo failed:[/] {error}")
        return 1
    finally:
        server.stop()
        libvirtd.stop()


def _step(text: str) -> None:
    console.print(f"[dim]·[/] {text}")


def _deploy_and_show(server: Server) -> bool:
    api = server.client
    network = _create_network(api)
    zone = api("listZones")["zone"][0]["id"]
    template = api("listTemplates", templatefilter="executable")["template"][0]["id"]
    offering = api("listServiceOfferings")["serviceoffering"][0]["id"]
    columns = (TextColumn("  {task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        deployed = progress.add_task("VMs deployed through the API", total=VMS)
        found = progress.add_task("addresses learned by the fetch loop", total=VMS)
        jobs = [
            api(
                "deployVirtualMachine",
                name=f"demo-{number}",
                zoneid=zone,
                templateid=template,
                serviceofferingid=offering,
                networkids=network,
                userdata=base64.b64encode(USER_DATA).decode(),
            )["jobid"]
            for number in range(1, VMS + 1)
        ]
        for job in jobs:
            api.wait_for(job)
            progress.advance(deployed)
        give_up = time.monotonic() + ADDRESSES_WITHIN
        known = 0
        while known < VMS and time.monotonic() < give_up:
            time.sleep(0.5)
            vms = api("listVirtualMachines").get("virtualmachine", [])
            known = sum("ipaddress" in nic for vm in vms for nic in vm["nic"])
            progress.update(found, completed=known)
    _print_table(json.loads(server.run("-m", "tests.demo.found")))
    return known == VMS


def _create_network(api: Client) -> str:
    _step("Creating a network offering without services, and its shared network 192.168.0.0/16")
    offering = api(
        "createNetworkOffering",
        name="external-dhcp",
        displaytext="No services: DHCP and DNS are external",
        guestiptype="Shared",
        traffictype="Guest",
        specifyvlan="true",
        specifyipranges="true",
    )["networkoffering"]
    api("updateNetworkOffering", id=offering["id"], state="Enabled")
    network: dict[str, Any] = api(
        "createNetwork",
        name="corporate-100",
        displaytext="VLAN 100, addresses by somebody else's DHCP server",
        networkofferingid=offering["id"],
        zoneid=api("listZones")["zone"][0]["id"],
        vlan=100,
        gateway="192.168.0.1",
        netmask="255.255.0.0",
        startip="192.168.122.2",
        endip="192.168.123.254",
    )["network"]
    return str(network["id"])


def _print_table(rows: list[list[str]]) -> None:
    table = Table(title="Addresses learned", title_justify="left")
    for heading in ("VM", "NIC", "MAC", "address", "source", "tries", "took"):
        table.add_column(heading, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    # Into a pipe rich would cut the columns to 80 characters.
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    console.print(NOTE)


def _serve_until_interrupted(server: Server) -> None:
    fields = server.announced
    console.print(
        f"\nConsole   [bold]{fields['console']}[/]  user [bold]{server.username}[/]  "
        f"password [bold]{server.password}[/]"
    )
    console.print(f"API       {fields['endpoint']}  (keys in var/server.json)")
    console.print("Try, in another terminal:  .venv/bin/python manage.py list_vms     Ctrl-C stops all.")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    console.print("Stopping …")


if __name__ == "__main__":
    sys.exit(main())
