"""A pool for each test, and the real XenAPI library logged in to it."""

import pytest

from tests.simulators.xen_client import Client
from tests.simulators.xenserver import XenServer


@pytest.fixture
def xen():
    with XenServer(hosts=2) as xen:
        yield xen


@pytest.fixture
def client(xen):
    return Client.of(xen)


@pytest.fixture
def api(client):
    return client.api


@pytest.fixture
def vm(xen, api):
    """A halted VM like the template, with a NIC."""
    vm = api.VM.clone(xen.ref("VM", "debian-12"), "web")
    api.VM.set_is_a_template(vm, False)
    network = api.network.get_all()[0]
    record = {"device": "0", "network": network, "VM": vm, "MAC": "02:00:00:00:00:07", "MTU": "1500"}
    api.VIF.create(record | {"other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {}})
    return vm
