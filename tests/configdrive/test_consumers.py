"""What each guest needs that cannot run here, as its sources and documents say, on the image as others read it.

Linux guests see the Rock Ridge names, which xorriso reads; Windows sees the Joliet ones, which bsdtar
reads: cloudbase-init unpacks with it. cloud-init, which can run here, has tests of its own.
"""

import hashlib
import json
import re
from pathlib import Path

import pytest

from configdrive.iso import build_iso
from tests.configdrive.drives import DATED, files_below, make_files, tool

UUID = "6f0f9d2a-9c0b-4f63-9f5e-0d8d8a3e7c11"
KEYS = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 alice@example.org", "ssh-rsa AAAAB3NzaC1yc2E bob")
MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")
PASSWORD = "s3cretCanary0042"
IGNITION = b'{"ignition": {"version": "3.4.0"}}'

FULL = make_files(public_keys=KEYS, user_data=IGNITION, password=PASSWORD, local_ipv4="192.0.2.7", macs=MACS)
# A later start of a VM without Windows, user data or key: the password has long been set.
BARE = make_files(public_keys=(), user_data=None, password=None, windows=False)

# What CloudStack's cloud-get-vm-data-configdrive prints, of what a VM without a virtual router has.
CLOUDSTACK_NAMES = [
    "availability-zone",
    "cloud-identifier",
    "instance-id",
    "local-hostname",
    "local-ipv4",
    "service-offering",
    "vm-id",
]
AFTERBURN_NAMES = [
    "availability_zone",
    "cloud_identifier",
    "instance_id",
    "local_hostname",
    "service_offering",
    "vm_id",
]


def linux(directory: Path, files: dict[str, bytes], label: str = "config-2") -> dict[str, bytes]:
    """The files as a Linux guest finds them."""
    (directory / "drive.iso").write_bytes(build_iso(files, label, DATED))
    tool(directory, "xorriso", "-osirrox", "on", "-indev", "drive.iso", "-extract", "/", "linux")
    return files_below(directory / "linux")


def windows(directory: Path, files: dict[str, bytes]) -> dict[str, bytes]:
    """The files as a Windows guest finds them, for which names differ not in case."""
    (directory / "drive.iso").write_bytes(build_iso(files, "config-2", DATED))
    (directory / "windows").mkdir()
    tool(directory, "bsdtar", "-x", "-C", "windows", "--options", "iso9660:!rockridge", "-f", "drive.iso")
    found = files_below(directory / "windows")
    in_capitals = {path.replace("/", "\\").upper(): content for path, content in found.items()}
    assert len(in_capitals) == len(found)
    return in_capitals


@pytest.fixture(scope="module")
def on_linux(tmp_path_factory) -> dict[str, bytes]:
    return linux(tmp_path_factory.mktemp("full"), FULL)


@pytest.fixture(scope="module")
def bare_on_linux(tmp_path_factory) -> dict[str, bytes]:
    return linux(tmp_path_factory.mktemp("bare"), BARE)


@pytest.fixture(scope="module")
def on_windows(tmp_path_factory) -> dict[str, bytes]:
    return windows(tmp_path_factory.mktemp("full"), FULL)


@pytest.fixture(scope="module")
def bare_on_windows(tmp_path_factory) -> dict[str, bytes]:
    return windows(tmp_path_factory.mktemp("bare"), BARE)


def one_key_a_line(content: bytes) -> list[str]:
    assert content.endswith(b"\n")  # both kinds of readers append it to a file
    return content.decode().splitlines()


