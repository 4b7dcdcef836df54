"""The lease files of guests: what clients wrote, and what a guest may write to harm its reader."""

import io
import tarfile
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ipfetch.guest_leases import (
    Ambiguous,
    DiskNic,
    FileOnDisk,
    GuestLease,
    archive,
    choose,
    dhclient,
    dhcpcd,
    leases_of,
    network_manager,
    wicked,
    windows,
)
from ipfetch.guest_leases.values import FILE_MAX_BYTES
from networks.hypervisors.base import GuestAddress, GuestClient, LeaseFile, Source

SAMPLES = Path(__file__).parent / "samples" / "guest"
GIVEN = datetime(2026, 11, 21, 16, 36, 54, tzinfo=UTC)  # when the samples' leases were given, within minutes
NM_NAME = "internal-5fb06bd0-0bb0-7ffb-45f1-d6edd65f3e03-eth0.lease"
GUID = "{A2E805D4-9CCF-4EA9-8832-17611F5D3FA8}"
MAC, OTHER_MAC = "52:54:00:00:00:07", "52:54:00:00:00:08"
IP = IPv4Address("192.0.2.77")

# Each client's parser, and the name of a file that its client really wrote.
PARSERS = {
    dhclient: "dhclient.eth0.leases",
    network_manager: NM_NAME,
    dhcpcd: "eth0.lease",
    wicked: "lease-eth0-dhcp-ipv4.xml",
    windows: "system.reg",
}
each_parser = pytest.mark.parametrize(
    ("parser", "name"), list(PARSERS.items()), ids=[parser.__name__.rpartition(".")[2] for parser in PARSERS]
)


def sample(name: str, modified: datetime | None = GIVEN) -> FileOnDisk:
    return FileOnDisk((SAMPLES / name).read_bytes(), name, modified)


def with_content(name: str, content: bytes) -> FileOnDisk:
    return FileOnDisk(content, name, GIVEN)


def tar(files: dict[str, bytes], modified: datetime = GIVEN) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive_file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(content), int(modified.timestamp())
            archive_file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class TestSamples:
    """What each client wrote is read as it meant it."""

    def test_dhclient(self):
        (lease,) = dhclient.leases(sample("dhclient.eth0.leases"))
        assert (lease.ip, lease.prefix, lease.mac, lease.interface) == (IP, 24, None, "eth0")
        assert lease.expires is not None
        assert lease.renewed == lease.expires - timedelta(hours=1)

    def test_the_last_block_of_an_interface_is_the_lease_it_has(self):
        blocks = dhclient.leases(sample("dhclient.eth0.leases"))
        first = (SAMPLES / "dhclient.eth0.leases").read_text().split("}")[0] + "}"
        (before,) = dhclient.leases(with_content("dhclient.eth0.leases", first.encode()))
        assert before.expires is not None
        assert blocks[0].expires is not None
        assert before.expires < blocks[0].expires

    def test_dhclient_with_times_as_epochs(self):
        (lease,) = dhclient.leases(sample("dhclient--eth0.lease"))
        assert lease.expires == datetime(2026, 11, 21, 17, 42, 2, tzinfo=UTC)
        assert lease.renewed == datetime(2026, 11, 21, 16, 42, 2, tzinfo=UTC)

    def test_network_manager(self):
        expected = GuestLease(IP, None, None, "eth0", renewed=GIVEN, expires=None)
        assert network_manager.leases(sample(NM_NAME)) == [expected]

    def test_dhcpcd(self):
        expected = GuestLease(IP, 24, MAC, "eth0", renewed=GIVEN, expires=GIVEN + timedelta(hours=1))
        assert dhcpcd.leases(sample("eth0.lease")) == [expected]

    def test_wicked(self):
        expected = GuestLease(IP, 24, None, "eth0", renewed=GIVEN, expires=GIVEN + timedelta(hours=1))
        assert wicked.leases(sample("lease-eth0-dhcp-ipv4.xml", modified=None)) == [expected]

    def test_windows(self):
        expected = GuestLease(IP, 24, None, GUID, renewed=GIVEN, expires=GIVEN + timedelta(hours=1))
        assert windows.leases(sample("system.reg", modified=None)) == [expected]


