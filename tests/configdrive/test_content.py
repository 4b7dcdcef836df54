"""What each guest that reads a config drive needs of its files; the guests that cannot run here are named."""

import hashlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from configdrive.content import DriveFacts, InvalidValue, drive_files

UUID = "6f0f9d2a-9c0b-4f63-9f5e-0d8d8a3e7c11"
CLOUD = "0b5e4a0c-64f2-4a34-9c9e-6f1de9b1f2aa"
KEYS = ("ssh-ed25519 AAAAC3Nz alice@example.org", "ssh-rsa AAAAB3Nz bob")
PASSWORD = "s3cretCanary0042"

SPEC_METADATA = {"availability_zone", "cloud_identifier", "instance_id", "local_hostname", "service_offering", "vm_id"}


def make_facts(**changes) -> DriveFacts:
    facts = {
        "uuid": UUID,
        "instance_name": "i-2-21-VM",
        "vm_number": 21,
        "hostname": "web-1",
        "availability_zone": "zone1",
        "service_offering": "Small Instance",
        "cloud_identifier": CLOUD,
    }
    return DriveFacts(**facts | changes)


def meta_data(facts: DriveFacts) -> dict:
    return json.loads(drive_files(facts)["openstack/latest/meta_data.json"])


def vendor_data(facts: DriveFacts) -> dict:
    return json.loads(drive_files(facts)["openstack/latest/vendor_data.json"])


# The spec -------------------------------------------------------------------------------------


def test_spec_tree_has_the_listed_sizes():
    files = drive_files(make_facts(hostname="i-2-21-VM", password="fourteen-chars"))

    sizes = {path: len(files[path]) for path in files if path.startswith("cloudstack/") and "-" not in path}
    assert sizes == {
        "cloudstack/metadata/availability_zone.txt": 5,
        "cloudstack/metadata/cloud_identifier.txt": 49,
        "cloudstack/metadata/instance_id.txt": 9,
        "cloudstack/metadata/local_hostname.txt": 9,
        "cloudstack/metadata/service_offering.txt": 14,
        "cloudstack/metadata/vm_id.txt": 2,
        "cloudstack/password/vm_password.txt": 14,
    }


def test_spec_values():
    files = drive_files(make_facts(local_ipv4="192.0.2.7"))

    assert {name: files[f"cloudstack/metadata/{name}.txt"] for name in {*SPEC_METADATA, "local_ipv4"}} == {
        "availability_zone": b"zone1",
        "cloud_identifier": b"CloudStack-{" + CLOUD.encode() + b"}",
        "instance_id": b"i-2-21-VM",
        "local_hostname": b"web-1",
        "service_offering": b"Small Instance",
        "vm_id": b"21",
        "local_ipv4": b"192.0.2.7",
    }


def test_external_dhcp_spec_finds_user_data_as_userdata_txt():
    assert drive_files(make_facts(user_data=b"role=web\n"))["cloudstack/userdata/userdata.txt"] == b"role=web\n"


def test_a_value_that_is_not_known_has_no_file_and_no_key():
    facts = make_facts(availability_zone="", service_offering="", cloud_identifier="", public_keys=("",), user_data=b"")

    files = drive_files(facts)
    assert sorted(files) == [
        "cloudstack/metadata/instance-id.txt",
        "cloudstack/metadata/instance_id.txt",
        "cloudstack/metadata/local-hostname.txt",
        "cloudstack/metadata/local_hostname.txt",
        "cloudstack/metadata/vm-id.txt",
        "cloudstack/metadata/vm_id.txt",
        "openstack/latest/meta_data.json",
        "openstack/latest/vendor_data.json",
    ]
    assert all(files.values())
    assert meta_data(facts) == {"uuid": UUID, "name": "web-1", "hostname": "web-1"}


# The readers ----------------------------------------------------------------------------------


def test_cloud_init_refuses_a_drive_whose_meta_data_has_no_uuid():
    data = meta_data(make_facts(uuid=UUID.upper(), public_keys=KEYS))

    # Lower case, as cloud-init compares it with the SMBIOS UUID.
    assert (data["uuid"], data["hostname"], data["availability_zone"]) == (UUID, "web-1", "zone1")
    assert list(data["public_keys"].values()) == list(KEYS)


def test_cloud_init_leaves_nics_down_if_network_data_is_empty_so_there_is_none():
    assert "openstack/latest/network_data.json" not in drive_files(make_facts(local_ipv4="192.0.2.7"))


