"""What the tests of the image share."""

import pytest

from tests.configdrive.discs import ONE, TWO
from tests.configdrive.drives import tool
from tests.factories import make_cluster, make_endpoint, make_host, make_template
from tests.fakes import FakeHypervisor, hypervisors
from tests.life import deploy


@pytest.fixture
def run(tmp_path):
    """Run an independent tool in an empty directory and return its output as text."""
    return lambda name, *arguments: tool(tmp_path, name, *arguments).decode()


# Two hosts, and a VM on the first


@pytest.fixture
def hosts():
    """Two hosts in memory, which share the files of their cluster's primary storage."""
    shared: dict[str, bytes] = {}
    fakes = {name: FakeHypervisor(stored={"primary": shared}) for name in (ONE, TWO)}
    with hypervisors(fakes):
        yield fakes


@pytest.fixture
def cluster():
    cluster = make_cluster()
    # The first has more memory: VMs begin there.
    make_host(cluster, endpoint=make_endpoint(host=ONE), memory=64 * 1024**3)
    make_host(cluster, endpoint=make_endpoint(host=TWO))
    return cluster


@pytest.fixture
def one(hosts):
    return hosts[ONE]


@pytest.fixture
def two(hosts):
    return hosts[TWO]


@pytest.fixture
def vm(hosts, caller, cluster):
    return deploy(caller, cluster, template=make_template(password_enabled=True))
