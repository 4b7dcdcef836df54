"""The image, read back by pycdlib and by tools that share no code with it."""

import re
from io import BytesIO

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from configdrive.iso import MAX_IMAGE_BYTES, DriveTooLarge, InvalidPath, build_iso
from networks.volume_label import InvalidLabel, check_label
from tests.configdrive.drives import DATED, contents, files_below, make_files, modes, opened


@pytest.fixture
def drive(tmp_path):
    """A full drive as a file named drive.iso in the directory where `run` runs."""
    (tmp_path / "drive.iso").write_bytes(build_iso(make_files(), "config", DATED))


# Independent tools ----------------------------------------------------------------------------


@pytest.mark.usefixtures("drive")
def test_blkid_finds_the_drive_as_the_spec_says(run):
    assert run("blkid", "-p", "-o", "value", "-s", "LABEL", "-s", "TYPE", "drive.iso").split() == ["config", "iso9660"]


@pytest.mark.usefixtures("drive")
def test_isoinfo_sees_both_extensions_and_the_label(run):
    answer = run("isoinfo", "-d", "-i", "drive.iso")

    assert "Volume id: config\n" in answer
    assert "Logical block size is: 2048\n" in answer
    assert "Joliet with UCS level 3 found" in answer
    assert "Rock Ridge signatures version 1 found" in answer


@pytest.mark.usefixtures("drive")
@pytest.mark.parametrize("names", ["-R", "-J"])
def test_isoinfo_reads_every_file(run, names):
    files = make_files()

    listed = run("isoinfo", names, "-f", "-i", "drive.iso").split()
    assert {path for path in listed if path.removeprefix("/") in files} == {f"/{path}" for path in files}
    for path, content in files.items():
        assert run("isoinfo", names, "-x", f"/{path}", "-i", "drive.iso").encode() == content


@pytest.mark.usefixtures("drive")
def test_isoinfo_shows_the_modes(run):
    listing = run("isoinfo", "-l", "-R", "-i", "drive.iso")

    lines = [line.split() for line in listing.splitlines() if re.match("[d-]r", line)]
    mode_of = {line[-1]: line[0] for line in lines}
    assert mode_of["vm_id.txt"] == mode_of["public-keys.txt"] == "-r--r--r--"
    assert mode_of["vm_password.txt"] == mode_of["user_data"] == mode_of["meta_data.json"] == "-r--------"
    assert {line[0] for line in lines if line[0].startswith("d")} == {"dr-xr-xr-x"}


@pytest.mark.usefixtures("drive")
def test_xorriso_extracts_every_file(run, tmp_path):
    run("xorriso", "-osirrox", "on", "-indev", "drive.iso", "-extract", "/", "out")

    assert files_below(tmp_path / "out") == make_files()


@pytest.mark.usefixtures("drive")
@pytest.mark.parametrize("without", ["!joliet", "!rockridge"])
def test_cloudbase_init_unpacks_every_file_with_bsdtar(run, tmp_path, without):
    (tmp_path / "out").mkdir()

    run("bsdtar", "-x", "-C", "out", "--options", f"iso9660:{without}", "-f", "drive.iso")

    assert files_below(tmp_path / "out") == make_files()


@pytest.mark.usefixtures("drive")
def test_a_reader_of_plain_names_finds_the_spec_ones_with_their_content(run):
    """What Linux shows without Rock Ridge and Joliet, once it has lower-cased the names."""
    listed = run("isoinfo", "-f", "-i", "drive.iso").split()

    assert "/CLOUDSTACK/METADATA/VM_ID.TXT;1" in listed
    assert "/CLOUDSTACK/METADATA/VM_ID000.TXT;1" in listed
    assert "/CLOUDSTACK/PASSWORD/VM_PASSWORD_MD5CHECKSUM.TXT;1" in listed
    assert "/OPENSTACK/LATEST/USER_DATA.;1" in listed
    assert len(set(listed)) == len(listed)
    assert all(re.fullmatch(r"[A-Z0-9_/]+(\.[A-Z0-9_]*;1)?", path) for path in listed)
    assert all(len(path.rpartition("/")[2].removesuffix(";1")) <= 31 for path in listed)


# Names, modes, bytes --------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["rr", "joliet"])
def test_every_file_reads_back(names):
    assert contents(build_iso(make_files(), "config-2", DATED), names) == make_files()


def test_metadata_is_for_all_and_the_rest_for_root():
    found = modes(build_iso(make_files(), "config", DATED))

    directories = {path: mode for path, mode in found.items() if path not in make_files()}
    assert directories == dict.fromkeys(
        [
            "cloudstack",
            "cloudstack/metadata",
            "cloudstack/password",
            "cloudstack/userdata",
            "openstack",
            "openstack/latest",
        ],
        "40555",
    )
    for path in make_files():
        assert found[path] == ("100444" if path.startswith("cloudstack/metadata/") else "100400")


def test_label_is_in_both_descriptors():
    iso = opened(build_iso({}, "config-2", DATED))

    assert iso.pvd.volume_identifier.rstrip() == b"config-2"
    assert iso.joliet_vd.volume_identifier.decode("utf-16-be").rstrip() == "config-2"