def test_cloud_init_sets_the_password_from_vendor_data_only():
    [(part, text)] = vendor_data(make_facts(password=PASSWORD)).items()

    assert part == "cloud-init"
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == {"password": PASSWORD, "chpasswd": {"expire": False}, "ssh_pwauth": True}


def test_cloud_init_without_a_password_gets_an_empty_object():
    assert vendor_data(make_facts()) == {}


def test_cloudbase_init_reads_admin_pass_and_typed_keys():
    data = meta_data(make_facts(password=PASSWORD, public_keys=KEYS))

    assert data["admin_pass"] == PASSWORD
    assert [(key["type"], key["data"]) for key in data["keys"]] == [("ssh", KEYS[0]), ("ssh", KEYS[1])]


@pytest.mark.parametrize("path", ["cloudstack/userdata/user_data.txt", "openstack/latest/user_data"])
def test_ignition_reads_the_bytes_of_user_data(path):
    config = b'{"ignition": {"version": "3.4.0"}}'

    assert drive_files(make_facts(user_data=config))[path] == config


def test_user_data_of_any_bytes_passes_through():
    gzip = b"\x1f\x8b\x08\x00\x00\xff\n"

    assert drive_files(make_facts(user_data=gzip))["openstack/latest/user_data"] == gzip


def test_afterburn_takes_underscore_files_whole_so_none_ends_with_a_newline():
    files = drive_files(make_facts())

    assert all(files[f"cloudstack/metadata/{name}.txt"].rstrip() for name in SPEC_METADATA)
    assert not any(files[f"cloudstack/metadata/{name}.txt"].endswith(b"\n") for name in SPEC_METADATA)


def test_afterburn_reads_one_key_a_line_and_one_key_a_value():
    facts = make_facts(public_keys=(KEYS[0], "", KEYS[1]))

    assert drive_files(facts)["cloudstack/metadata/public_keys.txt"].decode().split("\n") == [*KEYS, ""]
    assert meta_data(facts)["public_keys"] == {"key-1": KEYS[0], "key-2": KEYS[1]}


def test_cloudstack_scripts_read_hyphen_names():
    files = drive_files(make_facts(public_keys=KEYS, local_ipv4="192.0.2.7"))

    for name in {*SPEC_METADATA, "local_ipv4", "public_keys"}:
        hyphened = name.replace("_", "-")
        assert files[f"cloudstack/metadata/{hyphened}.txt"] == files[f"cloudstack/metadata/{name}.txt"]


def test_cloudstack_linux_script_reads_the_password_without_newline():
    files = drive_files(make_facts(password=PASSWORD))

    assert files["cloudstack/password/vm_password.txt"] == PASSWORD.encode()
    assert not [path for path in files if "checksum" in path]


@pytest.mark.parametrize("name", ["vm_password_md5checksum.txt", "vm-password-md5checksum.txt"])
def test_cloudstack_windows_script_needs_the_checksum(name):
    files = drive_files(make_facts(password=PASSWORD, windows=True))

    expected = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
    assert files[f"cloudstack/password/{name}"].decode() == expected


def test_cloudstack_scripts_do_nothing_on_saved_password_so_nobody_may_have_it():
    with pytest.raises(InvalidValue, match="password"):
        drive_files(make_facts(password="saved_password"))


# Secrets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("password", [None, ""])
def test_no_file_speaks_of_a_password_when_there_is_none(password, windows):
    files = drive_files(make_facts(password=password, windows=windows, user_data=b"x", public_keys=KEYS))

    assert not [path for path, content in files.items() if "pass" in path or b"pass" in content]


def test_the_password_is_where_a_reader_needs_it_and_nowhere_else():
    files = drive_files(make_facts(password=PASSWORD, windows=True, user_data=b"x", public_keys=KEYS))

    assert {path for path, content in files.items() if PASSWORD.encode() in content} == {
        "cloudstack/password/vm_password.txt",
        "openstack/latest/meta_data.json",
        "openstack/latest/vendor_data.json",
    }


def test_facts_print_neither_password_nor_user_data():
    assert "anary" not in repr(make_facts(password=PASSWORD, user_data=b"canary"))


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\x85", "\u2028", "\ud800", "\uffff"])
@pytest.mark.parametrize("name", ["instance_name", "hostname", "cloud_identifier", "local_ipv4", "password"])
def test_a_second_line_is_refused_and_the_text_names_the_value(name, bad):
    with pytest.raises(InvalidValue, match=rf"^{name}: ") as refusal:
        drive_files(make_facts(**{name: f"canary{bad}"}))

    assert "canary" not in str(refusal.value)


