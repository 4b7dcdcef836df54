"""The product served on a simulated pool and on a simulated vCenter, and CloudStack's own `cs` client for it."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from cs import CloudStack

from tests.lab.system import wait_for
from tests.pools.worlds import VLAN, World, vmware, xenserver
from tests.server import Server

USER_DATA = b"#!/bin/sh\necho pool\n"


@dataclass
class Cloud:
    world: World
    server: Server
    api: CloudStack
    network: str

    def deploy(self, name: str, host: str) -> dict[str, Any]:
        (zone,) = self.api.listZones()["zone"]
        (template,) = self.api.listTemplates(templatefilter="executable")["template"]
        (offering,) = self.api.listServiceOfferings()["serviceoffering"]
        return self.api.deployVirtualMachine(
            name=name,
            zoneid=zone["id"],
            templateid=template["id"],
            serviceofferingid=offering["id"],
            networkids=self.network,
            hostid=self.host_id(host),
            userdata=base64.b64encode(USER_DATA).decode(),
            fetch_result=True,
        )["virtualmachine"]

    def host_id(self, name: str) -> str:
        (host,) = self.api.listHosts(name=name)["host"]
        return str(host["id"])

    def vm(self, vm_id: str) -> dict[str, Any]:
        return self.api.listVirtualMachines(id=vm_id)["virtualmachine"][0]

    def address(self, vm_id: str) -> str:
        def known() -> str | None:
            return self.api.listNics(virtualmachineid=vm_id)["nic"][0].get("ipaddress")

        return wait_for("the address in listNics", known, 60)


@pytest.fixture(scope="module", params=[xenserver, vmware], ids=["XenServer", "VMware"])
def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    directory = tmp_path_factory.mktemp("p")
    with request.param() as world:
        yield from _served(world, Server(directory / "s", directory / "v", ALLOW_TEST_HYPERVISOR="true"))


def _served(world: World, server: Server) -> Iterator[Cloud]:
    try:
        server.prepare()
        server.run("-m", "tests.seed", "pool", json.dumps(_described(world)))
        server.start()
        fields = server.announced
        api = CloudStack(fields["endpoint"], fields["api_key"], fields["secret_key"], poll_interval=0.2)
        (zone,) = api.listZones()["zone"]
        api.registerTemplate(
            name="linux", format=world.format, hypervisor=world.kind, url=world.template, zoneid="-1",
            passwordenabled=True, ispublic=True, osfamily="Linux",
        )  # fmt: skip
        offering = api.createNetworkOffering(
            name="external", displaytext="x", guestiptype="Shared", traffictype="Guest", enable=True
        )["networkoffering"]
        network = api.createNetwork(
            name="corporate", displaytext="Guests", networkofferingid=offering["id"], zoneid=zone["id"], vlan=VLAN,
            gateway="192.0.2.1", netmask="255.255.255.0", startip="192.0.2.50", endip="192.0.2.99",
        )["network"]  # fmt: skip
        yield Cloud(world, server, api, network["id"])
    finally:
        server.stop()


def _described(world: World) -> dict[str, Any]:
    address = world.address
    return {
        "kind": world.kind,
        "hosts": world.hosts,
        "storage": world.storage,
        "endpoint": {
            "transport": address.transport,
            "host": address.host,
            "port": address.port,
            "username": address.username,
            "password": address.password,
            "ca_certificates": address.ca_certificates,
        },
    }
