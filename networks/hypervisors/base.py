"""What the product asks of a hypervisor: values, errors and one small protocol per need.

A driver imports its hypervisor's library and this module, and nothing else of ours: no models, no
settings, no other driver. It leaves out the protocols that it cannot serve.

Every method that talks to a hypervisor takes `deadline`, in seconds on the monotonic clock
(`time.monotonic() + n`), and is back by then even when the library is stuck.
"""

import contextlib
import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, Self, TypeVar, runtime_checkable

# Values -------------------------------------------------------------------------------------


class Transport(StrEnum):
    """How an endpoint is reached. The URI is built from fields: a typed one could run programs.

    TEST is libvirt's test driver, or a simulator on this machine's loopback, spoken to by TLS as the real one is.
    """

    LOCAL = "local"
    TLS = "tls"
    TCP = "tcp"
    SSH = "ssh"
    TEST = "test"


class DiskAccess(StrEnum):
    """From where a host's disks are read; nowhere, unless an administrator says so."""

    NONE = ""
    LOCAL = "local"
    SSH = "ssh"


@dataclass(frozen=True)
class Member:
    """A host of a pool that may be its coordinator one day: its address, its certificate's SHA-256 (as below)."""

    host: str
    fingerprint: str


@dataclass(frozen=True)
class EndpointAddress:
    """Where a hypervisor's API is, how to be let in, and how it is known to be the right one.

    XenServer and vSphere are reached by TLS alone. Their certificate must be signed by `ca_certificates` (PEM; empty:
    by one that this machine trusts) for the name `host`, or else have this SHA-256 `fingerprint` (64 hexadecimal
    digits, lower case): then its name, signer and dates do not matter.

    `members` are what a pool told of its hosts when it was last asked; two addresses that differ in these are equal.
    """

    transport: Transport
    host: str = ""
    port: int | None = None
    username: str = ""
    password: str = field(default="", repr=False)
    ca_certificates: str = ""
    fingerprint: str = ""
    test_socket: str = ""
    disk_access: DiskAccess = DiskAccess.NONE
    members: tuple[Member, ...] = field(default=(), compare=False)


class PowerState(StrEnum):
    RUNNING = "running"
    PAUSED = "paused"
    OFF = "off"


@dataclass(frozen=True)
class VmRef:
    """A VM as a hypervisor knows it: `uuid` is its SMBIOS UUID, `macs` are lower case."""

    name: str
    uuid: str
    macs: tuple[str, ...] = ()


@dataclass(frozen=True)
class VmRecord:
    """One line of a hypervisor's inventory."""

    vm: VmRef
    power: PowerState


@dataclass(frozen=True)
class HostFacts:
    """What a host says of itself; memory in bytes, speed in MHz."""

    hostname: str
    version: str
    cpus: int
    mhz: int
    memory: int


@dataclass(frozen=True)
class StorageRoom:
    """How large a primary storage is, and what is left of it; in bytes."""

    total: int
    free: int


@dataclass(frozen=True)
class NetworkRef:
    """A guest network on a host: the bridge (KVM) or label that carries it, and its VLAN."""

    label: str
    vlan: int | None = None


@dataclass(frozen=True)
class NicSpec:
    mac: str
    network: NetworkRef


@dataclass(frozen=True)
class ImageRoot:
    """A ROOT volume as a copy-on-write overlay of a template's image; both in storage pool `pool`.

    On XenServer `pool` is a storage repository and `image` the template whose first disk is cloned; on vSphere `pool`
    is a datastore, `image` the template that is cloned, and `volume` the clone's name. `size` in bytes; 0 keeps the
    image's own.
    """

    pool: str
    volume: str
    image: str
    image_format: str = "qcow2"
    size: int = 0


@dataclass(frozen=True)
class KernelRoot:
    """No disk: the guest boots a kernel and an initial RAM disk that lie on the host."""

    kernel: str
    initrd: str
    command_line: str = ""


