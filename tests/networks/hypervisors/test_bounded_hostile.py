"""What a hostile endpoint costs us: little memory, not more time than was given, and a named error."""

import contextlib
import json
import subprocess
import sys

import pytest

from tests.networks.hypervisors.hostile import (
    MIB,
    SLOW,
    TRANSPORT,
    VSPHERE_MARKUP,
    XEN_MARKUP,
    Cost,
    ten_thousand_vms,
    until_the_end,
)
from tests.networks.hypervisors.https_servers import HOST, answering, make_identity, serving

# Nobody waits so long: what is refused is refused long before.
PATIENCE, SHORT = 100.0, 1.0
CALLS = ("xen", "vsphere", "file")
CASES = {
    **{(call, name): (answer, PATIENCE) for name, answer in TRANSPORT.items() for call in CALLS},
    **{(call, name): (answer, SHORT) for name, answer in SLOW.items() for call in CALLS},
    **{("xen", name): (answer, PATIENCE) for name, answer in XEN_MARKUP.items()},
    **{("vsphere", name): (answer, PATIENCE) for name, answer in VSPHERE_MARKUP.items()},
    ("xen", "10,000 VMs"): (lambda: until_the_end(ten_thousand_vms()), PATIENCE),
    ("xen for little", "10,000 VMs"): (lambda: until_the_end(ten_thousand_vms()), PATIENCE),
}
OTHER_OUTCOMES = {
    "nothing": "EndpointUnreachable",
    "a redirect": "EndpointUnreachable",
    **dict.fromkeys(SLOW, "DeadlineExceeded"),
    ("file", "a redirect"): "Refused",
    ("xen for little", "10,000 VMs"): "an answer",
}


@pytest.fixture(scope="module")
def costs():
    """Of every case, asked one after the other by a process of its own."""
    identity = make_identity(HOST)
    context = identity.context()
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(answering(answer()), context)) for answer, _ in CASES.values()]
        asked = [
            [call, HOST, server.port, identity.fingerprint, seconds]
            for (call, _), (_, seconds), server in zip(CASES, CASES.values(), servers, strict=True)
        ]
        asking = [sys.executable, "-m", "tests.networks.hypervisors.hostile"]
        done = subprocess.run(asking, input=json.dumps(asked), capture_output=True, text=True, check=True)
    lines = [Cost(**json.loads(line)) for line in done.stdout.splitlines()]
    return dict(zip(CASES, lines, strict=True))


@pytest.mark.parametrize(("call", "name"), CASES)
def test_a_hostile_answer_costs_little_and_has_a_name(call, name, costs):
    cost = costs[call, name]
    assert cost.outcome == OTHER_OUTCOMES.get((call, name), OTHER_OUTCOMES.get(name, "AnswerRefused"))
    assert cost.memory < 64 * MIB
    assert cost.seconds < CASES[call, name][1] + 2
