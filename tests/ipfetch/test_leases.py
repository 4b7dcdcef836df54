"""What DHCP servers' lease files say: two forms, and all that can be wrong with a file.

The samples were written by dnsmasq 2.90 and by ISC dhcpd 4.4.3 for the same clients: one with a name, one
without, one whose name has a CR and LF in it, one that gives a vendor class like the beginning of a
lease, and one that released its lease.
"""

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from ipfetch import leases
from ipfetch.leases import dnsmasq, files, isc, servers
from ipfetch.leases.lease import Lease
from ipfetch.models import LeaseServer
from ipfetch.models.leases import check_path
from networks.hypervisors.base import GuestAddress, Source, abandoned_calls
from tests.factories import make_network

SAMPLES = Path(__file__).parent / "samples" / "leases"
NOW = datetime(2026, 11, 21, 16, 45, tzinfo=UTC)
HOUR = timedelta(hours=1)
ONE, TWO, THREE = (f"06:00:00:00:00:0{n}" for n in (1, 2, 3))


def dnsmasq_line(
    mac: str = ONE, ip: str = "192.0.2.101", expires: datetime | None = NOW + HOUR, hostname: str = "*"
) -> bytes:
    return f"{int(expires.timestamp()) if expires else 0} {mac} {ip} {hostname} 01:{mac}\n".encode()


def isc_block(*lines: str, ip: str = "192.0.2.101", mac: str = ONE, state: str = "active", **times: str) -> bytes:
    """A block as dhcpd writes it; further lines come last."""
    times = {"starts": "6 2026/11/21 16:30:00", "ends": "6 2026/11/21 17:30:00", **times}
    statements = [
        *(f"{name} {value};" for name, value in times.items() if value),
        f"binding state {state};",
        "next binding state free;",
        f"hardware ethernet {mac};",
        *lines,
    ]
    return "\n".join([f"lease {ip} {{", *(f"  {statement}" for statement in statements), "}", ""]).encode()


def ips(parsed) -> list[str]:
    return [str(lease.ip) for lease in parsed]


# dnsmasq ------------------------------------------------------------------------------------------------


def test_a_file_by_dnsmasq_itself():
    found = {lease.mac: lease for lease in dnsmasq.leases((SAMPLES / "dnsmasq.leases").read_bytes())}

    ends = datetime(2026, 11, 21, 17, 39, 13, tzinfo=UTC)
    assert found[ONE] == Lease(ONE, IPv4Address("192.0.2.187"), None, ends, "web-1")
    assert found[TWO] == Lease(TWO, IPv4Address("192.0.2.20"), None, None, "")
    assert len(found) == 5


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"duid 00:01:00:01:32:94:85:b5:06:00:00:00:00:01\n",
        b"1795282753 1 2001:db8::17 web-1 00:01:00:01:32:94:85:b5:06:00:00:00:00:01\n",
        b"1795282753 06-01:02:03:04:05:06 192.0.2.1 * *\n",
        b"1795282753 06:00:00:00:00:01 192.0.2.256 * *\n",
        b"1795282753 06:00:00:00:00:01 192.0.2.007 * *\n",
        b"1795282753 06:00:00:00:00:01 192.0.2.7 *\n",
        b"1795282753 06:00:00:00:00:01 192.0.2.7 * * more\n",
        b"17952827530000000000 06:00:00:00:00:01 192.0.2.7 * *\n",
        b"-1 06:00:00:00:00:01 192.0.2.7 * *\n",
        b"1795282753 06:00:00:00:00:01 192.0.2.7\0 * *\n",
        b"1795282753 06:00:00:00:00:01 192.0.2.7 * " + b"x" * 5000 + b"\n",
        b"x" * 100_000 + b"\n",
        "1795282753 06:00:00:00:00:01 192.0.2.7 * *\n".encode("utf-16"),
    ],
)
def test_a_line_that_is_no_lease_does_not_stop_the_others(line):
    first, last = dnsmasq_line(ip="192.0.2.101"), dnsmasq_line(ip="192.0.2.102")

    assert ips(dnsmasq.leases(first + line + last))[0] == "192.0.2.101"
    assert set(ips(dnsmasq.leases(first + line + b"\n" + last))) == {"192.0.2.101", "192.0.2.102"}


