import ast
from pathlib import Path

import pytest

from networks.hypervisors import base
from networks.hypervisors.base import EndpointAddress, Refused, Transport
from networks.hypervisors.drivers import driver
from tests.fakes import FakeHypervisor

HERE = Path(base.__file__).parent
PROTOCOLS = [
    base.Inventory,
    base.NetworkOperations,
    base.Volumes,
    base.VmOperations,
    base.MediaStore,
    base.GuestAgent,
    base.AddressReader,
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_fake_has_what_every_protocol_asks_for(protocol):
    assert isinstance(FakeHypervisor(), protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_kvm_serves_every_protocol(protocol):
    assert isinstance(driver("KVM", EndpointAddress(Transport.LOCAL)), protocol)


def test_unknown_kind_is_refused():
    with pytest.raises(Refused, match="Abacus"):
        driver("Abacus", EndpointAddress(Transport.LOCAL))


@pytest.mark.parametrize("module", sorted(HERE.glob("*.py")), ids=lambda path: path.name)
def test_driver_imports_its_library_and_nothing_else_of_ours(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            ours = node.module.startswith(("networks", "extdhcp_site", "ipfetch", "configdrive"))
            assert not ours or node.module.startswith("networks.hypervisors")
            assert not node.module.startswith("django")
