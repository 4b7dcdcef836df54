"""What the tests of the image share."""

import shutil
import subprocess

import pytest


@pytest.fixture
def run(tmp_path):
    """Run an independent tool in an empty directory and return its output as text."""

    def run(tool: str, *arguments: str) -> str:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (genisoimage, xorriso, libarchive-tools or util-linux)")
        return subprocess.run([tool, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True).stdout

    return run
