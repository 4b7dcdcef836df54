"""A private libvirtd whose test driver keeps its VMs for every process that connects.

libvirt's test driver lives inside one process. Behind a daemon, `test+unix:///default?socket=...`
gives web, workers and commands the same VMs. Its state goes with its last connection, so one is
kept open here. The daemon runs without privileges and with directories of its own: the machine's
libvirt, if it has one, never meets it.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import libvirt

START_SECONDS = 20
STOP_SECONDS = 10
NOBODY = 65534
# What the driver and the kernel accept as a socket's path: 107 bytes, and nothing that a URI would have to quote.
_USABLE_PATH = re.compile(r"[A-Za-z0-9/_.-]{1,94}")
_OWN_DIRECTORIES = ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


class LibvirtdMissing(RuntimeError):
    """The daemon is not installed; the text names the package."""


class PrivateLibvirtd:
    """A libvirtd in `directory`, as a context manager or by `start` and `stop`.

    `socket` is what an endpoint's `test_socket` wants. Start it from a thread that lives as long as
    the daemon is wanted: it ends with that thread, so that no daemon is left behind by a killed demo.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory).absolute()
        self._socket_directory = self.directory
        self._process: subprocess.Popen[bytes] | None = None
        self._keeper: libvirt.virConnect | None = None

    @property
    def socket(self) -> str:
        return str(self._socket_directory / "libvirt-sock")

    @property
    def uri(self) -> str:
        return f"test+unix:///default?socket={self.socket}"

    @property
    def pid_file(self) -> Path:
        return self.directory / "libvirtd.pid"

    @property
    def log_file(self) -> Path:
        return self.directory / "libvirtd.log"

    @property
    def _home(self) -> Path:
        return self.directory / "libvirt-home"

    @property
    def _config_file(self) -> Path:
        return self.directory / "libvirtd.conf"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Raises LibvirtdMissing, and RuntimeError when the daemon does not come up."""
        daemon = _daemon()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._end_left_over()
        # libvirtd 9.0 without privileges does not start again over what it wrote here.
        shutil.rmtree(self._home, ignore_errors=True)
        if not _USABLE_PATH.fullmatch(str(self.directory)):
            self._socket_directory = Path(tempfile.mkdtemp(prefix="extdhcp-", dir="/tmp"))
        Path(self.socket).unlink(missing_ok=True)
        self._write_config()
        command = [*_without_privileges(), daemon, "--config", str(self._config_file), "--pid-file", str(self.pid_file)]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment(), stdin=subprocess.DEVNULL, stderr=log)
        try:
            self._keeper = self._connect()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the daemon; its VMs go with it. What is stopped already is no error."""
        if self._keeper is not None:
            with contextlib.suppress(libvirt.libvirtError):
                self._keeper.close()
            self._keeper = None
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        for file in (self.pid_file, Path(self.socket)):
            file.unlink(missing_ok=True)
        if self._socket_directory != self.directory:
            shutil.rmtree(self._socket_directory, ignore_errors=True)
            self._socket_directory = self.directory

    def _write_config(self) -> None:
        # libvirt pings its clients by default; the keeper runs no event loop that would answer.
        self._config_file.write_text(
            f'unix_sock_dir = "{self._socket_directory}"\n'
            'unix_sock_rw_perms = "0700"\n'
            'auth_unix_rw = "none"\n'
            'auth_unix_ro = "none"\n'
            "keepalive_interval = -1\n"
            "max_client_requests = 20\n"
            'log_outputs = "3:stderr"\n'
        )

    def _environment(self) -> dict[str, str]:
        # Without privileges libvirtd keeps everything under these, and nothing in /var or /run.
        own = {name: str(self._home / name.lower()) for name in _OWN_DIRECTORIES}
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **own}

    def _connect(self) -> libvirt.virConnect:
        assert self._process is not None
        give_up = time.monotonic() + START_SECONDS
        libvirt.registerErrorHandler(lambda context, error: None, None)  # else it prints each vain attempt
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"libvirtd ended at once, with status {self._process.returncode}: {self.log_file}")
            if Path(self.socket).exists():
                with contextlib.suppress(libvirt.libvirtError):
                    return libvirt.open(self.uri)
            if time.monotonic() > give_up:
                raise RuntimeError(f"libvirtd did not answer within {START_SECONDS} s: {self.log_file}")
            time.sleep(0.05)

    def _end_left_over(self) -> None:
        """End the daemon of an earlier run in this directory, and only that."""
        try:
            pid = int(self.pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return
        if str(self._config_file).encode() not in arguments:
            return  # the number belongs to another program by now
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        give_up = time.monotonic() + STOP_SECONDS
        while _runs(pid) and time.monotonic() < give_up:
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # ended, and its parent has not asked how


def _daemon() -> str:
    found = shutil.which("libvirtd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        raise LibvirtdMissing("libvirtd is not installed: on Debian and Ubuntu it is in the package libvirt-daemon.")
    return found


def _without_privileges() -> list[str]:
    """The command in front of libvirtd's own. As root, libvirtd would be the machine's, with its networks and state."""
    if os.geteuid() != 0:
        return ["setpriv", "--pdeathsig=TERM"]
    # The one capability lets it into a directory that is root's; it is not enough to be "privileged" for libvirt.
    return [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--bounding-set=-all,+dac_override",
        "--inh-caps=-all,+dac_override",
        "--ambient-caps=-all,+dac_override",
        "--pdeathsig=TERM",
    ]