@dataclass(frozen=True)
class VmSpec:
    """A VM to define, powered off, with an empty CD-ROM of our own; memory in bytes."""

    vm: VmRef
    title: str
    cpus: int
    memory: int
    root: ImageRoot | KernelRoot
    nics: tuple[NicSpec, ...]


@dataclass(frozen=True)
class Media:
    """An ISO image in a host's media store: its name there, and the path a guest's drive is given."""

    name: str
    path: str


@dataclass(frozen=True)
class MediaFile:
    """An ISO image that lies in a media store; `size` in bytes."""

    name: str
    size: int


class Outcome(StrEnum):
    """What came of asking for one NIC's address."""

    FOUND = "found"
    NONE_YET = "none_yet"
    AGENT_ABSENT = "agent_absent"
    AGENT_SILENT = "agent_silent"
    HOST_UNREACHABLE = "host_unreachable"
    AMBIGUOUS = "ambiguous"
    NOT_RUNNING = "not_running"


class Source(StrEnum):
    """Who told an address."""

    GUEST_AGENT = "agent"
    # It told the address and not the MAC: the interface was found by elimination.
    UNSURE_AGENT = "agent-unsure"
    TEST_DRIVER = "test-driver"
    LEASE = "lease"
    WEBHOOK = "webhook"
    NEIGHBOUR = "arp"
    DISK = "disk"
    OPERATOR = "operator"


@dataclass(frozen=True)
class GuestAddress:
    """An address that `source` says the interface with this MAC has (lower case, colon-separated).

    `expires` is the end of its lease, where the source tells one.
    """

    mac: str
    ip: IPv4Address | IPv6Address
    source: Source
    prefix: int | None = None
    expires: datetime | None = None


@dataclass(frozen=True)
class Reading:
    """One VM's answer: addresses over all its interfaces, or why there are none.

    `problem` is None when the guest answered, even with no address at all.
    """

    addresses: tuple[GuestAddress, ...] = ()
    problem: Outcome | None = None
    detail: str = ""


class GuestClient(StrEnum):
    """What in a guest keeps its leases in a file, each in a form of its own."""

    DHCLIENT = "dhclient"
    NETWORK_MANAGER = "NetworkManager"
    DHCPCD = "dhcpcd"
    WICKED = "wicked"
    WINDOWS = "Windows"


@dataclass(frozen=True)
class LeaseFile:
    """A file as it lies on a guest's disk; several of one client may stand one after the other. Not to be trusted."""

    client: GuestClient
    content: bytes


class AgentState(StrEnum):
    """What the host sees of a guest's agent, without asking it."""

    NO_CHANNEL = "no channel"
    NOT_CONNECTED = "not connected"
    CONNECTED = "connected"


class NicState(StrEnum):
    """What a host has of a VM's NIC."""

    PLUGGED = "plugged"
    ABSENT = "absent"
    ELSEWHERE = "elsewhere"
    LINK_DOWN = "link down"


class GuestEvent(StrEnum):
    """What a hypervisor tells by itself of a VM."""

    AGENT_CONNECTED = "agent_connected"
    STARTED = "started"
    STOPPED = "stopped"
    MIGRATED = "migrated"


# Errors, named for what the caller does next ---------------------------------------------------


class HypervisorError(Exception):
    """Base of all. The text is ours: a library's own words may hold what nobody should read."""


class TryAgainLater(HypervisorError):
    """Nothing is wrong with the request."""


class EndpointUnreachable(TryAgainLater):
    """The endpoint cannot be connected to, or does not answer."""


class DeadlineExceeded(EndpointUnreachable):
    """A call did not come back in time; its thread is left behind and counted."""


class HostUnavailable(TryAgainLater):
    """One host of a pool or vCenter cannot be used now; the endpoint answers."""


RENAMED = "was it renamed there? Give it this name again, or give the host here its new one."


