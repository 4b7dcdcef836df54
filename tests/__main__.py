"""`make test`: every test. `python -m tests ARGUMENTS` is pytest with these arguments, one test after the other.

Without arguments, most tests are shared out among the cores. Those of the lab and of faults follow, one
after the other: its guests boot without KVM, and what happens in them is timed.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

# Each goes to whoever is free, in pytest-django's order, in which those that leave an empty database behind come last.
# (This way of dealing out keeps the order. It makes no groups: pytest 9.2 takes from pytest-xdist 3.8 what they go by.)
SHARED_OUT = ("-m", "not (lab or alone)", "-n", "auto", "--dist", "loadgroup", "--no-loadscope-reorder")
ALONE = ("-m", "lab or alone")
PYTEST = (sys.executable, "-m", "pytest")
PASSED, FAILED = 0, 1


def main(arguments: list[str]) -> int:
    """The exit status: pytest's, of the first part that did not pass."""
    if arguments:
        return subprocess.run([*PYTEST, *arguments]).returncode
    # Processes that share tests out must agree on their order, and some stand in a set.
    environment = {"PYTHONHASHSEED": str(secrets.randbelow(2**32)), **os.environ}
    status, counted = PASSED, Counter[str]()
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory, "report.xml")
        for part in (SHARED_OUT, ALONE):
            ended = subprocess.run([*PYTEST, *part, f"--junitxml={report}"], env=environment).returncode
            status = status or ended
            if ended not in (PASSED, FAILED):
                return status
            counted += count(report)
    print(f"\n{counted['passed']} passed, {counted['failed']} failed, {counted['skipped']} skipped")
    return status


def count(report: Path) -> Counter[str]:
    """How many tests of a JUnit report ended how; an error in a fixture is a failure."""
    ended: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        marks = {mark.tag for mark in case}
        ended["failed" if marks & {"failure", "error"} else "skipped" if "skipped" in marks else "passed"] += 1
    return ended


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