@pytest.mark.parametrize("cut", range(1, len(dnsmasq_line())))
def test_a_line_that_is_not_yet_whole_is_no_lease(cut):
    """Cut off, 192.0.2.101 would be 192.0.2.10, which somebody else may have."""
    assert ips(dnsmasq.leases(dnsmasq_line(ip="192.0.2.55") + dnsmasq_line()[:-cut])) == ["192.0.2.55"]


@pytest.mark.parametrize("hostname", ["a\x1b[0m", "<b>x</b>", "\udcff", "x" * 256, "*"])
def test_what_cannot_be_a_host_name_is_dropped_and_the_lease_kept(hostname):
    raw = hostname.encode(errors="surrogateescape")
    [lease] = dnsmasq.leases(dnsmasq_line(hostname="HOSTNAME").replace(b"HOSTNAME", raw))
    assert lease.hostname == ""
    [lease] = isc.leases(isc_block('client-hostname "HOSTNAME";').replace(b"HOSTNAME", raw))
    assert lease.hostname == ""


def test_lines_may_end_as_on_windows():
    [lease] = dnsmasq.leases(dnsmasq_line(mac="06:AA:00:00:00:01").replace(b"\n", b"\r\n"))
    assert (lease.mac, str(lease.ip)) == ("06:aa:00:00:00:01", "192.0.2.101")


# ISC dhcpd ----------------------------------------------------------------------------------------------


def test_a_file_by_dhcpd_itself():
    found = {lease.mac: lease for lease in isc.leases((SAMPLES / "dhcpd.leases").read_bytes())}

    starts = datetime(2026, 11, 21, 16, 52, 15, tzinfo=UTC)
    assert found[ONE] == Lease(ONE, IPv4Address("192.0.2.100"), starts, starts + HOUR, "web-1")
    # The fifth was released; the fourth's vendor class has made no lease of 192.0.2.1.
    assert sorted(found) == [ONE, TWO, "06:00:00:00:00:03", "06:00:00:00:00:04"]
    assert "192.0.2.1" not in ips(found.values())


def test_the_last_block_of_an_address_holds():
    journal = isc_block(mac=ONE) + isc_block(mac=TWO) + isc_block(mac=ONE, ip="192.0.2.102")
    assert [(lease.mac, str(lease.ip)) for lease in isc.leases(journal)] == [
        (TWO, "192.0.2.101"),
        (ONE, "192.0.2.102"),
    ]


@pytest.mark.parametrize("state", ["free", "expired", "released", "abandoned", "reset", "backup"])
def test_a_lease_that_is_not_active_has_ended(state):
    assert ips(isc.leases(isc_block() + isc_block(state=state))) == []
    assert ips(isc.leases(isc_block(state=state) + isc_block())) == ["192.0.2.101"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("6 2026/11/21 17:30:00", NOW + timedelta(minutes=45)),
        ("epoch 1795282753; # Sat Nov 21 17:39:13 2026", datetime(2026, 11, 21, 17, 39, 13, tzinfo=UTC)),
        ("epoch 1795282753", datetime(2026, 11, 21, 17, 39, 13, tzinfo=UTC)),
        ("never", None),
    ],
)
def test_times(written, meant):
    [lease] = isc.leases(isc_block(ends=written))
    assert lease.expires == meant