class Busy(TryAgainLater):
    """Another operation holds the VM."""


class AgentAbsent(TryAgainLater):
    """The guest agent is not there, or does not answer."""


class DoNotTryAgain(HypervisorError):
    """The same request will fail again."""


class NotFound(DoNotTryAgain):
    """The VM, volume or image is not there."""


class Refused(DoNotTryAgain):
    """The hypervisor says no, or cannot do it at all."""


class AskTheOperator(HypervisorError):
    """A person has to mend the host first; the text says what."""


class CredentialsRefused(AskTheOperator):
    pass


class CertificateRefused(AskTheOperator):
    """The endpoint's certificate is not the one to be trusted: nothing was sent to it."""


class NetworkMissing(AskTheOperator):
    pass


class StorageProblem(AskTheOperator):
    """A pool is missing, full or read-only."""


# Calls that come back ---------------------------------------------------------------------------

T = TypeVar("T")
_heartbeat: contextvars.ContextVar[Callable[[], object]] = contextvars.ContextVar("heartbeat", default=lambda: None)
_asked: contextvars.ContextVar[object] = contextvars.ContextVar("asked", default=None)
_abandoned: dict[threading.Thread, object] = {}
HEARTBEAT_SECONDS = 5.0


@contextlib.contextmanager
def heartbeat(beat: Callable[[], object]) -> Iterator[None]:
    """While this is open, `call_within` calls `beat` every few seconds as it waits."""
    token = _heartbeat.set(beat)
    try:
        yield
    finally:
        _heartbeat.reset(token)


def beat() -> None:
    """Tell the innermost open `heartbeat` that we are alive: for waits other than `call_within`'s."""
    _heartbeat.get()()


@contextlib.contextmanager
def asking(whom: object) -> Iterator[None]:
    """While this is open, calls that have to be given up are counted for `whom`."""
    token = _asked.set(whom)
    try:
        yield
    finally:
        _asked.reset(token)


def call_within(deadline: float, call: Callable[[], T]) -> T:
    """Run `call` in a thread of its own and give its result or its exception.

    Raises DeadlineExceeded at the deadline; a call whose deadline has passed is not begun. A C
    library cannot be interrupted, so a stuck thread is abandoned; it is a daemon and does not keep
    the process alive.
    """
    if deadline <= time.monotonic():
        raise DeadlineExceeded("The time for this was used up before the hypervisor was asked.")
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            failures.append(error)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), daemon=True)
    thread.start()
    while thread.is_alive():
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            _abandoned[thread] = _asked.get()
            raise DeadlineExceeded("The hypervisor did not answer in time.")
        thread.join(min(remaining, HEARTBEAT_SECONDS))
        if thread.is_alive():
            try:
                beat()
            except BaseException:
                _abandoned[thread] = _asked.get()
                raise
    if failures:
        raise failures[0]
    return results[0]


def abandoned_calls(whom: object = None) -> int:
    """How many calls of this process were given up and are stuck still: all, or those to `whom`."""
    for thread in [thread for thread in list(_abandoned) if not thread.is_alive()]:
        _abandoned.pop(thread, None)
    return sum(1 for asked in list(_abandoned.values()) if whom is None or asked == whom)


# Protocols: one per need --------------------------------------------------------------------------


@runtime_checkable
class Inventory(Protocol):
    def host_facts(self, deadline: float) -> HostFacts:
        """Of the endpoint as a whole, or of the one host the driver is bound to: HostUnavailable while that is off."""
        ...

    def list_vms(self, deadline: float) -> list[VmRecord]: ...

    def running_vms(self, deadline: float) -> set[str]:
        """UUIDs of all that runs here, and is not paused, whoever made it. One question, however many they are."""
        ...

    def power_state(self, vm: VmRef, deadline: float) -> PowerState | None:
        """None when the hypervisor does not know the VM."""
        ...