def dhclient_block(**changes: str) -> bytes:
    statements = {
        "interface": '"eth0"',
        "fixed-address": "192.0.2.77",
        "option subnet-mask": "255.255.255.0",
        "option dhcp-lease-time": "3600",
        "renew": "6 2026/11/21 17:04:13",
        "expire": "6 2026/11/21 17:36:54",
    }
    statements.update({name.replace("__", " ").replace("_", "-"): value for name, value in changes.items()})
    lines = "".join(f"  {name} {value};\n" for name, value in statements.items())
    return f"lease {{\n{lines}}}\n".encode()


class TestDhclient:
    def test_a_lease_without_an_end_has_the_time_of_its_file(self):
        content = dhclient_block(expire="never", option__dhcp_lease_time="4294967295")
        (lease,) = dhclient.leases(with_content("dhclient.leases", content))
        assert (lease.renewed, lease.expires) == (GIVEN, None)

    def test_each_interface_has_its_own(self):
        content = dhclient_block() + dhclient_block(interface='"eth1"', fixed_address="198.51.100.9")
        leases = dhclient.leases(with_content("dhclient.leases", content))
        assert [(lease.interface, str(lease.ip)) for lease in leases] == [
            ("eth0", "192.0.2.77"),
            ("eth1", "198.51.100.9"),
        ]

    def test_a_string_of_the_servers_ends_no_block(self):
        content = dhclient_block(option__domain_name='"x; } lease { fixed-address 198.51.100.66; }"')
        (lease,) = dhclient.leases(with_content("dhclient.leases", content))
        assert lease.ip == IP

    def test_a_block_that_was_not_written_to_its_end_does_not_count(self):
        content = dhclient_block() + dhclient_block(fixed_address="198.51.100.9")[:-3]
        (lease,) = dhclient.leases(with_content("dhclient.leases", content))
        assert lease.ip == IP

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("expire", "6 2026/13/41 99:00:00"),
            ("expire", "soon"),
            ("expire", "epoch 99999999999999"),
            ("fixed_address", "192.0.2.777"),
            ("fixed_address", "0.0.0.0"),
            ("fixed_address", "169.254.3.4"),
            ("fixed_address", "192.0.2.077"),
            ("bootp", ""),
        ],
    )
    def test_a_block_that_says_nothing_sure_is_no_lease(self, name, value):
        assert dhclient.leases(with_content("dhclient.leases", dhclient_block(**{name: value}))) == []

    def test_leases_of_ipv6_are_not_taken_for_ones_of_ipv4(self):
        content = dhclient_block().replace(b"lease {", b"lease6 {")
        assert dhclient.leases(with_content("dhclient6.leases", content)) == []

    def test_networkmanager_keeps_files_of_dhclient_beside_its_own(self):
        name = "dhclient-5fb06bd0-0bb0-7ffb-45f1-d6edd65f3e03-eth0.lease"
        file = LeaseFile(GuestClient.NETWORK_MANAGER, tar({name: dhclient_block()}))
        assert [lease.ip for lease in leases_of([file])] == [IP]


class TestNetworkManager:
    def test_a_file_of_older_versions_has_netmask_and_length(self):
        content = b"ADDRESS=192.0.2.77\nNETMASK=255.255.255.0\nLIFETIME=3600\n"
        (lease,) = network_manager.leases(with_content(NM_NAME, content))
        assert (lease.prefix, lease.expires) == (24, GIVEN + timedelta(hours=1))

    def test_an_expiry_is_believed(self):
        (lease,) = network_manager.leases(with_content(NM_NAME, b"ADDRESS=192.0.2.77\nEXPIRY=1795282614\n"))
        assert lease.expires == GIVEN + timedelta(hours=1)

    @pytest.mark.parametrize("name", ["timestamps", "secret_key", "internal6-x-eth0.lease", "seen-bssids"])
    def test_other_files_of_its_directory_are_none(self, name):
        assert network_manager.leases(with_content(name, b"ADDRESS=192.0.2.77\n")) == []