@pytest.mark.parametrize(
    "broken",
    [
        isc_block(mac=THREE, ends=""),
        isc_block(mac=THREE, ends="6 2026/02/30 00:00:00"),
        isc_block(mac=THREE, ends="6 2026/11/21 17:30:61"),
        isc_block(mac=THREE, ends="tomorrow"),
        isc_block(mac=THREE, ends="epoch 99999999999999999999"),
        isc_block(mac="06:00:00:00:00"),
        isc_block(mac="06:00:00:00:00:01\0"),
        isc_block(mac=THREE, state="?"),
        isc_block(mac=THREE).replace(b"  binding", b"  wedding"),
        isc_block(mac=THREE).replace(b"hardware ethernet", b"hardware token-ring"),
        isc_block(mac=THREE).removesuffix(b"}\n"),
        isc_block(mac=THREE, ip="192.0.2.999"),
        isc_block("x" * 70_000 + ";", mac=THREE),
        isc_block(mac=THREE).decode().encode("utf-16"),
        b"lease 192.0.2.101 {\n",
        b"}\n}\n",
        b"\0" * 1000 + b"\n",
    ],
)
def test_a_block_that_is_not_understood_counts_as_not_there(broken):
    journal = isc_block() + broken + b"\n" + isc_block(ip="192.0.2.102", mac=TWO)
    found = [(lease.mac, str(lease.ip)) for lease in isc.leases(journal)]
    assert found == [(ONE, "192.0.2.101"), (TWO, "192.0.2.102")]


@pytest.mark.parametrize("cut", range(2, len(isc_block())))
def test_a_block_that_is_not_yet_whole_counts_as_not_there(cut):
    whole = isc_block(mac=TWO, state="free")
    assert ips(isc.leases(isc_block() + whole[:-cut])) == ["192.0.2.101"]


@pytest.mark.parametrize(
    ("written", "meant"),
    [("web-1", "web-1"), (r"web\0551", "web-1"), (r"web\015\012x", ""), (r"a\"b", ""), (r"a\\b", ""), (r"\377", "")],
)
def test_octal_escapes_in_host_names(written, meant):
    [lease] = isc.leases(isc_block(f'client-hostname "{written}";'))
    assert lease.hostname == meant


# Any bytes ------------------------------------------------------------------------------------------------

pieces = st.sampled_from(
    [
        *(dnsmasq_line(), isc_block(), isc_block(state="free"), b"lease 192.0.2.7 {\n", b"\n}\n", b"\r", b"\0"),
        *(b"  ends never;\n", b"  binding state active;\n", b'  client-hostname "\\', b"duid ", b" ", b"\xff\xfe"),
    ]
)
anything = st.one_of(st.binary(max_size=400), st.lists(st.one_of(pieces, st.binary(max_size=8))).map(b"".join))


@pytest.mark.parametrize("parse", [dnsmasq.leases, isc.leases])
@given(content=anything)
def test_any_bytes_are_read(parse, content):
    for lease in parse(content):
        assert len(lease.mac) == 17
        assert lease.mac == lease.mac.lower()
        assert lease.hostname.isascii()
        assert lease.hostname == "".join(lease.hostname.split())


@pytest.mark.parametrize("parse", [dnsmasq.leases, isc.leases])
@given(before=st.binary(max_size=200))
def test_what_stands_before_a_lease_does_not_hide_it(parse, before):
    lease = dnsmasq_line() if parse is dnsmasq.leases else isc_block()
    assert "192.0.2.101" in ips(parse(before.replace(b"}", b"") + b"\n" + lease))


# Files ----------------------------------------------------------------------------------------------------


@pytest.fixture
def lease_dir(tmp_path, settings):
    directory = tmp_path / "leases"
    directory.mkdir()
    settings.LEASE_DIR = str(directory)
    return directory


def why_not(directory: Path, path: str) -> str:
    with pytest.raises(files.Unreadable) as refused, files.opened(directory, path):
        pass
    return str(refused.value)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "a//b", "", ".", "..", "a/", "x\0y"])