def test_user_data_is_on_the_disc_once():
    assert build_iso(make_files(), "config", DATED).count(b"user data canary") == 1


def test_user_data_names_with_different_bytes_keep_them():
    files = make_files() | {"openstack/latest/user_data": b"other"}

    assert contents(build_iso(files, "config", DATED), "rr") == files


def test_other_files_with_equal_bytes_are_not_linked():
    files = {"cloudstack/metadata/note.txt": b"the same bytes", "cloudstack/password/note.txt": b"the same bytes"}

    image = build_iso(files, "config", DATED)

    assert image.count(b"the same bytes") == 2
    assert modes(image)["cloudstack/password/note.txt"] == "100400"


def test_no_password_no_trace_of_one_on_the_disc():
    assert b"s3cretCanary0042" in build_iso(make_files(), "config", DATED)
    assert b"pass" not in build_iso(make_files(password=None), "config", DATED).lower()


def test_the_image_ends_on_a_block_and_stays_small():
    image = build_iso(make_files(), "config", DATED)

    assert len(image) % 2048 == 0
    assert len(image) < 200_000


def test_plain_names_that_collide_are_numbered():
    names = ["a.txt", "A.txt", "a-b.txt", "a_b.txt", "x" * 60 + "1", "x" * 60 + "2", "d-1/f", "d_1/f"]
    files = {name: name.encode() for name in names}

    for order in (files, dict(reversed(files.items()))):
        image = build_iso(order, "config", DATED)
        assert contents(image, "rr") == contents(image, "joliet") == files
        out = BytesIO()
        opened(image).get_file_from_iso_fp(out, iso_path="/A_B.TXT;1")
        assert out.getvalue() == b"a_b.txt"


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["config", "config-2", "CONFIG_2", "a", "sixteen-letters_"])
def test_good_labels(label):
    check_label(label)


@pytest.mark.parametrize("label", ["", "seventeen-letters", "config 2", "config-2 ", "config\n", "con\0fig", "cönfig"])
def test_labels_that_do_not_fit(label):
    with pytest.raises(InvalidLabel, match="1 to 16 characters"):
        check_label(label)


@pytest.mark.parametrize(
    "label",
    [
        *("cidata", "CIDATA", "CONTEXT", "CDROM", "CLOUDMD", "cloudmd", "METADATA", "metadata"),
        *("OVF", "ovf-env", "OVF-TRANSPORT", "rd_rdfe_stable1"),
    ],
)
def test_labels_of_other_cloud_init_data_sources(label):
    with pytest.raises(InvalidLabel, match="another cloud-init data source"):
        build_iso({}, label, DATED)


@pytest.mark.parametrize(
    "path",
    [
        *("", "/", "/etc/passwd", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.."),
        *("a\0", "a\nb", "a\n", "a\\b", "C:/a", "a;1", "a b", "ä", "\u202ea", "\ud800", "-rf", ".hidden", "n" * 65),
    ],
)
def test_paths_that_have_no_place(path):
    with pytest.raises(InvalidPath, match="from the root"):
        build_iso({path: b"x"}, "config", DATED)


@pytest.mark.parametrize("path", ["/".join("abcdefghi"), "/".join(["n" * 60] * 2)])
def test_paths_that_are_too_deep_or_too_long(path):
    with pytest.raises(InvalidPath, match="levels"):
        build_iso({path: b"x"}, "config", DATED)


def test_the_deepest_and_longest_paths():
    files = {"/".join("abcdefgh"): b"deep", "/".join(["n" * 60, "m" * 59]): b"long", "empty": b""}

    image = build_iso(files, "config", DATED)

    assert contents(image, "rr") == contents(image, "joliet") == files


def test_a_file_is_no_directory():
    with pytest.raises(InvalidPath, match="file and a directory"):
        build_iso({"a/b": b"x", "a": b"x"}, "config", DATED)


def test_a_drive_over_the_limit_says_so():
    with pytest.raises(DriveTooLarge, match="shorten the user data"):
        build_iso({"big": bytes(MAX_IMAGE_BYTES)}, "config", DATED)


WEIRD = st.text(st.sampled_from("ab/.-_\\\0\n:;* ~é\u202e"), max_size=12)
TAME = st.lists(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True), min_size=1, max_size=4).map("/".join)


@settings(deadline=None)
@example(files={"..": b""})
@given(files=st.dictionaries(WEIRD | TAME | st.text(max_size=70), st.binary(max_size=10), max_size=6))
def test_a_path_is_refused_or_reads_back_as_it_was(files):
    try:
        image = build_iso(files, "config", DATED)
    except InvalidPath:
        return
    assert not any(set(path.split("/")) & {"", ".", ".."} for path in files)
    assert contents(image, "rr") == contents(image, "joliet") == files


@settings(deadline=None)
@given(label=st.text(max_size=18) | st.from_regex(r"[A-Za-z0-9_-]{1,17}", fullmatch=True))
def test_a_label_is_refused_or_reads_back_as_it_was(label):
    try:
        image = build_iso({}, label, DATED)
    except InvalidLabel:
        return
    assert opened(image).joliet_vd.volume_identifier.decode("utf-16-be").rstrip() == label
