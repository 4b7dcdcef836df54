"""Drives for the tests of the image, and what they hold when read back by pycdlib."""

import shutil
import subprocess
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import strategies as st
from pycdlib import PyCdlib

from configdrive.content import DriveFacts, drive_files

DATED = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
USER_DATA = b"#!/bin/sh\n# user data canary\n" + b"x" * 5000

# CloudStack's `vm.userdata.max.length` goes up to 1,048,576 characters of base64.
MOST_USER_DATA = 786_432

# What differs from VM to VM, for `make_files`.
FACTS = st.fixed_dictionaries(
    {
        "user_data": st.builds(lambda size, rest: b"u" * size + rest, st.integers(0, 70_000), st.binary(max_size=50)),
        "password": st.none() | st.from_regex(r"[A-Za-z0-9]{1,40}", fullmatch=True),
        "windows": st.booleans(),
        "hostname": st.from_regex(r"[a-z][a-z0-9-]{0,62}", fullmatch=True),
        "public_keys": st.lists(st.just("ssh-rsa " + "A" * 700), max_size=4).map(tuple),
        "local_ipv4": st.none() | st.just("192.0.2.7"),
    }
)


def make_files(**changes) -> dict[str, bytes]:
    facts = {
        "uuid": "6f0f9d2a-9c0b-4f63-9f5e-0d8d8a3e7c11",
        "instance_name": "i-2-21-VM",
        "vm_number": 21,
        "hostname": "web-1",
        "availability_zone": "zone1",
        "service_offering": "Small Instance",
        "cloud_identifier": "0b5e4a0c-64f2-4a34-9c9e-6f1de9b1f2aa",
        "public_keys": ("ssh-ed25519 AAAAC3Nz alice@example.org",),
        "user_data": USER_DATA,
        "password": "s3cretCanary0042",
        "windows": True,
    }
    return drive_files(DriveFacts(**facts | changes))


def opened(image: bytes) -> PyCdlib:
    iso = PyCdlib()
    iso.open_fp(BytesIO(image))
    return iso


def contents(image: bytes, names: str) -> dict[str, bytes]:
    """Path to content of every file, by its `names`: "rr" (Rock Ridge) or "joliet"."""
    iso, result = opened(image), {}
    for directory, _, files in iso.walk(**{f"{names}_path": "/"}):
        for name in files:
            path, out = f"{directory.rstrip('/')}/{name}", BytesIO()
            iso.get_file_from_iso_fp(out, **{f"{names}_path": path})
            result[path.removeprefix("/")] = out.getvalue()
    return result


def modes(image: bytes) -> dict[str, str]:
    iso, result = opened(image), {}
    for directory, directories, files in iso.walk(rr_path="/"):
        for name in directories + files:
            path = f"{directory.rstrip('/')}/{name}"
            result[path.removeprefix("/")] = f"{iso.get_record(rr_path=path).rock_ridge.get_file_mode():o}"
    return result


def files_below(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def tool(directory: Path, name: str, *arguments: str) -> bytes:
    """What an independent program prints when it runs in `directory`."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed (.ci/packages-test.txt)")
    return subprocess.run([name, *arguments], cwd=directory, check=True, capture_output=True).stdout