def test_nothing_outside_the_directory_is_opened(lease_dir, path):
    (lease_dir.parent / "secret").write_bytes(b"x")
    (lease_dir / "a").mkdir()
    assert why_not(lease_dir, path)
    with pytest.raises(ValidationError):
        check_path(path)


def test_symbolic_links_are_not_followed(lease_dir):
    (lease_dir.parent / "secret").write_bytes(b"x")
    (lease_dir / "link").symlink_to("../secret")
    (lease_dir / "directory").symlink_to("..")
    assert "symbolic link" in why_not(lease_dir, "link")
    assert why_not(lease_dir, "directory/secret") == "It is not there."


def test_only_regular_files_are_read(lease_dir):
    os.mkfifo(lease_dir / "fifo")
    (lease_dir / "directory").mkdir()
    assert why_not(lease_dir, "fifo") == "It is not a regular file."
    assert why_not(lease_dir, "directory") == "It is not a regular file."
    assert "not a regular file" in why_not(Path("/dev"), "null")
    assert why_not(lease_dir, "missing") == "It is not there."
    assert why_not(lease_dir / "missing", "missing") == "It is not there."


def test_of_a_large_file_the_end_is_read(lease_dir, monkeypatch):
    monkeypatch.setattr(files, "MOST_BYTES", 100)
    (lease_dir / "large").write_bytes(b"x" * 1000 + b"the end")
    with files.opened(lease_dir, "large") as file:
        content = file.read_end()
    assert len(content) == 100
    assert content.endswith(b"the end")


def test_a_file_that_shrinks_while_it_is_read_gives_what_is_left(lease_dir):
    (lease_dir / "file").write_bytes(b"x" * 1000)
    with files.opened(lease_dir, "file") as file:
        os.truncate(lease_dir / "file", 10)
        assert file.read_end() == b"x" * 10


def test_a_file_that_is_replaced_while_it_is_read_stays_the_same(lease_dir):
    (lease_dir / "file").write_bytes(b"old")
    with files.opened(lease_dir, "file") as file:
        (lease_dir / "new").write_bytes(b"newer")
        (lease_dir / "new").rename(lease_dir / "file")
        assert file.read_end() == b"old"


# Servers ----------------------------------------------------------------------------------------------------


@pytest.fixture
def network(lease_dir, db, monkeypatch):
    monkeypatch.setattr(servers, "PAUSE", 0)
    return make_network()


def make_server(*networks, content: bytes | None = None, **fields) -> LeaseServer:
    name = fields.setdefault("name", "dhcp-1")
    server = LeaseServer.objects.create(**{"kind": "dnsmasq", "path": f"{name}.leases", **fields})
    server.networks.set(networks)
    if content is not None:
        write(server, content)
    return server


def write(server: LeaseServer, content: bytes) -> None:
    from django.conf import settings

    (Path(settings.LEASE_DIR) / server.path).write_bytes(content)


def found(network, mac: str = ONE, now: datetime = NOW) -> str | None:
    address = leases.addresses([network.pk], [mac], now).get((network.pk, mac))
    return str(address.ip) if address else None


def test_a_leased_address_is_found_with_its_source(network):
    make_server(network, content=dnsmasq_line())
    assert leases.addresses([network.pk], [ONE, TWO], NOW) == {
        (network.pk, ONE): GuestAddress(ONE, IPv4Address("192.0.2.101"), Source.LEASE, expires=NOW + HOUR)
    }


def test_both_kinds_are_read(network):
    make_server(network, content=dnsmasq_line(mac=ONE))
    make_server(network, name="dhcp-2", kind="isc", content=isc_block(mac=TWO, ip="192.0.2.102"))
    assert (found(network, ONE), found(network, TWO)) == ("192.0.2.101", "192.0.2.102")