# The label ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["config", "config-2", "CONFIG-2"])
def test_every_guest_that_looks_for_a_label_finds_exactly_that_one(run, tmp_path, label):
    """Ignition, Afterburn and CloudStack's scripts ask udev or blkid; Windows has VolumeName, whose case matters."""
    (tmp_path / "drive.iso").write_bytes(build_iso(FULL, label, DATED))

    assert run("blkid", "-p", "-o", "value", "-s", "LABEL", "drive.iso") == f"{label}\n"
    assert f"Volume id: {label}\n" in run("isoinfo", "-d", "-i", "drive.iso")
    # The second descriptor, in Joliet's two bytes a character: the one that Windows and blkid prefer.
    joliet = (tmp_path / "drive.iso").read_bytes()[17 * 2048 :]
    assert (joliet[0], joliet[40:72].decode("utf-16-be").rstrip(" \0")) == (2, label)


def test_afterburn_wants_the_type_iso9660(run, tmp_path):
    (tmp_path / "drive.iso").write_bytes(build_iso(FULL, "config-2", DATED))

    assert run("blkid", "-p", "-o", "value", "-s", "TYPE", "drive.iso") == "iso9660\n"


# The spec's scripts ---------------------------------------------------------------------------


def test_the_specs_scripts_find_the_names_and_sizes_that_it_lists(tmp_path):
    files = linux(tmp_path, make_files(hostname="i-2-21-VM", password="fourteen-chars"), "config")

    listed = {path: len(content) for path, content in files.items() if re.match(r"cloudstack/[mp][^-]*$", path)}
    # The spec's VM is no Windows one and has no key.
    unlisted = {"cloudstack/password/vm_password_md5checksum.txt", "cloudstack/metadata/public_keys.txt"}
    assert {path: size for path, size in listed.items() if path not in unlisted} == {
        "cloudstack/metadata/availability_zone.txt": 5,
        "cloudstack/metadata/cloud_identifier.txt": 49,
        "cloudstack/metadata/instance_id.txt": 9,
        "cloudstack/metadata/local_hostname.txt": 9,
        "cloudstack/metadata/service_offering.txt": 14,
        "cloudstack/metadata/vm_id.txt": 2,
        "cloudstack/password/vm_password.txt": 14,
    }


def test_the_specs_scripts_find_user_data_as_userdata_txt(on_linux):
    assert on_linux["cloudstack/userdata/userdata.txt"] == IGNITION


# CloudStack's guest scripts -------------------------------------------------------------------


@pytest.mark.parametrize("name", CLOUDSTACK_NAMES)
def test_cloudstacks_vm_data_script_prints_files_with_hyphens(on_linux, name):
    content = on_linux[f"cloudstack/metadata/{name}.txt"]

    assert content == content.strip() != b""
    assert content == on_linux[f"cloudstack/metadata/{name.replace('-', '_')}.txt"]


def test_cloudstacks_vm_data_script_prints_user_data(on_linux):
    assert on_linux["cloudstack/userdata/user_data.txt"] == IGNITION


@pytest.mark.parametrize("name", ["public-keys.txt", "public_keys.txt"])
def test_cloudstacks_combined_script_and_its_key_script_spell_the_file_of_keys_differently(on_linux, name):
    assert one_key_a_line(on_linux[f"cloudstack/metadata/{name}"]) == list(KEYS)


def test_cloudstacks_password_script_takes_the_whole_file(on_linux):
    assert on_linux["cloudstack/password/vm_password.txt"] == PASSWORD.encode()


def test_cloudstacks_scripts_set_no_password_when_there_is_no_file(bare_on_linux):
    assert not [path for path in bare_on_linux if path.startswith("cloudstack/password")]


@pytest.mark.parametrize("name", ["VM_PASSWORD_MD5CHECKSUM.TXT", "VM-PASSWORD-MD5CHECKSUM.TXT"])
def test_cloudstacks_windows_script_reads_first_lines_and_either_checksum(on_windows, name):
    password = on_windows["\\".join(["CLOUDSTACK", "PASSWORD", "VM_PASSWORD.TXT"])]
    checksum = on_windows["\\".join(["CLOUDSTACK", "PASSWORD", name])]

    assert password.decode("ascii").splitlines() == [PASSWORD]
    assert checksum.decode("ascii") == hashlib.md5(password, usedforsecurity=False).hexdigest()


