"""Real KVM hosts, a real external DHCP server and a small guest, all on this machine.

`bring_up()` gives the running `Lab`, `tear_down()` ends it; `python -m tests.lab up|down|status|selftest`
does the same by hand. Only Debian packages and the Python standard library are needed.
"""

from tests.lab.lab import Lab, alone, bring_up, describe, is_up, tear_down, why_not
from tests.lab.system import LabError

__all__ = ["Lab", "LabError", "alone", "bring_up", "describe", "is_up", "tear_down", "why_not"]