@runtime_checkable
class PoolReader(Protocol):
    def members(self, deadline: float) -> tuple[Member, ...]:
        """The hosts that answer now and any of which may speak for the pool when its coordinator is no more."""
        ...


@runtime_checkable
class RightsReader(Protocol):
    def missing_rights(self, deadline: float) -> tuple[str, ...]:
        """What these credentials may not do of what the product asks for, in the hypervisor's own words, sorted."""
        ...


@runtime_checkable
class NetworkOperations(Protocol):
    def ensure_network(self, network: NetworkRef, deadline: float) -> None:
        """Make sure that guests on this host can join `network`. Raises NetworkMissing."""
        ...

    def has_network(self, network: NetworkRef, deadline: float) -> bool:
        """Whether it is there; False where `ensure_network` will make it. Makes nothing. Raises NetworkMissing."""
        ...


@runtime_checkable
class Volumes(Protocol):
    def ensure_root(self, root: ImageRoot, deadline: float) -> None:
        """Create the overlay unless it is there. Raises NotFound (image), StorageProblem."""
        ...

    def delete_root(self, root: ImageRoot, deadline: float) -> None:
        """Delete the overlay; gone already is success."""
        ...


@runtime_checkable
class StorageReader(Protocol):
    def is_shared(self, storage: str, deadline: float) -> bool:
        """Whether further hosts see the primary storage of that name. Raises StorageProblem when there is none."""
        ...


@runtime_checkable
class StorageMeter(Protocol):
    def room(self, storage: str, deadline: float) -> StorageRoom:
        """How full the primary storage of that name is. Raises StorageProblem when there is none."""
        ...


@runtime_checkable
class VmOperations(Protocol):
    """Each is safe to repeat: what is done already is success."""

    def define(self, spec: VmSpec, deadline: float) -> None: ...

    def start(self, vm: VmRef, deadline: float) -> None: ...

    def stop(self, vm: VmRef, deadline: float, *, grace: float) -> None:
        """Ask the guest to shut down, wait `grace` seconds, then cut the power; 0 cuts at once."""
        ...

    def reboot(self, vm: VmRef, deadline: float) -> None:
        """A reset of the running guest: same definition, same drive."""
        ...

    def undefine(self, vm: VmRef, deadline: float) -> None:
        """Cut the power if it is on and forget the VM. Its ROOT volume stays."""
        ...

    def migrate(self, vm: VmRef, target: Self, deadline: float) -> None:
        """Live, to another host of the same kind. The source forgets the VM, the target knows it for good."""
        ...

    def add_nic(self, vm: VmRef, nic: NicSpec, deadline: float) -> None:
        """Running: at once and for the next start. Raises NotFound, NetworkMissing, Refused."""
        ...

    def remove_nic(self, vm: VmRef, mac: str, deadline: float) -> None:
        """Running: back when the guest has let go of it. Raises NotFound (no such VM), Busy (it holds on), Refused."""
        ...


@runtime_checkable
class MediaStore(Protocol):
    """Config drive ISOs, mode 0600, each name used once.

    `storage` says where they lie: "" is the host's own cache, else beside the ROOT volumes of the
    primary storage of that name.
    """

    def place(self, name: str, content: bytes, deadline: float, *, storage: str = "") -> Media:
        """Raises Refused for a storage that holds no files, StorageProblem when it is missing, full or read-only."""
        ...

    def read(self, name: str, deadline: float, *, storage: str = "") -> bytes:
        """Raises NotFound."""
        ...

    def remove(self, name: str, deadline: float, *, storage: str = "") -> None:
        """Gone already is success."""
        ...

    def list_media(self, deadline: float, *, storage: str = "", name: str = "") -> list[MediaFile]:
        """Files whose names have the form of ours, sorted by name; or the one of this `name`, if it is there.

        A pool or a vCenter is not asked for the others then, of which there may be ten thousand.
        """
        ...

    def insert(self, vm: VmRef, media: Media | None, deadline: float) -> None:
        """Put `media` into our own CD-ROM of `vm`, running or not; None ejects.

        Raises NotFound, Refused (a running VM that has lost this CD-ROM: it needs a restart), Busy.
        """
        ...

    def inserted(self, vm: VmRef, deadline: float) -> str | None:
        """The path of what our own CD-ROM of `vm` holds, running or not; None when it is empty. Raises NotFound."""
        ...

    def bytes_read(self, vm: VmRef, deadline: float) -> int | None:
        """How much the guest has read from our CD-ROM since it was powered on; None when the host cannot tell.

        Raises NotFound. A migrated guest is counted from its arrival. A hint, not a proof: a BIOS alone
        reads a block or so at each reset, and a kernel that looks for file systems some kilobytes.
        """
        ...


