"""Drives of many VMs, each read by four programs that share no code with what made it."""

import re
import tempfile
from pathlib import Path

from hypothesis import example, given, settings

from configdrive.content import USER_DATA_FILES
from configdrive.iso import build_iso
from tests.configdrive.drives import DATED, FACTS, MOST_USER_DATA, files_below, make_files, tool


@settings(deadline=None, max_examples=8)
@example(facts={"user_data": b"", "password": None})
@example(facts={"user_data": b"#" * 2048})
@example(facts={"user_data": b"#" * 2049, "windows": False})
@example(facts={"user_data": bytes(range(256)) * (MOST_USER_DATA // 256)})
@given(facts=FACTS)
def test_every_program_reads_the_same_drive(facts):
    files = make_files(**facts)
    with tempfile.TemporaryDirectory() as directory:
        there = Path(directory)
        (there / "drive.iso").write_bytes(build_iso(files, "config-2", DATED))

        blkid_reads_the_label(there)
        xorriso_reads(there, files)
        bsdtar_reads(there, files)
        isoinfo_reads(there, files)
        isoinfo_finds_user_data_once(there, files)


def blkid_reads_the_label(there: Path) -> None:
    answer = tool(there, "blkid", "-p", "-o", "value", "-s", "LABEL", "-s", "TYPE", "drive.iso")
    assert answer.split() == [b"config-2", b"iso9660"]


def xorriso_reads(there: Path, files: dict[str, bytes]) -> None:
    tool(there, "xorriso", "-osirrox", "on", "-indev", "drive.iso", "-extract", "/", "by-xorriso")

    assert files_below(there / "by-xorriso") == files
    for path in files:
        mode = 0o444 if path.startswith("cloudstack/metadata/") else 0o400
        assert (there / "by-xorriso" / path).stat().st_mode & 0o777 == mode


def bsdtar_reads(there: Path, files: dict[str, bytes]) -> None:
    for without in ("joliet", "rockridge"):
        (there / without).mkdir()
        tool(there, "bsdtar", "-x", "-C", without, "--options", f"iso9660:!{without}", "-f", "drive.iso")
        assert files_below(there / without) == files


def isoinfo_reads(there: Path, files: dict[str, bytes]) -> None:
    assert b"Volume id: config-2\n" in tool(there, "isoinfo", "-d", "-i", "drive.iso")
    for names in ("-R", "-J"):
        for path, content in files.items():
            assert tool(there, "isoinfo", names, "-x", f"/{path}", "-i", "drive.iso") == content


def isoinfo_finds_user_data_once(there: Path, files: dict[str, bytes]) -> None:
    for names in ("-R", "-J"):
        listing = tool(there, "isoinfo", "-l", names, "-i", "drive.iso").decode()
        blocks = re.findall(r"\[ *(\d+) \w+\] +(?:user_data\.txt|userdata\.txt|user_data)\s", listing)
        assert len(blocks) == sum(path in files for path in USER_DATA_FILES)
        assert len(set(blocks)) <= 1
