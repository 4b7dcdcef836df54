import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks.hypervisors.base import Source
from networks.hypervisors.guest_addresses import MAX_ADDRESSES
from networks.hypervisors.kvm_addresses import guest_addresses

MAC = "52:54:00:00:02:01"


def read(answer, macs=(MAC,)):
    return guest_addresses(answer, macs, Source.GUEST_AGENT)


def interface(*addresses, mac=MAC):
    return {"hwaddr": mac, "addrs": [{"addr": address, "prefix": 24, "type": 0} for address in addresses]}


def test_addresses_come_with_their_mac_in_lower_case():
    (found,) = read({"eth0": interface("192.0.2.9", mac="52:54:00:00:02:AB")})

    assert (found.mac, str(found.ip), found.prefix, found.source) == (
        "52:54:00:00:02:ab",
        "192.0.2.9",
        24,
        Source.GUEST_AGENT,
    )


def test_both_families_and_link_local_are_kept_for_the_caller_to_judge():
    found = read({"eth0": interface("192.0.2.9", "2001:db8::9", "fe80::9", "169.254.7.7")})

    assert [str(a.ip) for a in found] == ["192.0.2.9", "2001:db8::9", "fe80::9", "169.254.7.7"]


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255", "::ffff:192.0.2.1",
        "fe80::1%eth0",
        "1.2.3.4\n", "1.2.3.4; rm -rf /", "0x7f.1", "127.1", "010.0.0.1", "1.2.3", "", " 192.0.2.1", "١٩٢.0.2.1",
        "x" * 10**6,
        None, 7, [], {},
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_nic_is_skipped(address):
    assert [str(a.ip) for a in read({"eth0": interface(address, "192.0.2.9")})] == ["192.0.2.9"]


@pytest.mark.parametrize(
    "answer",
    [
        None, [], "x" * 10**6, {"eth0": None}, {"eth0": []}, {"eth0": {}}, {"eth0": {"hwaddr": None, "addrs": []}},
        {"eth0": {"hwaddr": MAC, "addrs": None}}, {"eth0": {"hwaddr": MAC, "addrs": [None, "x", 7]}},
        {"eth0": {"hwaddr": "no mac", "addrs": [{"addr": "192.0.2.9"}]}},
        {"eth0": interface("192.0.2.9", mac=MAC + "\n")},
        {"eth0": interface("192.0.2.9", mac="x" * 10**6)},
    ],
)  # fmt: skip
def test_malformed_answer_has_no_addresses(answer):
    assert read(answer) == ()


@pytest.mark.parametrize("prefix", [-1, 33, "24", None, True, 10**30])
def test_prefix_out_of_range_is_none(prefix):
    answer = {"eth0": {"hwaddr": MAC, "addrs": [{"addr": "192.0.2.9", "prefix": prefix}]}}
    assert read(answer)[0].prefix is None


def test_own_interface_is_found_among_ten_thousand_others():
    answer = {
        f"veth{i}": interface("198.51.100.1", mac=f"02:00:00:00:{i // 256:02x}:{i % 256:02x}") for i in range(10000)
    }
    answer["eth0"] = interface("192.0.2.9")

    begun = time.monotonic()
    found = read(answer)

    assert str(found[0].ip) == "192.0.2.9"
    assert len(found) <= MAX_ADDRESSES
    assert time.monotonic() - begun < 1


def test_addresses_are_capped():
    assert len(read({"eth0": interface(*(f"192.0.2.{i}" for i in range(1, 255)))})) == MAX_ADDRESSES


def test_bond_and_its_slave_share_a_mac():
    answer = {"eth0": {"hwaddr": MAC, "addrs": None}, "bond0": interface("192.0.2.9")}
    assert [str(a.ip) for a in read(answer)] == ["192.0.2.9"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["hwaddr", "addrs", "addr"]), inner),
)


@given(JSON)
def test_no_answer_breaks_the_reader(answer):
    read(answer)
    read({"eth0": answer})
    read({"eth0": {"hwaddr": MAC, "addrs": answer}})
    read({"eth0": {"hwaddr": MAC, "addrs": [answer]}})