class TestDhcpcd:
    def message(self, at: int, value: bytes) -> FileOnDisk:
        content = bytearray((SAMPLES / "eth0.lease").read_bytes())
        content[at : at + len(value)] = value
        return with_content("eth0.lease", bytes(content))

    def test_a_question_is_no_lease(self):
        assert dhcpcd.leases(self.message(0, b"\1")) == []

    def test_a_refusal_is_no_lease(self):
        assert dhcpcd.leases(self.message(242, b"\6")) == []

    def test_without_the_magic_cookie_it_is_something_else(self):
        assert dhcpcd.leases(self.message(236, b"\0\0\0\0")) == []

    def test_a_lease_without_an_end(self):
        content = (SAMPLES / "eth0.lease").read_bytes().replace(b"\x33\4\0\0\x0e\x10", b"\x33\4\xff\xff\xff\xff")
        (lease,) = dhcpcd.leases(with_content("eth0.lease", content))
        assert lease.expires is None

    def test_hardware_that_is_not_ethernet_has_no_mac(self):
        (lease,) = dhcpcd.leases(self.message(1, b"\x20\x08"))
        assert lease.mac is None

    def test_the_wireless_networks_name_is_not_the_interfaces(self):
        (lease,) = dhcpcd.leases(FileOnDisk((SAMPLES / "eth0.lease").read_bytes(), "wlan0-cafe.lease", GIVEN))
        assert lease.interface == "wlan0"

    @pytest.mark.parametrize("name", ["duid", "secret", "eth0.lease6"])
    def test_other_files_of_its_directory_are_none(self, name):
        assert dhcpcd.leases(FileOnDisk((SAMPLES / "eth0.lease").read_bytes(), name, GIVEN)) == []


class TestWicked:
    def lease(self, was: str, now: str) -> list[GuestLease]:
        content = (SAMPLES / "lease-eth0-dhcp-ipv4.xml").read_text()
        assert was in content
        return wicked.leases(with_content("lease-eth0-dhcp-ipv4.xml", content.replace(was, now, 1).encode()))

    def test_a_lease_that_is_asked_for_is_not_had(self):
        assert self.lease("granted", "requesting") == []

    @pytest.mark.parametrize(
        "document_type",
        ["<!DOCTYPE lease>", '<!DOCTYPE lease [<!ENTITY a "192.0.2.77">]>', '<!DOCTYPE x SYSTEM "file:///etc/passwd">'],
    )
    def test_a_document_type_is_refused(self, document_type):
        assert self.lease("<lease>", f"{document_type}<lease>") == []

    def test_elements_as_deep_as_no_lease_has_are_refused(self):
        assert self.lease("<type>", "<a>" * 20 + "</a>" * 20 + "<type>") == []

    def test_leases_of_ipv6_have_other_files(self):
        content = (SAMPLES / "lease-eth0-dhcp-ipv4.xml").read_bytes()
        assert wicked.leases(with_content("lease-eth0-dhcp-ipv6.xml", content)) == []


