"""What building a config drive costs, beside genisoimage and beside writing its bytes.

A drive in the combined layout, with 2 KB and with 32 KB of user data, from the same files in memory to a
file on disc. Rounds are interleaved, and the figures are medians of what each round gives, so that a busy
machine slows all three alike. Every round is another VM's drive: nothing can be answered from before.
"""

import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from uuid import uuid4

from configdrive.content import DriveFacts, drive_files
from configdrive.iso import build_iso

ROUNDS = 50
WARM_UP = 3
SIZES = {"2k": 2048, "32k": 32 * 1024}
LABEL = "config-2"
DATED = datetime(2026, 5, 4, 12, tzinfo=UTC)

Files = Mapping[str, bytes]


def measure(rounds: int = ROUNDS) -> dict[str, float]:
    """Ratios, and milliseconds a drive."""
    figures: dict[str, float] = {}
    for name, size in SIZES.items():
        with TemporaryDirectory(prefix="bench-") as directory:
            timed = list(_rounds(Path(directory), size, rounds))
        figures |= {
            f"genisoimage_over_ours_{name}": median(a_round["genisoimage"] / a_round["ours"] for a_round in timed),
            f"ours_over_floor_{name}": median(a_round["ours"] / a_round["floor"] for a_round in timed),
        }
        for method in METHODS:
            figures[f"{method}_ms_{name}"] = 1000 * median(a_round[method] for a_round in timed)
    return figures


def _rounds(directory: Path, user_data_bytes: int, rounds: int) -> Iterator[dict[str, float]]:
    """Seconds by method, for each round after those that warm the process up."""
    methods = list(METHODS)
    for number in range(WARM_UP + rounds):
        files = _files_of_a_new_vm(user_data_bytes)
        finished = build_iso(files, LABEL, DATED)
        methods.append(methods.pop(0))  # none is always the first
        seconds = {method: _seconds(METHODS[method], files, finished, directory) for method in methods}
        if number >= WARM_UP:
            yield seconds


def _files_of_a_new_vm(user_data_bytes: int) -> Files:
    return drive_files(
        DriveFacts(
            uuid=str(uuid4()),
            instance_name="i-2-21-VM",
            vm_number=21,
            hostname="web-1",
            availability_zone="zone1",
            service_offering="Small Instance",
            cloud_identifier="0b5e4a0c-64f2-4a34-9c9e-6f1de9b1f2aa",
            local_ipv4="192.0.2.7",
            public_keys=(f"ssh-ed25519 {secrets.token_urlsafe(51)} alice@example.org",),
            user_data=secrets.token_bytes(user_data_bytes),
            password=secrets.token_hex(8),
            windows=True,
        )
    )


def _seconds(method: Callable[[Files, bytes, Path], None], files: Files, finished: bytes, directory: Path) -> float:
    image = directory / "drive.iso"
    began = perf_counter()
    method(files, finished, image)
    took = perf_counter() - began
    image.unlink()
    return took


def _floor(files: Files, finished: bytes, image: Path) -> None:
    image.write_bytes(finished)


def _ours(files: Files, finished: bytes, image: Path) -> None:
    image.write_bytes(build_iso(files, LABEL, DATED))


def _genisoimage(files: Files, finished: bytes, image: Path) -> None:
    staging = image.with_name("staging")
    for path, content in files.items():
        target = staging / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    subprocess.run(["genisoimage", "-quiet", "-J", "-r", "-V", LABEL, "-o", image, staging], check=True)
    shutil.rmtree(staging)


METHODS: dict[str, Callable[[Files, bytes, Path], None]] = {
    "floor": _floor,
    "ours": _ours,
    "genisoimage": _genisoimage,
}
