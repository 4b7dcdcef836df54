"""The pool as tests hold it: where it is, what is in it, and what goes wrong."""

import contextlib
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from . import calls, certificate, events, messages, storage, vms, wire, world
from .calls import Call
from .database import Database, Row
from .errors import XenError
from .faults import Faults
from .guests import Guests
from .server import Listener
from .sessions import Sessions
from .storage import Disks
from .tasks import Tasks

_PORTS_TRIED = 20
assert messages, "is imported for what it loads"


class XenServer:
    """A pool of `hosts` hosts, as a context manager or by `start` and `stop`.

    Its master listens on 127.0.0.1, its members on 127.0.0.2 and so on, all on one port: `port`, or a free one.
    `pace` is how many seconds operations take, by name: `pool_migrate`, `start`, `vdi_create`, `import` ...
    """

    username = "root"
    password = "xen-simulator"

    def __init__(self, hosts: int = 2, port: int = 0) -> None:
        self.addresses = [f"127.0.0.{number + 1}" for number in range(hosts)]
        self.host = self.addresses[0]
        self.port = port
        self.db = Database()
        self.faults = Faults()
        self.tasks = Tasks(self)
        self.guests = Guests(self)
        self.pace: dict[str, float] = {}
        self.closing = threading.Event()
        self._listeners: list[Listener] = []
        self._directory = tempfile.TemporaryDirectory(prefix="extdhcp-xen-")
        self.disks = Disks(Path(self._directory.name), self)
        self._numbers = {"domid": 0, "bridge": 0}
        world.build(self)
        self.sessions = Sessions(self)
        self.certificates: dict[str, certificate.Certificate] = {}
        self.change_certificate()

    # Where it is

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    @property
    def member_url(self) -> str:
        """Of a host that is not the master."""
        return f"https://{self.addresses[1]}:{self.port}"

    @property
    def ca_certificates(self) -> str:
        """Those of all hosts: each has signed its own."""
        return "".join(one.pem for one in self.certificates.values())

    @property
    def fingerprint(self) -> str:
        """The master's."""
        return self.certificates[self.master.ref].fingerprint

    @property
    def is_closing(self) -> bool:
        return self.closing.is_set()

    # Its life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Raises OSError when `port` is taken."""
        for attempt in range(_PORTS_TRIED):
            try:
                self._listen()
            except OSError:
                # The free port of the master's address may be taken on a member's.
                self._close_listeners()
                if self.port or attempt == _PORTS_TRIED - 1:
                    raise
            else:
                break
        self.port = self._listeners[0].server_address[1]
        for listener in self._listeners:
            listener.present(self.certificates[listener.host])
            threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _listen(self) -> None:
        port = self.port
        for row, address in zip(self.db.rows_by_creation("host"), self.addresses, strict=True):
            self._listeners.append(Listener(self, row.ref, (address, port)))
            port = self._listeners[0].server_address[1]

    def stop(self) -> None:
        self.closing.set()
        self.db.wake()
        for listener in self._listeners:
            listener.shutdown()
            listener.drop_connections()
        self._close_listeners()
        self._directory.cleanup()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.server_close()
        self._listeners = []

    # What happens to it

    def restart(self) -> None:
        """xapi of the master restarts: connections break, sessions and tasks are gone, what runs goes on running."""
        for listener in self._listeners:
            listener.drop_connections()
        self.sessions.end_all()
        with self.db.lock:
            for row in self.db.rows("task"):
                self.db.delete("task", row.ref)

    def change_master(self, hostname: str) -> None:
        """Another host takes over, as after a failure of the master; the old one is a member from now on."""
        self.db.set("pool", self.db.rows("pool")[0].ref, master=self.ref("host", hostname))
        self.restart()

    def switch_off(self, hostname: str) -> None:
        """Nothing answers at the host's address any more. What ran there is as it was, as far as the pool knows."""
        host = self.ref("host", hostname)
        self.db.set("host_metrics", self.db.get("host", host).text("metrics"), live=False)
        for listener in [one for one in self._listeners if one.host == host]:
            self._listeners.remove(listener)
            listener.shutdown()
            listener.drop_connections()
            listener.server_close()

    def expire_sessions(self) -> None:
        self.sessions.end_all()

    def change_certificate(self) -> None:
        """Every host has another key and certificate from now on, for the same names."""
        for row in self.db.rows("host"):
            self.certificates[row.ref] = certificate.make(row.text("address"))
        for listener in self._listeners:
            listener.present(self.certificates[listener.host])

    # What is in it

    @property
    def master(self) -> Row:
        return self.db.get("host", self.db.rows("pool")[0]["master"])

    @property
    def calls(self) -> Counter[str]:
        """How often each message was called."""
        return self.faults.calls

    def ref(self, class_name: str, name_label: str) -> str:
        """The only object of that name."""
        return self.db.one(class_name, name_label=name_label).ref

    def make_directory(self, hostname: str, path: str) -> Path:
        """What an administrator does in dom0: mkdir. Where it lies on this machine."""
        directory = self.disks.in_dom0(hostname, path)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def export(self, location: str) -> Path:
        """Have a file server export SERVER:/PATH. Where it lies on this machine."""
        directory = self.disks.exported(location)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def add_network(self, name: str, device: str) -> str:
        """A network on a further interface of every host, as an administrator names one for guests."""
        network = self.db.create("network", name_label=name, bridge=device.replace("eth", "xenbr"))
        for row in self.db.rows("host"):
            world.add_interface(self, row.ref, network, device)
        return network

    def add_iso_sr(self, name: str, location: str = "nas:/isos") -> str:
        """A shared ISO repository, as an administrator makes one."""
        self.export(location)
        config = {"location": location, "type": "nfs_iso"}
        return storage.add_sr(self, self.master.ref, config, name, "", "iso", "iso", True, {})

    def files(self, sr: str) -> dict[str, bytes]:
        """What lies in an ISO repository."""
        directory = self.disks.directory(self.db.get("SR", sr))
        return {file.name: file.read_bytes() for file in sorted(directory.iterdir())}

    def fill(self, sr: str) -> None:
        """Leave no room in a repository."""
        with self.db.lock:
            self.db.set("SR", sr, physical_size=self.db.get("SR", sr)["physical_utilisation"])

    def delete_vm(self, vm: str) -> None:
        """By somebody else's hand, without asking."""
        vms.remove(self.db, vm)

    def add_vms(self, count: int, cidr: str = "10.64.0.0/16") -> list[str]:
        """Running VMs, spread over the hosts, whose agents have reported an address of `cidr` each."""
        return world.add_vms(self, count, cidr)

    # What the modules need

    def answer(self, host: str, name: str, parameters: list[object]) -> bytes:
        """The body of the answer to one XML-RPC call that came to `host`."""
        try:
            self.faults.happen(name)
            if host != self.master.ref:
                raise XenError("HOST_IS_SLAVE", self.master["address"])
            return wire.success(self._run(name, parameters))
        except XenError as error:
            return wire.failure(error.description)

    def _run(self, name: str, parameters: list[object]) -> object:
        if name == "session.login_with_password":
            return self._log_in(parameters)
        session = self.sessions.check(parameters[0] if parameters else "")
        call, rest = Call(self, session), parameters[1:]
        plain = name.removeprefix("Async.")
        self.sessions.check_role(session, plain)
        if plain == "event.from":
            return events.events_from(call, rest)
        if plain != name:
            return self.tasks.start(call, plain, rest)
        return calls.run(call, name, rest)

    def _log_in(self, parameters: list[object]) -> str:
        if not 2 <= len(parameters) <= 4:
            raise XenError("MESSAGE_PARAMETER_COUNT_MISMATCH", "session.login_with_password", 4, len(parameters))
        username, password, _, originator = [*map(str, parameters), "", ""][:4]
        return self.sessions.log_in(username, password, originator)

    def run_in_background(self, work: Callable[[], object]) -> None:
        threading.Thread(target=self._unless_closed(work), daemon=True).start()

    def run_later(self, seconds: float, work: Callable[[], object]) -> None:
        """At once where `seconds` is 0."""
        if not seconds:
            work()
            return

        def wait_and_work() -> None:
            if not self.closing.wait(seconds):
                work()

        self.run_in_background(wait_and_work)

    def _unless_closed(self, work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            # Its directories may be gone by the time that it gets to work.
            with contextlib.suppress(OSError) if self.is_closing else contextlib.nullcontext():
                work()

        return run

    def next_domid(self) -> int:
        return self._next("domid")

    def next_bridge(self) -> str:
        return f"xapi{self._next('bridge') - 1}"

    def _next(self, name: str) -> int:
        with self.db.lock:
            self._numbers[name] += 1
            return self._numbers[name]
