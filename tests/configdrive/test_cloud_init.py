"""Debian's cloud-init, as packaged, finds and reads our drives and has nothing to complain of."""

import gzip
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
import yaml

from configdrive.iso import build_iso
from tests.configdrive import cloud_init
from tests.configdrive.cloud_init import DISABLED
from tests.configdrive.drives import DATED, make_files

UUID = "6f0f9d2a-9c0b-4f63-9f5e-0d8d8a3e7c11"
KEYS = ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 alice@example.org", "ssh-rsa AAAAB3NzaC1yc2E bob")
MACS = ("52:54:00:00:00:01", "52:54:00:00:00:02")
SCRIPT = b"#!/bin/sh\necho here\n"


@pytest.fixture
def make_drive(tmp_path):
    def make_drive(label="config-2", **facts):
        drive = tmp_path / "drive.iso"
        drive.write_bytes(build_iso(make_files(**facts), label, DATED))
        return drive

    return make_drive


def multipart() -> bytes:
    message = MIMEMultipart()
    message.attach(MIMEText("packages: [htop]\n", "cloud-config"))
    message.attach(MIMEText(SCRIPT.decode(), "x-shellscript"))
    return message.as_bytes()


# Reading --------------------------------------------------------------------------------------


def test_cloud_init_reads_a_full_drive_without_a_warning(make_drive):
    reading = cloud_init.read(make_drive(public_keys=KEYS, user_data=SCRIPT, macs=MACS[:1]), MACS)

    assert reading.complaints == []
    assert (reading.instance_id, reading.hostname, reading.public_keys) == (UUID, "web-1", list(KEYS))
    assert (reading.user_data, reading.user_data_parts) == (SCRIPT, ["text/x-shellscript"])


def test_cloud_init_reads_a_bare_drive_without_a_warning(make_drive):
    reading = cloud_init.read(make_drive(public_keys=(), user_data=None, password=None))

    assert reading.complaints == []
    assert (reading.instance_id, reading.hostname, reading.public_keys) == (UUID, "web-1", [])
    assert (reading.user_data, reading.vendor_data) == (b"", [])


@pytest.mark.parametrize("password", ["s3cretCanary0042", "'\"\\{}#: ä€😀"])
def test_cloud_init_takes_the_password_from_vendor_data(make_drive, password):
    reading = cloud_init.read(make_drive(password=password))

    assert reading.complaints == []
    [config] = [part for part in reading.vendor_data if part.startswith("#cloud-config\n")]
    assert yaml.safe_load(config) == {"password": password, "chpasswd": {"expire": False}, "ssh_pwauth": True}


@pytest.mark.parametrize("password", [None, "s3cretCanary0042"])
def test_cloud_init_takes_a_script_for_every_boot_from_vendor_data(make_drive, password):
    reading = cloud_init.read(make_drive(password=password, per_boot_script="#cloud-boothook\n#!/bin/sh\ntrue\n"))

    assert reading.complaints == []
    assert reading.vendor_data[-1] == "#cloud-boothook\n#!/bin/sh\ntrue\n"
    assert len(reading.vendor_data) == (2 if password else 1)


@pytest.mark.parametrize(
    ("user_data", "parts"),
    [
        (b"#cloud-config\npackages: [htop]\n", ["text/cloud-config"]),
        (gzip.compress(SCRIPT, mtime=0), ["text/x-shellscript"]),
        (multipart(), ["text/cloud-config", "text/x-shellscript"]),
        (gzip.compress(multipart(), mtime=0), ["text/cloud-config", "text/x-shellscript"]),
        (b"#!/bin/sh\n" + b"#" * 786_422, ["text/x-shellscript"]),
    ],
    ids=["cloud-config", "gzip", "multipart", "gzipped multipart", "the longest"],
)
def test_cloud_init_gets_the_bytes_of_user_data_whatever_they_are(make_drive, user_data, parts):
    reading = cloud_init.read(make_drive(user_data=user_data))

    assert reading.complaints == []
    assert reading.user_data == user_data
    assert reading.user_data_parts == parts


def test_cloud_init_finds_no_network_data_for_one_nic_and_falls_back_to_dhcp(make_drive):
    assert cloud_init.read(make_drive(macs=MACS[:1]), MACS[:1]).network is None


def test_cloud_init_asks_dhcp_on_each_of_several_nics(make_drive):
    reading = cloud_init.read(make_drive(macs=MACS), MACS)

    assert reading.complaints == []
    assert [(nic["name"], nic["mac_address"], nic["subnets"]) for nic in reading.network["config"]] == [
        ("eth0", MACS[0], [{"type": "dhcp4"}]),
        ("eth1", MACS[1], [{"type": "dhcp4"}]),
    ]


# Finding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["config-2", "CONFIG-2"])
def test_a_stock_image_finds_the_label_of_stock_images(make_drive, label):
    assert cloud_init.ds_identify(make_drive(label)) == "[ ConfigDrive, None ]"


def test_a_stock_image_does_not_see_the_specs_label(make_drive):
    assert cloud_init.ds_identify(make_drive("config")) == DISABLED


def test_an_image_that_names_config_drives_alone_takes_any_label(make_drive):
    assert cloud_init.ds_identify(make_drive("config"), configured="[ ConfigDrive, None ]") == "[ ConfigDrive, None ]"


def test_a_drive_wins_over_the_virtual_router_that_cloudstacks_product_name_promises(make_drive):
    found = cloud_init.ds_identify(make_drive("config-2"), product="CloudStack KVM Hypervisor")

    assert found == "[ ConfigDrive, CloudStack, None ]"