@runtime_checkable
class GuestAgent(Protocol):
    """What is asked of the agent inside a running guest."""

    def set_password(self, vm: VmRef, user: str, password: str, deadline: float) -> None:
        """Raises NotFound (no such VM), AgentAbsent, Refused (no such user, or the guest will not)."""
        ...

    def read_guest_file(self, vm: VmRef, path: str, deadline: float, *, most: int = 4096) -> bytes:
        """The first `most` bytes of a file inside the guest. Raises NotFound, AgentAbsent, Refused.

        The guest answers what it likes: the bytes are not to be trusted.
        """
        ...

    def agent_state(self, vm: VmRef, deadline: float) -> AgentState | None:
        """None when the host cannot tell. Asks the host, not the guest. Raises NotFound (no such VM)."""
        ...


@runtime_checkable
class NicInspector(Protocol):
    def nic_state(self, vm: VmRef, nic: NicSpec, deadline: float) -> NicState:
        """Whether the VM, as it runs now, has this NIC on this network. Raises NotFound (no such VM)."""
        ...


@runtime_checkable
class AddressReader(Protocol):
    def read_addresses(
        self, vms: Sequence[VmRef], deadline: float, *, width: int = 4
    ) -> Iterator[tuple[VmRef, Reading]]:
        """Yield one reading per VM as it arrives, at most `width` guests asked at a time.

        A VM not reached before the deadline yields nothing. Raises EndpointUnreachable when no VM
        can be read; what concerns one VM is its reading.
        """
        ...


@runtime_checkable
class NeighbourReader(Protocol):
    """The host's own neighbour table: a hint, for whoever is on the network can put there what he likes."""

    def read_neighbours(
        self, vms: Sequence[VmRef], deadline: float
    ) -> Iterator[tuple[VmRef, tuple[GuestAddress, ...]]]:
        """Yield what the table has for each VM that could be asked about; the others yield nothing.

        Raises EndpointUnreachable.
        """
        ...


@runtime_checkable
class DiskReader(Protocol):
    def read_lease_files(self, vm: VmRef, deadline: float, *, windows: bool) -> tuple[LeaseFile, ...]:
        """The DHCP clients' files on the VM's ROOT volume, read without writing, by a process without rights.

        Takes seconds to minutes. Raises Refused (not allowed at this endpoint, or no such disk), NotFound (no
        operating system on it), StorageProblem (no tool to read with), DeadlineExceeded.
        """
        ...


class Watch(Protocol):
    """An open subscription to a hypervisor's events."""

    def is_alive(self) -> bool:
        """False once nothing more will be heard through it. Asks nobody."""
        ...

    def close(self) -> None: ...


@runtime_checkable
class EventSource(Protocol):
    def watch(self, tell: Callable[[str, GuestEvent], None], deadline: float) -> Watch:
        """Call `tell` with a VM's UUID for each event from now on, in a thread of the driver's.

        Raises EndpointUnreachable, CredentialsRefused, Refused (it has no events).
        """
        ...
