"""The clients' own environments, each installed once and kept in the cache.

`ansible` is the newest ansible-core that runs on Python 3.11; the collection comes out of the package
`ansible`, whose newer versions carry collection 3.x, and 12 the last 2.x, and which need not be installed for that.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.guest import cache_dir

INSTALL_SECONDS = 300
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
COLLECTION = "ansible_collections/ngine_io/cloudstack/"


class ClientMissing(Exception):
    """A client could not be installed on this machine; the text says why."""


@dataclass(frozen=True)
class Environment:
    """Where a client is installed, and what to run its scripts with."""

    home: Path
    interpreter: Path

    @property
    def variables(self) -> dict[str, str]:
        """What its programs need of the environment, beside the server's address and keys."""
        return {
            "PATH": f"{self.interpreter.parent}{os.pathsep}{os.environ['PATH']}",
            "NODE_PATH": str(self.home / "node_modules"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.home / "collections"),
        }


def own() -> Environment:
    """The project's own, with the newest `cs`; for shells too."""
    return Environment(Path(sys.prefix), Path(sys.executable))


def cs34() -> Environment:
    return _kept("cs34", lambda home: _python(home, "cs>=3.4,<3.5"), "bin/python")


def libcloud() -> Environment:
    return _kept("libcloud", lambda home: _python(home, "apache-libcloud>=3.9,<3.10"), "bin/python")


def ansible() -> Environment:
    return _kept("ansible", lambda home: _ansible(home, "ansible>=14.5,<15"), "bin/python")


def ansible_2() -> Environment:
    """With collection 2.5.0, whose modules are called `cs_instance` and so on."""
    return _kept("ansible-2", lambda home: _ansible(home, "ansible==12.3.0"), "bin/python")


def csclient() -> Environment:
    return _kept("csclient", lambda home: _node(home, "csclient@0.6.4", "qs@^6.13"))


def axe_core() -> Environment:
    """No client: what reads a page as somebody who cannot see it must."""
    return _kept("axe-core", lambda home: _node(home, "axe-core@4.14.1"))


def _kept(name: str, install: Callable[[Path], None], interpreter: str = "") -> Environment:
    """The client's home in the cache, filled first when this recipe was never followed here. Raises ClientMissing."""
    home = cache_dir() / f"clients-{_recipe()}" / name
    home.parent.mkdir(parents=True, exist_ok=True)
    # Not made elsewhere and moved here: a virtual environment knows its own path.
    with (home.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        complete = home / ".complete"
        if not complete.exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            install(home)
            complete.touch()
    return Environment(home, home / interpreter if interpreter else Path(_program("node")))


def _recipe() -> str:
    """A name for what is installed: it changes when this module or the interpreter does."""
    return hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode()).hexdigest()[:16]


def _python(home: Path, *requirements: str) -> None:
    _run(sys.executable, "-m", "venv", "--without-pip", home)
    _run(*PIP, "--python", home / "bin/python", "install", *requirements)


def _ansible(home: Path, carrier: str) -> None:
    _python(home, "ansible-core>=2.18,<2.20", "cs>=5.2,<6")
    _collection(home / "collections", carrier)


def _collection(target: Path, requirement: str) -> None:
    with tempfile.TemporaryDirectory() as work:
        # It wants a newer Python than the collection does.
        _run(*PIP, "download", "--no-deps", "--ignore-requires-python", "--only-binary=:all:", "-d", work, requirement)
        [wheel] = Path(work).iterdir()
        with zipfile.ZipFile(wheel) as packed:
            packed.extractall(target, [name for name in packed.namelist() if name.startswith(COLLECTION)])


def _node(home: Path, *packages: str) -> None:
    _run(_program("npm"), "install", "--prefix", home, "--ignore-scripts", "--no-audit", "--no-fund", *packages)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ClientMissing(f"{name} is not installed; `.ci/setup test` installs it.")
    return found


def _run(*argv: str | Path) -> None:
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    except subprocess.TimeoutExpired:
        raise ClientMissing(f"{' '.join(words)}: not done after {INSTALL_SECONDS} s") from None
    if done.returncode:
        raise ClientMissing(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-500:]}")