def test_two_keys_in_one_are_refused_and_the_text_counts_them():
    with pytest.raises(InvalidValue, match=r"^public key 2: "):
        drive_files(make_facts(public_keys=(KEYS[0], "\n".join(KEYS))))


@pytest.mark.parametrize("uuid", ["", "21", "i-2-21-VM", UUID + "\n0"])
def test_a_uuid_that_is_none_is_refused(uuid):
    with pytest.raises(InvalidValue, match=r"^uuid: "):
        drive_files(make_facts(uuid=uuid))


ANY_TEXT = st.text(max_size=40)


@given(password=ANY_TEXT.filter(bool))
def test_any_password_is_refused_or_reaches_all_three_readers(password):
    facts = make_facts(password=password)
    try:
        files = drive_files(facts)
    except InvalidValue:
        return
    assert files["cloudstack/password/vm_password.txt"].decode() == password
    assert meta_data(facts)["admin_pass"] == password
    assert yaml.safe_load(vendor_data(facts)["cloud-init"])["password"] == password


@given(password=st.text("'\"\\{}[]#:-&*!|>%@` äß€😀\u00a0\ufeff", min_size=1))
def test_no_printable_character_is_refused_or_breaks_the_yaml(password):
    text = vendor_data(make_facts(password=password))["cloud-init"]

    assert yaml.safe_load(text) == {"password": password, "chpasswd": {"expire": False}, "ssh_pwauth": True}


@given(hostname=ANY_TEXT, offering=ANY_TEXT, zone=ANY_TEXT, keys=st.lists(ANY_TEXT).map(tuple))
def test_whatever_the_values_are_metadata_is_one_line_and_never_empty(hostname, offering, zone, keys):
    facts = make_facts(hostname=hostname, service_offering=offering, availability_zone=zone, public_keys=keys)
    try:
        files = drive_files(facts)
    except InvalidValue:
        return
    for path, content in files.items():
        assert content
        lines = len([key for key in keys if key]) if "public" in path else 1
        assert len(content.decode().splitlines()) == lines


def test_a_vm_without_keys_has_a_file_of_them_for_afterburn_alone():
    path = "cloudstack/metadata/public_keys.txt"
    assert path not in drive_files(make_facts())
    assert drive_files(make_facts(always_keys_file=True))[path] == b""


@pytest.mark.parametrize("bad", ["\n", "\0", "\x85", "\u2028", "\ud800"])
def test_a_second_line_in_an_operators_name_becomes_a_blank(bad):
    """One zone of such a name would else leave all its VMs without a drive."""
    facts = make_facts(availability_zone=f"Frankfurt{bad}Main", service_offering=f"Small{bad}Instance")
    files = drive_files(facts)
    assert files["cloudstack/metadata/availability-zone.txt"] == b"Frankfurt Main"
    assert files["cloudstack/metadata/service_offering.txt"] == b"Small Instance"
    assert meta_data(facts)["availability_zone"] == "Frankfurt Main"


# Several NICs ---------------------------------------------------------------------------------

NETWORK_DATA = "openstack/latest/network_data.json"


@pytest.mark.parametrize("macs", [(), ("06:00:00:00:00:01",)])
def test_one_nic_needs_no_network_data(macs):
    """An empty file makes cloud-init leave every NIC down; without one it asks by DHCP."""
    assert NETWORK_DATA not in drive_files(make_facts(macs=macs))


def test_several_nics_each_ask_by_dhcp():
    macs = ("06:00:00:00:00:01", "06:00:00:00:00:02")
    network_data = json.loads(drive_files(make_facts(macs=macs))[NETWORK_DATA])
    assert [link["ethernet_mac_address"] for link in network_data["links"]] == list(macs)
    assert {link["type"] for link in network_data["links"]} == {"phy"}
    assert [(network["link"], network["type"]) for network in network_data["networks"]] == [
        (link["id"], "ipv4_dhcp") for link in network_data["links"]
    ]


# The per-boot part ----------------------------------------------------------------------------


def test_the_per_boot_script_comes_after_the_password_and_stays_without_one():
    script = "#cloud-boothook\n#!/bin/sh\n"
    both = vendor_data(make_facts(password=PASSWORD, per_boot_script=script))["cloud-init"]
    assert [part.split("\n", 1)[0] for part in both] == ["#cloud-config", "#cloud-boothook"]
    assert vendor_data(make_facts(per_boot_script=script)) == {"cloud-init": script}
    assert vendor_data(make_facts()) == {}
