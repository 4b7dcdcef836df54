"""The product served on the lab's hosts, and CloudStack's own `cs` client for it."""

import base64
import contextlib
import json
import sqlite3
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cs import CloudStack

from tests.lab import Lab
from tests.lab.hosts import Host
from tests.lab.system import wait_for
from tests.server import Server

BOOT = 120  # seconds; about 12 on an idle machine
USER_DATA = b"#!/bin/sh\necho lab\n"


@dataclass
class Cloud:
    """The product on the lab's hosts, and what was made in it."""

    lab: Lab
    server: Server
    api: CloudStack
    network: str
    silent_network: str

    def deploy(
        self,
        name: str,
        host: Host,
        network: str,
        template: str = "small-linux",
        offering: str = "Tiny",
        **fields: object,
    ) -> dict[str, Any]:
        """Deploy through the API and wait for the job, as the client does. `fields` are more of the call's own."""
        fields = {"userdata": base64.b64encode(USER_DATA).decode(), **fields}
        return self.api.deployVirtualMachine(
            name=name,
            zoneid=self.id_of("zone", self.api.listZones()),
            templateid=self.id_of("template", self.api.listTemplates(templatefilter="executable", name=template)),
            serviceofferingid=self.id_of("serviceoffering", self.api.listServiceOfferings(name=offering)),
            networkids=network,
            hostid=self.host_id(host),
            fetch_result=True,
            **fields,
        )["virtualmachine"]

    def register_debian(self) -> None:
        """The template debian-12, as docs/templates.md says for a stock cloud image."""
        self.api.registerTemplate(
            name="debian-12",
            hypervisor="KVM",
            format="QCOW2",
            url=self.lab.add_debian(),
            zoneid="-1",
            ispublic=True,
            passwordenabled=True,
            drivereader="cloud-init",
            osfamily="Linux",
            guestostype="Debian GNU/Linux 12",
        )

    def take_agent_away(self, vm: dict[str, Any], host: Host) -> None:
        """Unplug the guest agent's channel, before a guest that was just started can have seen it."""
        definition = ET.fromstring(host.virsh("dumpxml", vm["instancename"]))
        channel = next(
            channel
            for channel in definition.iter("channel")
            if channel.find("target[@name='org.qemu.guest_agent.0']") is not None
        )
        with tempfile.NamedTemporaryFile(suffix=".xml") as file:
            file.write(ET.tostring(channel))
            file.flush()
            host.virsh("detach-device", vm["instancename"], file.name, "--live")

    @property
    def leases_url(self) -> str:
        """Where a DHCP server reports its leases."""
        return f"{self.server.announced['console']}api/v1/leases/"

    def lease_token(self) -> str:
        """A new token for the webhook, of the network that has a DHCP server."""
        return json.loads(self.server.manage("create_lease_token", self.network, "--json"))["token"]

    def host_id(self, host: Host) -> str:
        return self.id_of("host", self.api.listHosts(name=host.name))

    @staticmethod
    def id_of(word: str, answer: dict[str, Any]) -> str:
        assert answer["count"] == 1
        return str(answer[word][0]["id"])

    def vm(self, vm_id: str) -> dict[str, Any]:
        return self.api.listVirtualMachines(id=vm_id)["virtualmachine"][0]

    def nic(self, vm_id: str) -> dict[str, Any]:
        return self.api.listNics(virtualmachineid=vm_id)["nic"][0]

    def address(self, vm_id: str, seconds: float = BOOT) -> str:
        return wait_for("the address in listNics", lambda: self.nic(vm_id).get("ipaddress"), seconds)

    def queue(self, vm_id: str) -> list[tuple[str, int]]:
        """State and tries left of the VM's NICs in the queue, read beside the server."""
        return self.sql(
            "SELECT f.state, f.retries_left FROM ipfetch_ipfetch f JOIN networks_nic n ON n.id = f.nic_id "
            "JOIN networks_virtualmachine v ON v.id = n.vm_id WHERE v.uuid = ?",
            vm_id.replace("-", ""),
        )

    def sql(self, statement: str, *values: object) -> list[tuple]:
        database = sqlite3.connect(f"file:{self.server.state / 'extdhcp.sqlite3'}?mode=ro", uri=True)
        try:
            return database.execute(statement, values).fetchall()
        finally:
            database.close()

    def in_the_server(self, code: str) -> None:
        """Run statements in a process like the server's own."""
        self.server.run("-c", f"import django; django.setup(); {code}")

    @contextlib.contextmanager
    def configured(self, settings: Mapping[str, object]) -> Iterator[None]:
        """Other values for some settings, and then the former ones."""
        former = {name: self.api.listConfigurations(name=name)["configuration"][0]["value"] for name in settings}
        try:
            for name, value in settings.items():
                self.api.updateConfiguration(name=name, value=value)
            yield
        finally:
            for name, value in former.items():
                self.api.updateConfiguration(name=name, value=value)

    def drives_of(self, host: Host) -> list[str]:
        return sorted(path.name for path in host.config_drives.iterdir())

    def domains_of(self, host: Host) -> list[str]:
        return host.virsh("list", "--all", "--name").split()

    def console(self, host: Host, instance: str) -> str:
        path = host.qemu_logs / f"{instance}-serial.log"
        return path.read_text(errors="replace") if path.exists() else ""


@contextlib.contextmanager
def served(lab: Lab, directory: Path, **environment: str) -> Iterator[Cloud]:
    """Offering without services, its networks, and the server: made by the calls that the docs name."""
    server = Server(directory / "state", directory / "var", LEASE_DIR=str(lab.dhcp.lease_file.parent), **environment)
    server.prepare()
    server.run("-m", "tests.seed", "lab")
    server.start()
    try:
        fields = server.announced
        api = CloudStack(fields["endpoint"], fields["api_key"], fields["secret_key"], poll_interval=0.5)
        offering = api.createNetworkOffering(
            name="external-dhcp",
            displaytext="DHCP and DNS are external",
            guestiptype="Shared",
            traffictype="Guest",
            specifyvlan=True,
            specifyipranges=True,
        )["networkoffering"]
        assert (offering["state"], offering["service"]) == ("Disabled", [])
        api.updateNetworkOffering(id=offering["id"], state="Enabled")
        networks = [_create_network(api, offering["id"], vlan) for vlan in (lab.network, lab.silent_network)]
        yield Cloud(lab, server, api, *networks)
        for vm in api.listVirtualMachines(listall=True).get("virtualmachine", []):
            api.destroyVirtualMachine(id=vm["id"], expunge=True, fetch_result=True)
    finally:
        server.stop()


def _create_network(api: CloudStack, offering: str, vlan) -> str:
    network = api.createNetwork(
        name=vlan.name,
        displaytext=vlan.name,
        networkofferingid=offering,
        zoneid=api.listZones()["zone"][0]["id"],
        vlan=str(vlan.vlan),
        gateway=str(vlan.gateway),
        netmask=str(vlan.cidr.netmask),
        startip=str(vlan.start),
        endip=str(vlan.end),
    )["network"]
    return str(network["id"])