def test_cloudstacks_windows_script_finds_no_password_that_was_set_before(bare_on_windows):
    assert not [path for path in bare_on_windows if "PASSWORD" in path]


# Ignition -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "path"),
    [("cloudstack", "cloudstack/userdata/user_data.txt"), ("openstack", "openstack/latest/user_data")],
)
def test_ignition_parses_user_data_as_it_is(on_linux, platform, path):
    assert on_linux[path] == IGNITION


@pytest.mark.parametrize("path", ["cloudstack/userdata/user_data.txt", "openstack/latest/user_data"])
def test_ignition_takes_a_file_that_is_not_there_for_an_empty_config_but_cannot_parse_an_empty_one(bare_on_linux, path):
    assert path not in bare_on_linux


# Afterburn ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", AFTERBURN_NAMES)
def test_afterburn_cloudstack_takes_files_with_underscores_whole(on_linux, name):
    content = on_linux[f"cloudstack/metadata/{name}.txt"]

    # A newline at the end would become part of the attribute.
    assert content == content.strip() != b""


def test_afterburn_cloudstack_reads_one_key_a_line(on_linux):
    assert one_key_a_line(on_linux["cloudstack/metadata/public_keys.txt"]) == list(KEYS)


def test_afterburn_openstack_parses_each_value_of_public_keys_as_one_key(on_linux):
    data = json.loads(on_linux["openstack/latest/meta_data.json"])

    assert list(data["public_keys"].values()) == list(KEYS)
    assert not any("\n" in key for key in data["public_keys"].values())
    assert (data["uuid"], data["hostname"]) == (UUID, "web-1")


# cloudbase-init on Windows --------------------------------------------------------------------


def test_cloudbase_init_reads_openstacks_tree_by_joliet_names(on_windows):
    data = json.loads(on_windows[r"OPENSTACK\LATEST\META_DATA.JSON"])

    assert (data["uuid"], data["hostname"]) == (UUID, "web-1")
    assert on_windows[r"OPENSTACK\LATEST\USER_DATA"] == IGNITION


def test_cloudbase_init_sets_admin_pass_and_reads_no_vendor_data(on_windows):
    assert json.loads(on_windows[r"OPENSTACK\LATEST\META_DATA.JSON"])["admin_pass"] == PASSWORD


def test_cloudbase_init_sets_no_password_that_was_set_before(bare_on_windows):
    data = json.loads(bare_on_windows[r"OPENSTACK\LATEST\META_DATA.JSON"])

    assert "admin_pass" not in data
    assert "admin_pass" not in data.get("meta", {})


def test_cloudbase_init_merges_public_keys_with_typed_keys(on_windows):
    data = json.loads(on_windows[r"OPENSTACK\LATEST\META_DATA.JSON"])

    assert [key["data"] for key in data["keys"]] == list(data["public_keys"].values()) == list(KEYS)
    assert {key["type"] for key in data["keys"]} == {"ssh"}


def test_cloudbase_init_dies_of_a_static_network_without_netmask_and_renames_adapters_to_link_ids(on_windows):
    data = json.loads(on_windows[r"OPENSTACK\LATEST\NETWORK_DATA.JSON"])

    assert [link["ethernet_mac_address"] for link in data["links"]] == list(MACS)
    assert len({link["id"] for link in data["links"]}) == len(MACS)
    assert {network["type"] for network in data["networks"]} == {"ipv4_dhcp"}  # which it skips: Windows does DHCP


def test_cloudbase_init_reads_the_size_of_a_raw_disk_as_16_bits(run, tmp_path):
    (tmp_path / "drive.iso").write_bytes(build_iso(make_files(user_data=b"u" * 786_432), "config-2", DATED))

    blocks = re.search(r"Volume size is: (\d+)", run("isoinfo", "-d", "-i", "drive.iso"))[1]
    assert int(blocks) * 2048 == (tmp_path / "drive.iso").stat().st_size
    assert int(blocks) < 65_535