class TestWindows:
    def leases(self, was: str, now: str) -> list[GuestLease]:
        content = (SAMPLES / "system.reg").read_text()
        assert was in content
        return windows.leases(with_content("system.reg", content.replace(was, now).encode()))

    def test_only_the_control_set_in_use_counts(self):
        (lease,) = self.leases('"Current"=dword:00000002', '"Current"=dword:00000001')
        assert str(lease.ip) == "192.0.2.99"

    def test_without_select_none_counts(self):
        assert self.leases("\\Select]", "\\Selected]") == []

    def test_an_interface_with_an_address_of_its_own_has_no_lease(self):
        assert self.leases('"EnableDHCP"=dword:00000001', '"EnableDHCP"=dword:00000000') == []

    def test_a_string_may_be_exported_as_a_string(self):
        was = '"DhcpIPAddress"=hex(1):31,00,39,00,32,00,2e,00,30,00,2e,00,32,00,2e,00,37,00,37,00,00,00'
        (lease,) = self.leases(was, '"DhcpIPAddress"=str(1):"192.0.2.78"')
        assert str(lease.ip) == "192.0.2.78"

    @pytest.mark.parametrize(
        "value", ["hex(1):31,00,39", "hex(1):3,1", "hex(1):00,d8", "hex(3):31,00", "dword:1", "hex(1):"]
    )
    def test_bytes_that_are_no_string_are_no_address(self, value):
        was = '"DhcpIPAddress"=hex(1):31,00,39,00,32,00,2e,00,30,00,2e,00,32,00,2e,00,37,00,37,00,00,00'
        assert self.leases(was, f'"DhcpIPAddress"={value}') == []