def test_a_lease_that_has_ended_does_not_count(network):
    """The DHCP server's clock may be an hour behind ours."""
    server = make_server(network, content=dnsmasq_line(expires=NOW - HOUR))
    assert found(network) is None
    assert found(network, now=NOW - timedelta(seconds=1)) == "192.0.2.101"
    write(server, dnsmasq_line(expires=None))
    assert found(network) == "192.0.2.101"


@pytest.mark.parametrize("expires", [NOW + timedelta(seconds=1), None])
def test_a_lease_that_has_not_ended_goes_before_one_that_has(network, expires):
    ended = dnsmasq_line(ip="192.0.2.102", expires=NOW - timedelta(minutes=1))
    make_server(network, content=ended + dnsmasq_line(ip="192.0.2.101", expires=expires) + ended)
    assert found(network) == "192.0.2.101"


def test_a_lease_that_begins_in_the_future_counts(network):
    """The DHCP server's clock is an hour ahead of ours."""
    times = {"starts": "6 2026/11/21 17:45:00", "ends": "6 2026/11/21 18:45:00"}
    make_server(network, kind="isc", content=isc_block(**times))
    assert found(network) == "192.0.2.101"


def test_of_two_leases_for_a_nic_that_which_ends_last_is_taken(network):
    first = dnsmasq_line(ip="192.0.2.101", expires=NOW + 2 * HOUR)
    make_server(network, content=first + dnsmasq_line(ip="192.0.2.102", expires=NOW + HOUR))
    assert found(network) == "192.0.2.101"


def test_of_two_servers_that_one_counts_whose_lease_ends_last(network):
    make_server(network, content=dnsmasq_line(ip="192.0.2.101", expires=NOW + HOUR))
    make_server(network, name="dhcp-2", content=dnsmasq_line(ip="192.0.2.102", expires=None))
    assert found(network) == "192.0.2.102"


def test_of_two_leases_that_one_counts_which_is_of_the_network(network):
    other = make_network(zone=network.zone, cidr="198.51.100.0/24", gateway="198.51.100.1")
    content = dnsmasq_line(ip="192.0.2.101") + dnsmasq_line(ip="198.51.100.101", expires=NOW + 2 * HOUR)
    make_server(network, other, content=content)
    assert (found(network), found(other)) == ("192.0.2.101", "198.51.100.101")
    assert leases.addresses([other.pk], [ONE], NOW).keys() == {(other.pk, ONE)}


def test_one_address_leased_to_two_nics_is_told_of_both(network):
    make_server(network, content=dnsmasq_line(mac=ONE) + dnsmasq_line(mac=TWO))
    assert found(network, ONE) == found(network, TWO) == "192.0.2.101"


def test_an_address_outside_of_the_network_is_told(network):
    """Whoever records it says what is odd about it."""
    make_server(network, content=dnsmasq_line(ip="203.0.113.7"))
    assert found(network) == "203.0.113.7"


def test_only_the_networks_own_servers_are_asked(network):
    other = make_network(zone=network.zone)
    make_server(other, content=dnsmasq_line())
    make_server(network, name="off", enabled=False, content=dnsmasq_line())
    assert found(network) is None
    assert leases.addresses([network.pk, other.pk], [ONE], NOW).keys() == {(other.pk, ONE)}


def test_a_server_that_cannot_be_read_says_so_and_the_others_go_on(network):
    broken = make_server(network, name="a-broken-one")
    make_server(network, content=dnsmasq_line())
    assert found(network) == "192.0.2.101"
    broken.refresh_from_db()
    assert (broken.last_error, broken.last_read_at) == ("It is not there.", None)

    write(broken, b"")
    found(network)
    broken.refresh_from_db()
    assert (broken.last_error, broken.last_read_at) == ("", NOW)


@pytest.fixture
def parses(monkeypatch):
    """How often a file was parsed."""
    counted = []

    def parse(kind, content, real=servers._parse):
        counted.append(content.state)
        return real(kind, content)

    monkeypatch.setattr(servers, "_parse", parse)
    monkeypatch.setattr(servers, "_books", servers._Books())
    return counted


