"""The page about hypervisors says what the drivers serve."""

import inspect

from networks.capabilities import WORDS, capability_table
from networks.hypervisors import base
from tests.server import ROOT


def test_the_pages_table_is_what_the_drivers_serve():
    page = (ROOT / "docs" / "hypervisors.md").read_text()
    assert capability_table() in page, "Make it anew: manage.py hypervisor_capabilities"


def test_every_protocol_of_a_driver_has_its_row():
    # What isinstance can ask for. A watch is what an EventSource gives.
    protocols = {each for _, each in inspect.getmembers(base, inspect.isclass) if getattr(each, "_is_protocol", False)}
    assert protocols - {base.Watch} - set(WORDS) <= {base.Protocol}
