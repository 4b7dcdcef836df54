"""`make test`: what its last line counts."""

import subprocess
from pathlib import Path

from tests.__main__ import PYTEST, count

EACH_END = """
import pytest

@pytest.fixture
def broken():
    raise RuntimeError

def test_one(): pass
def test_two(): pass
def test_three(): assert False
def test_four(broken): pass
def test_five(): pytest.skip()
"""


def test_each_end_of_a_test_is_counted(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(EACH_END)
    report = tmp_path / "report.xml"
    command = [*PYTEST, "-c", "/dev/null", "--rootdir", tmp_path, "-p", "no:django", f"--junitxml={report}", tmp_path]

    assert subprocess.run(command, capture_output=True).returncode == 1
    assert count(report) == {"passed": 2, "failed": 2, "skipped": 1}