def test_a_file_is_parsed_once_for_each_change(network, parses):
    server = make_server(network, content=dnsmasq_line())
    for _ in range(3):
        assert found(network) == "192.0.2.101"
    assert len(parses) == 1

    write(server, dnsmasq_line(ip="192.0.2.99") + dnsmasq_line(ip="192.0.2.102", expires=None))
    assert found(network) == found(network) == "192.0.2.102"
    assert len(parses) == 2


def test_a_file_that_changes_all_the_time_is_parsed_for_a_tenth_of_it(network, parses, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(servers, "PAUSE", 9)
    monkeypatch.setattr(servers.time, "monotonic", lambda: clock[0])

    def parse(kind, content, real=servers._parse):
        clock[0] += 2
        return real(kind, content)

    monkeypatch.setattr(servers, "_parse", parse)
    server = make_server(network, content=dnsmasq_line(ip="192.0.2.101"))
    assert found(network) == "192.0.2.101"

    write(server, dnsmasq_line(ip="192.0.2.102", hostname="another"))
    clock[0] = 119.9
    assert found(network) == "192.0.2.101"
    clock[0] = 120.0
    assert found(network) == "192.0.2.102"


def test_a_replaced_file_is_noticed_by_its_inode(network, parses, lease_dir):
    server = make_server(network, content=dnsmasq_line(ip="192.0.2.101"))
    found(network)
    before = (lease_dir / server.path).stat()
    (lease_dir / "new").write_bytes(dnsmasq_line(ip="192.0.2.102"))
    os.utime(lease_dir / "new", ns=(before.st_atime_ns, before.st_mtime_ns))
    (lease_dir / "new").rename(lease_dir / server.path)
    assert found(network) == "192.0.2.102"


def test_what_is_kept_in_memory_is_bounded(network, parses, monkeypatch):
    monkeypatch.setattr(servers, "MOST_LEASES", 2)
    for n in range(3):
        make_server(network, name=f"dhcp-{n}", content=dnsmasq_line(mac=ONE) + dnsmasq_line(mac=TWO))
    found(network)
    assert sum(kept.book.size for kept in servers._books._kept.values()) <= 2


def test_a_file_with_too_many_leases_is_said_to_have_them(network, parses, monkeypatch):
    monkeypatch.setattr(servers, "MOST_LEASES", 2)
    server = make_server(network, content=dnsmasq_line() * 3)
    assert found(network) == "192.0.2.101"
    server.refresh_from_db()
    assert server.last_error == "It has more than 2 leases: the others are left out."


def test_an_unchanged_file_costs_no_write(network, django_assert_num_queries):
    server = make_server(network, content=dnsmasq_line())
    found(network)
    with django_assert_num_queries(2):
        found(network, now=NOW + timedelta(seconds=1))
    server.refresh_from_db()
    assert server.last_read_at == NOW


def test_a_file_that_changes_all_the_time_is_noted_once_a_minute(network):
    server = make_server(network)
    for second in range(3):
        write(server, dnsmasq_line() * (second + 1))
        found(network, now=NOW + timedelta(seconds=second))
    server.refresh_from_db()
    assert server.last_read_at == NOW


@pytest.mark.parametrize("kind", ["dnsmasq", "isc"])
def test_bytes_without_a_lease_are_no_error(network, kind):
    server = make_server(network, kind=kind, content=os.urandom(100_000))
    assert found(network) is None
    server.refresh_from_db()
    assert server.last_error == ""


# Mounts that hang -------------------------------------------------------------------------------------------

MNT_DETACH = 2
can_mount = pytest.mark.skipif(
    os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="A mount that hangs needs root and FUSE."
)


@contextmanager
def hanging(directory: Path) -> Iterator[None]:
    """A file system whose server is there and answers nothing: whoever opens something in it waits for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"hanging", bytes(directory), b"fuse", 0, options):
        os.close(server)
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield
    finally:
        # Whoever waits is told that there is no server any more.
        os.close(server)
        assert libc.umount2(bytes(directory), MNT_DETACH) == 0


@pytest.fixture
def mount(lease_dir, monkeypatch):
    monkeypatch.setattr(servers, "_books", servers._Books())
    monkeypatch.setattr(servers, "READ_SECONDS", 1.0)
    (lease_dir / "mount").mkdir()
    return lease_dir / "mount"


def stuck() -> int:
    return abandoned_calls(("lease file", "mount/dhcp.leases"))


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


@can_mount
def test_a_file_on_a_mount_that_hangs_is_unreadable_and_the_others_go_on(network, mount):
    other = make_network(zone=network.zone)
    hung = [make_server(network, name=f"a-hung-{n}", path="mount/dhcp.leases", kind=n) for n in LeaseServer.Kind]
    make_server(other, content=dnsmasq_line())
    with hanging(mount):
        began = time.monotonic()
        told = leases.addresses([network.pk, other.pk], [ONE], NOW)
        took = time.monotonic() - began
    assert told.keys() == {(other.pk, ONE)}
    assert took < 2 * servers.READ_SECONDS
    for server in hung:
        server.refresh_from_db()
        assert server.last_error == "It did not come within 1 seconds. Look at the mount that it lies on."


@can_mount
def test_a_file_that_hangs_is_left_alone_for_a_while(network, mount):
    make_server(network, path="mount/dhcp.leases")
    with hanging(mount):
        assert found(network) is None
        began = time.monotonic()
        assert found(network) is None
        assert time.monotonic() - began < servers.READ_SECONDS
    until(lambda: not stuck())
    (mount / "dhcp.leases").write_bytes(dnsmasq_line())
    assert found(network) is None


@can_mount
def test_a_file_that_comes_again_is_read(network, mount, monkeypatch):
    monkeypatch.setattr(servers, "HUNG_SECONDS", 0.0)
    server = make_server(network, path="mount/dhcp.leases")
    with hanging(mount):
        for _ in range(3):
            assert found(network) is None
        # Threads that hang cannot be ended: never a second one.
        assert stuck() == 1
    until(lambda: not stuck())
    (mount / "dhcp.leases").write_bytes(dnsmasq_line())
    assert found(network) == "192.0.2.101"
    server.refresh_from_db()
    assert server.last_error == ""


@can_mount
def test_nobody_waits_for_a_file_of_others(mount, lease_dir, monkeypatch):
    monkeypatch.setattr(servers, "READ_SECONDS", 30.0)
    (lease_dir / "well.leases").write_bytes(dnsmasq_line())

    def read(path: str) -> None:
        with pytest.raises(files.Unreadable):
            servers._books.get(LeaseServer(path=path, kind="dnsmasq"))

    waiting = threading.Thread(target=read, args=["mount/dhcp.leases"])
    with hanging(mount):
        waiting.start()
        until(lambda: any(turn.locked() for turn in servers._books._turns.values()))
        book, _ = servers._books.get(LeaseServer(path="well.leases", kind="dnsmasq"))
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()
    assert list(book.leases) == [ONE]


def test_who_comes_while_a_file_is_parsed_for_long_takes_what_was_known(lease_dir, parses, monkeypatch):
    monkeypatch.setattr(servers, "READ_SECONDS", 0.1)
    monkeypatch.setattr(servers, "PAUSE", 0)
    server = LeaseServer(path="dhcp.leases", kind="dnsmasq")
    key = server.path, server.kind
    write(server, dnsmasq_line())
    with servers._books._turn(key), pytest.raises(files.Unreadable, match="for the first time"):
        servers._books.get(server)
    servers._books.get(server)
    write(server, b"")
    with servers._books._turn(key):
        assert list(servers._books.get(server)[0].leases) == [ONE]
    assert not servers._books.get(server)[0].leases
