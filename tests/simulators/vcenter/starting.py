"""A vCenter simulator for a test, or the reason why the test cannot run."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from networks.hypervisors.vsphere_session import SESSIONS
from tests.simulators.vcenter import Vcenter, VcenterMissing


@contextlib.contextmanager
def vcenter_for_tests(**options: int | bool | str) -> Iterator[Vcenter]:
    """One that runs; this process is logged out of it in the end."""
    vcenter = Vcenter(**options)
    try:
        vcenter.start()
    except VcenterMissing as missing:
        # A machine of CI must be able to build it: there, a skipped test would be a hole nobody sees.
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        yield vcenter
        SESSIONS.close()
    finally:
        vcenter.stop()