def six_classes(content: bytes) -> dict[str, bytes]:
    """What guestfs-security(1) tells to expect of a file that a guest wrote; absent is the seventh."""
    return {
        "empty": b"",
        "huge": content + b"\0A{" * (FILE_MAX_BYTES // 2),
        "8-bit": content.replace(b"192.0.2.77", b"192.0.2.\xff\xfe").replace(b"\xc0\0\2\x4d", b"\xff\xff\xff\xff"),
        "wrong encoding": content.decode("latin-1").encode("utf-16"),
        "homoglyph": content.replace(b"192.0.2.77", "١٩٢.0.2.77".encode()).replace(b"\xc0\0\2\x4d", b"\0\0\0\0"),
        "cut in the middle": content[: len(content) // 2],
    }


class TestHostileFiles:
    def test_no_file_is_no_lease(self):
        assert leases_of([]) == []

    @each_parser
    @pytest.mark.parametrize("kind", ["empty", "huge", "8-bit", "wrong encoding", "homoglyph", "cut in the middle"])
    def test_each_class_gives_at_most_the_true_lease(self, parser, name, kind):
        spoilt = six_classes((SAMPLES / name).read_bytes())[kind]
        if kind in ("8-bit", "homoglyph") and parser is windows:
            spoilt = spoilt.replace(b"37,00,37,00", b"67,06,ff,ff")
        leases = parser.leases(with_content(name, spoilt))
        assert [lease.ip for lease in leases] in ([], [IP])
        said_in_the_file = parser is wicked and kind == "wrong encoding"  # XML may be of any
        if kind not in ("huge", "cut in the middle") and not said_in_the_file:
            assert leases == []

    @each_parser
    def test_a_file_cut_anywhere_gives_the_true_lease_or_none(self, parser, name):
        content = (SAMPLES / name).read_bytes()
        for end in range(len(content)):
            leases = parser.leases(with_content(name, content[:end]))
            assert {lease.ip for lease in leases} <= {IP}, end

    @each_parser
    @given(data=st.data())
    def test_any_bytes_are_survived(self, parser, name, data):
        parser.leases(FileOnDisk(data.draw(st.binary(max_size=2000)), data.draw(st.sampled_from([name, ""])), None))

    @each_parser
    @given(data=st.data())
    def test_any_damage_to_a_true_file_is_survived(self, parser, name, data):
        content = bytearray((SAMPLES / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=40))
            content = content or bytearray(b"x")
        for lease in parser.leases(with_content(name, bytes(content))):
            assert lease.ip.packed
            assert lease.prefix is None or 0 <= lease.prefix <= 32
            assert lease.interface.isascii()
            assert lease.interface.isprintable()

    @each_parser
    @given(text=st.text(max_size=500))
    @example("lease {" * 100)
    @example("<a" * 200)
    @example('"' * 400)
    def test_any_text_is_survived(self, parser, name, text):
        parser.leases(with_content(name, text.encode("utf-8", errors="surrogatepass")))

    @given(content=st.binary(max_size=3000), client=st.sampled_from(GuestClient))
    def test_whatever_a_driver_brings_is_survived(self, content, client):
        leases_of([LeaseFile(client, content)])

    def test_leases_are_bounded(self):
        blocks = b"".join(dhclient_block(interface=f'"eth{number}"') for number in range(1000))
        assert len(leases_of([LeaseFile(GuestClient.DHCLIENT, blocks)])) == 256


class TestArchive:
    def test_files_keep_their_names_and_times(self):
        content = tar({"./eth0.lease": b"one", "./eth1.lease": b"two"})
        assert list(archive.files(content)) == [
            FileOnDisk(b"one", "eth0.lease", GIVEN),
            FileOnDisk(b"two", "eth1.lease", GIVEN),
        ]

    def test_what_is_no_archive_is_one_file(self):
        assert list(archive.files(b"lease {}")) == [FileOnDisk(b"lease {}")]

    def test_links_and_directories_are_none(self):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive_file:
            for name, kind in (("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("f", tarfile.FIFOTYPE)):
                member = tarfile.TarInfo(name)
                member.type, member.linkname = kind, "/etc/shadow"
                archive_file.addfile(member)
        assert list(archive.files(buffer.getvalue())) == []

    def test_a_file_that_is_cut_off_is_left_out(self):
        content = tar({"eth0.lease": b"one", "eth1.lease": b"x" * 600})
        assert [file.name for file in archive.files(content[: 1024 + 512 + 512])] == ["eth0.lease"]

    def test_a_header_whose_sum_is_wrong_ends_the_archive(self):
        content = bytearray(tar({"eth0.lease": b"one", "eth1.lease": b"two"}))
        content[1024] ^= 1
        assert [file.name for file in archive.files(bytes(content))] == ["eth0.lease"]

    def test_the_number_of_files_is_bounded(self):
        content = tar({f"{number}.lease": b"" for number in range(1000)})
        assert len(list(archive.files(content))) == 256

    @given(data=st.data())
    def test_any_damage_is_survived(self, data):
        content = bytearray(tar({"./eth0.lease": b"one" * 300, "./eth1.lease": b"two"}))
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(content) - 1))
            damage = data.draw(st.binary(min_size=1, max_size=20))
            content[at : at + len(damage)] = damage
        for file in archive.files(bytes(content)):
            assert len(file.content) <= FILE_MAX_BYTES


# Which lease is a NIC's ------------------------------------------------------------------------------

NET, OTHER_NET = IPv4Network("192.0.2.0/24"), IPv4Network("198.51.100.0/24")
NOW = datetime(2026, 11, 21, 17, 0, tzinfo=UTC)
STARTED = NOW - timedelta(hours=6)
MINUTE = timedelta(minutes=1)
NIC = DiskNic(MAC, NET)


def a_lease(ip: str = "192.0.2.7", **changes) -> GuestLease:
    values = {
        "prefix": 24,
        "mac": None,
        "interface": "eth0",
        "renewed": NOW - timedelta(minutes=30),
        "expires": NOW + timedelta(minutes=30),
    }
    return GuestLease(IPv4Address(ip), **(values | changes))


def address(ip: str) -> GuestAddress:
    return GuestAddress(MAC, IPv4Address(ip), Source.DISK, 24)


class TestWhichLeaseIsANics:
    def choice(self, *leases: GuestLease, nic: DiskNic = NIC, others: tuple[DiskNic, ...] = ()):
        return choose(leases, nic, others, STARTED, NOW)

    def test_the_only_nics(self):
        assert self.choice(a_lease()) == (address("192.0.2.7"),)

    def test_none_without_leases(self):
        assert self.choice() == ()

    @pytest.mark.parametrize(
        "changes",
        [
            {"expires": NOW - timedelta(hours=1)},
            {"renewed": STARTED - timedelta(hours=1, seconds=1)},
            {"renewed": NOW + timedelta(hours=1, seconds=1)},
            {"renewed": None},
        ],
        ids=["ended", "of a former boot", "of the future", "of no time"],
    )
    def test_a_lease_that_the_guest_cannot_have_now_does_not_count(self, changes):
        assert self.choice(a_lease(**changes)) == ()

    @pytest.mark.parametrize("renewed", [STARTED - timedelta(hours=1), NOW + timedelta(hours=1)])
    def test_clocks_may_be_an_hour_apart(self, renewed):
        assert self.choice(a_lease(renewed=renewed)) == (address("192.0.2.7"),)

    def test_a_guests_clock_may_be_an_hour_behind(self):
        ended = a_lease(renewed=NOW - timedelta(minutes=70), expires=NOW - timedelta(minutes=59))
        assert self.choice(ended) == (address("192.0.2.7"),)

    @pytest.mark.parametrize("mac", [MAC, None])
    def test_a_lease_that_has_not_ended_goes_before_one_that_has(self, mac):
        ended = a_lease("192.0.2.6", mac=mac, interface="", expires=NOW - timedelta(minutes=10))
        assert self.choice(ended, a_lease(mac=mac)) == (address("192.0.2.7"),)

    def test_a_lease_without_an_end_counts(self):
        assert self.choice(a_lease(expires=None)) == (address("192.0.2.7"),)

    def test_of_two_files_for_one_interface_the_later_counts(self):
        old = a_lease("192.0.2.6", renewed=NOW - timedelta(minutes=50))
        assert self.choice(old, a_lease()) == (address("192.0.2.7"),)

    def test_a_mac_decides_before_all_else(self):
        other = DiskNic(OTHER_MAC, NET)
        leases = (a_lease("192.0.2.8", mac=OTHER_MAC, interface="eth1"), a_lease(mac=MAC))
        assert self.choice(*leases, others=(other,)) == (address("192.0.2.7"),)

    def test_a_lease_of_a_mac_that_the_vm_does_not_have_is_the_templates(self):
        assert self.choice(a_lease(mac="52:54:00:ff:ff:ff")) == ()

    def test_of_several_nics_the_one_on_whose_network_the_address_is(self):
        leases = (a_lease("198.51.100.9", interface="eth1"), a_lease())
        assert self.choice(*leases, others=(DiskNic(OTHER_MAC, OTHER_NET),)) == (address("192.0.2.7"),)

    def test_a_lease_of_the_other_nic_alone_is_not_this_ones(self):
        lease = a_lease("198.51.100.9", interface="eth1")
        assert self.choice(lease, others=(DiskNic(OTHER_MAC, OTHER_NET),)) == ()

    @pytest.mark.parametrize("cidr", [NET, IPv4Network("192.0.0.0/16"), None], ids=["same", "wider", "unknown"])
    def test_nics_on_networks_of_one_range_cannot_be_told_apart(self, cidr):
        choice = self.choice(a_lease(), others=(DiskNic(OTHER_MAC, cidr),))
        assert isinstance(choice, Ambiguous)
        assert "the same range" in choice.reason

    def test_a_network_without_a_range_tells_nothing(self):
        choice = self.choice(a_lease(), nic=DiskNic(MAC, None), others=(DiskNic(OTHER_MAC, OTHER_NET),))
        assert isinstance(choice, Ambiguous)

    def test_two_addresses_for_one_nic_are_ambiguous(self):
        choice = self.choice(a_lease(), a_lease("192.0.2.8", interface="eth1"))
        assert choice == Ambiguous("The disk has valid leases of 192.0.2.7, 192.0.2.8, and none says whose it is.")

    def test_the_only_nics_address_outside_its_network_is_told(self):
        assert self.choice(a_lease("203.0.113.5")) == (address("203.0.113.5"),)

    def test_the_only_nics_address_inside_its_network_goes_before_one_outside(self):
        assert self.choice(a_lease("203.0.113.5", interface="virbr0"), a_lease()) == (address("192.0.2.7"),)

    def test_two_clients_with_one_address_agree(self):
        assert self.choice(a_lease(interface=""), a_lease()) == (address("192.0.2.7"),)
