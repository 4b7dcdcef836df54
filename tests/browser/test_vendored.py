"""What was made elsewhere and is served by us is what was looked at."""

import hashlib
from pathlib import Path

from tests.server import ROOT

VENDOR = ROOT / "extdhcp_site" / "static" / "vendor"
LISTED = dict(reversed(line.split()) for line in Path(VENDOR, "SHA256SUMS").read_text().splitlines() if line[0] != "#")


def test_every_file_is_the_one_that_the_list_names():
    present = {path.name: path for path in VENDOR.iterdir() if path.name != "SHA256SUMS"}

    assert {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in present.items()} == LISTED


def test_no_file_names_a_source_map():
    """It would be asked for, and is not there: `collectstatic` with hashed names stops at it."""
    assert [name for name in LISTED if "sourceMappingURL" in Path(VENDOR, name).read_text()] == []
