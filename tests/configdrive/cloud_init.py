"""Debian's own cloud-init, unpacked and not installed: what it makes of a drive.

Its Python part runs under the system's interpreter, whose Debian packages it imports; its shell part,
ds-identify, sees a root directory of ours and what the real blkid says of the drive.
"""

import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.configdrive.drives import tool
from tests.lab.guest import cache_dir
from tests.lab.system import LabError, run

PYTHON = "/usr/bin/python3"
READER = Path(__file__).with_name("read_by_cloud_init.py")
IMPORTS = ("configobj", "jinja2", "jsonpatch", "jsonschema", "requests", "yaml")

DISABLED = "disabled"


@cache
def unpacked() -> Path:
    """The root of cloud-init's package, in the cache; downloaded first when this version never was."""
    try:
        version = re.search(r"^Version: (\S+)", run("apt-cache", "show", "--no-all-versions", "cloud-init"), re.M)[1]
        run(PYTHON, "-c", f"import {', '.join(IMPORTS)}")
    except (LabError, OSError, TypeError):
        pytest.skip("needs Debian's cloud-init for download and what it imports (apt-get update; .ci/setup test)")
    home = cache_dir() / f"cloud-init-{version}"
    if not home.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cloud-init-", dir=home.parent) as work:
            try:
                run("apt-get", "download", f"cloud-init={version}", cwd=work)
            except LabError as error:
                pytest.skip(str(error))
            run("dpkg", "-x", next(Path(work).glob("*.deb")), Path(work, "root"))
            Path(work, "root").rename(home)
    return home


@dataclass(frozen=True)
class Reading:
    """What cloud-init's config drive source knows after it read a drive."""

    instance_id: str
    hostname: str
    public_keys: list[str]
    user_data: bytes
    user_data_parts: list[str]  # their content types, after cloud-init unpacked them
    vendor_data: list[str]
    network: dict[str, Any] | None  # in its own format, version 1
    complaints: list[str]  # logged as warnings or worse, and what its schema finds wrong in vendor data


def read(drive: Path, macs: tuple[str, ...] = ()) -> Reading:
    """Let cloud-init read the image, on a guest whose NICs have these MAC addresses."""
    with tempfile.TemporaryDirectory(prefix="cloud-init-") as work:
        seed = Path(work, "cloud", "seed", "config_drive")
        seed.parent.mkdir(parents=True)
        tool(Path(work), "xorriso", "-osirrox", "on", "-indev", str(drive), "-extract", "/", str(seed))
        # -I: neither our environment nor our directory, whose `configdrive` is another one.
        answer = run(PYTHON, "-I", READER, unpacked(), work, *macs)
    values = json.loads(answer)
    return Reading(**values | {"user_data": bytes.fromhex(values["user_data"])})


def ds_identify(drive: Path, product: str = "KVM", configured: str | None = None) -> str:
    """The data sources that ds-identify lets cloud-init try when this drive is all there is, or DISABLED.

    `product` is the DMI product name; `configured` a datasource_list in the guest's own configuration.
    """
    home = unpacked()
    with tempfile.TemporaryDirectory(prefix="ds-identify-") as work:
        root = Path(work, "root")
        _write(root / "sys/class/dmi/id/product_name", f"{product}\n")
        _write(root / "proc/cmdline", "quiet\n")
        _write(root / "proc/1/environ", "")
        _write(root / "etc/cloud/cloud.cfg", (home / "etc/cloud/cloud.cfg").read_text())
        if configured:
            _write(root / "etc/cloud/cloud.cfg.d/90_dpkg.cfg", f"datasource_list: {configured}\n")
        programs = Path(work, "bin")
        blkid = tool(Path(work), "blkid", "-p", "-o", "export", str(drive)).decode()
        _write_program(programs / "blkid", f"#!/bin/sh\ncat <<'END'\n{blkid}END\n")
        # This machine may be a container, in which ds-identify would not ask blkid.
        _write_program(programs / "systemd-detect-virt", "#!/bin/sh\necho kvm\n")
        done = subprocess.run(
            ["/bin/sh", home / "usr/lib/cloud-init/ds-identify", "--force"],
            env={"PATH_ROOT": str(root), "PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
        )
        log = (root / "run/cloud-init/ds-identify.log").read_text()
        assert done.returncode in (0, 1), done.stderr
        assert f"ISO9660_DEVS={drive}=" in log, log
        if done.returncode:
            return DISABLED
        return re.search(r"^datasource_list: (.*)$", (root / "run/cloud-init/cloud.cfg").read_text(), re.M)[1]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_program(path: Path, text: str) -> None:
    _write(path, text)
    path.chmod(0o755)
