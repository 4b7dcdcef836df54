"""A vCenter, or a lone ESXi, that real pyVmomi talks to: govmomi's simulator, built once and kept in the cache.

`python -m tests.simulators.vcenter` runs one by hand. What is added to the simulator (`main.go`): a certificate of its
own at each start, a session asked for at /folder, collectors told of what ReconfigVM_Task changed, guests whose
addresses a test sets per NIC, long answers cut into pages, and calls counted.

What it does not model, so that a test passes here that might fail on a real one:
- It is version 6.5, and answers in that version whatever was asked for.
- A question never comes up, so no CD-ROM door is ever locked. IDE takes a CD-ROM while the VM runs.
- The file behind a CD-ROM need not exist, and is not held while it is inserted.
- A VM that is cloned lies on the template's host, whatever was asked; its disks are empty and share the template's
  description. vMotion moves nothing but the host's name, and asks nothing of the target.
- No host is ever lost or in maintenance, and of a datastore it does not say whether several hosts see it.
- Privileges, DRS, VLANs, vSAN and storage vMotion's effect on files are not there; names are not escaped; a guest's
  addresses outlive its power.
What of this the driver has to cope with is tried on `tests.simulators.vsphere_fake`.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from networks.hypervisors.base import EndpointAddress, Transport
from tests.lab.guest import cache_dir

SOURCE = Path(__file__).with_name("main.go")
GOPATH = "/usr/share/gocode"  # where Debian's packages of Go libraries lie
BUILD_SECONDS = 400
STOP_SECONDS = 10
PACKAGES = "golang-go, golang-github-vmware-govmomi-dev and golang-github-google-uuid-dev"


class VcenterMissing(RuntimeError):
    """The simulator cannot be built here; the text names what to install."""


def program() -> Path:
    """The simulator's binary, built first when these sources were never built here. Takes minutes then."""
    recipe = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    binary = cache_dir() / f"vcenter-{recipe}" / "vcenter"
    if binary.exists():
        return binary
    go = shutil.which("go")
    if go is None or not Path(GOPATH, "src/github.com/vmware/govmomi/simulator").is_dir():
        raise VcenterMissing(f"The vCenter simulator needs Debian's {PACKAGES}.")
    binary.parent.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build(go, binary)
    return binary


def _build(go: str, binary: Path) -> None:
    built = binary.with_suffix(".new")
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "GO111MODULE": "off",
        "GOPATH": GOPATH,
        "GOCACHE": str(binary.parent.parent / "go-build"),
        "CGO_ENABLED": "0",
    }
    command = [go, "build", "-o", str(built), str(SOURCE)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        raise VcenterMissing(f"The vCenter simulator was not built after {BUILD_SECONDS} s.") from None
    if done.returncode:
        raise VcenterMissing(f"The vCenter simulator did not build: {done.stderr[-1000:]}")
    built.rename(binary)


class Vcenter:
    """A running simulator, as a context manager. It ends with the process that started it.

    `options` are the program's flags: `hosts=3, vms=10_000, delay=20, addresses=True, esx=True, datastores=2`.
    """

    def __init__(self, **options: int | bool | str) -> None:
        self._arguments = [f"-{name}={json.dumps(value).strip(chr(34))}" for name, value in options.items()]
        self._process: subprocess.Popen[str] | None = None
        self._directory: str | None = None
        self.address = EndpointAddress(Transport.TEST)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Raises VcenterMissing, and RuntimeError when it does not come up."""
        binary = program()
        # Its datastores are directories here.
        self._directory = tempfile.mkdtemp(prefix="extdhcp-vcenter-")
        self._process = subprocess.Popen(
            [str(binary), *self._arguments],
            env={"TMPDIR": self._directory, "PATH": os.defpath},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        announced = self._process.stdout.readline()
        if not announced:
            self.stop()
            raise RuntimeError("The vCenter simulator ended at once.")
        said: Mapping[str, str] = json.loads(announced)
        self.address = EndpointAddress(
            Transport.TEST,
            host=said["host"],
            port=int(said["port"]),
            username=said["user"],
            password=said["password"],
            ca_certificates=said["ca_certificates"],
        )

    def stop(self) -> None:
        """What is stopped already is no error."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()  # it ends by itself
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    # What a test does behind vSphere's back, or knows of it -------------------------------------

    def hosts(self) -> list[str]:
        """The hosts' names, as vSphere calls them."""
        names: list[str] = json.loads(self._control("GET", "hosts"))
        return sorted(names)

    def calls(self) -> dict[str, int]:
        """How often each method was called since `forget_calls`."""
        counts: dict[str, int] = json.loads(self._control("GET", "calls"))
        return counts

    def forget_calls(self) -> None:
        self._control("DELETE", "calls")

    def guest_says(
        self,
        uuid: str,
        addresses: Mapping[str, Sequence[str]],
        *,
        ip: str = "",
        tools: str = "guestToolsRunning",
        version: str = "guestToolsCurrent",
    ) -> None:
        """What the tools of the VM with this SMBIOS UUID report: by MAC address, "192.0.2.7/24" and the like."""
        said = {"uuid": uuid, "addresses": addresses, "ip": ip, "tools": tools, "version": version}
        self._control("POST", "guest", json.dumps(said))

    def set_free(self, datastore: str, size: int) -> None:
        self._control("POST", f"datastore?name={quote(datastore)}&free={size}")

    def files(self, pattern: str = "**/*") -> list[Path]:
        """What lies in its datastores, as files of this machine."""
        assert self._directory is not None
        return sorted(path for path in Path(self._directory).glob(f"*/{pattern}") if path.is_file())

    def _control(self, method: str, what: str, body: str = "") -> bytes:
        context = ssl.create_default_context(cadata=self.address.ca_certificates)
        connection = http.client.HTTPSConnection(self.address.host, self.address.port, timeout=30, context=context)
        with contextlib.closing(connection):
            connection.request(method, f"/simulator/{what}", body)
            answer = connection.getresponse()
            content: Any = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise LookupError(f"{method} {what}: {answer.status}")
            return bytes(content)
