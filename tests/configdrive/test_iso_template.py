"""An image that is filled in is the one that pycdlib makes, and holds nothing of the one before."""

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from configdrive import iso
from configdrive.content import USER_DATA_FILES
from configdrive.iso import InvalidPath, Shape, Templates, build_iso, plain_image
from configdrive.iso_image import BLOCK, Template, UnknownLayout, blocks
from tests.configdrive.drives import DATED, FACTS, MOST_USER_DATA, contents, make_files

ROOT = Path(__file__).parents[2]


@contextmanager
def clock_standing_at(moment: datetime) -> Iterator[None]:
    """pycdlib has no other way to be told a date."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        patch.setattr(time, "time", moment.timestamp)
        yield
    time.tzset()


def made_by_pycdlib(files: dict[str, bytes], label: str, dated: datetime) -> bytes:
    with clock_standing_at(dated):
        return plain_image(files, Shape.of(files, label))


def of_another_vm(files: dict[str, bytes]) -> dict[str, bytes]:
    """A drive of the same shape whose files fill their blocks with what must not be seen again."""
    return {path: b"\xee" * (blocks(len(content)) * BLOCK) for path, content in files.items()}


SIZES = st.sampled_from([0, 1, 16, 2047, 2048, 2049, 4096, 33_000])
CONTENTS = st.binary(max_size=40) | st.builds(lambda size, byte: byte * size, SIZES, st.sampled_from([b"a", b"\0"]))
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True)
LONG_NAMES = st.from_regex(r"[a-c_][a-c_.-]{50,63}", fullmatch=True)
PATHS = st.sampled_from([*make_files(), *USER_DATA_FILES]) | st.lists(NAMES, min_size=1, max_size=8).map("/".join)
DRIVES = st.dictionaries(PATHS | LONG_NAMES, CONTENTS, max_size=12)
DATES = st.datetimes(datetime(1970, 1, 2), datetime(2155, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
)
LABELS = st.from_regex(r"config[A-Za-z0-9_-]{0,10}", fullmatch=True)


# Filled and plain -----------------------------------------------------------------------------


@settings(deadline=None)
@example(files={}, label="config", dated=DATED)
@example(files=make_files(), label="config-2", dated=DATED)
@example(files=dict.fromkeys(USER_DATA_FILES, b""), label="config", dated=DATED)
@example(files=dict(zip(USER_DATA_FILES, (b"one", b"two", b"one"), strict=True)), label="config", dated=DATED)
@given(files=DRIVES, label=LABELS, dated=DATES)
def test_a_filled_image_is_to_the_byte_what_pycdlib_makes(files, label, dated):
    try:
        plain = made_by_pycdlib(files, label, dated)
    except InvalidPath:
        assume(False)
    build_iso(of_another_vm(files), label, dated)

    assert build_iso(files, label, dated) == plain


@settings(deadline=None)
@example(facts={"user_data": b""})
@example(facts={"user_data": b"#" * MOST_USER_DATA})
@given(facts=FACTS)
def test_any_vms_drive_is_what_pycdlib_makes_and_reads_back(facts):
    files = make_files(**facts)

    image = build_iso(files, "config-2", DATED)

    assert image == made_by_pycdlib(files, "config-2", DATED)
    assert contents(image, "rr") == contents(image, "joliet") == files


# Equal input, equal bytes ---------------------------------------------------------------------


def test_files_named_in_another_order_are_the_same_drive():
    files = make_files()

    assert build_iso(dict(reversed(files.items())), "config", DATED) == build_iso(files, "config", DATED)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_neither_process_nor_clock_nor_time_zone_gets_into_the_image(zone):
    program = """if True:
        import hashlib
        from configdrive.iso import build_iso
        from tests.configdrive.drives import DATED, make_files
        print(hashlib.sha256(build_iso(make_files(), "config", DATED)).hexdigest())
    """

    # Another process has another order of sets, and another second on its clock.
    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"TZ": zone}, check=True, capture_output=True
    )

    assert answer.stdout.decode().strip() == hashlib.sha256(build_iso(make_files(), "config", DATED)).hexdigest()


def test_the_date_is_a_moment_in_whole_seconds():
    in_india = DATED.astimezone(timezone(timedelta(hours=5, minutes=30))) + timedelta(microseconds=999_999)

    assert build_iso(make_files(), "config", in_india) == build_iso(make_files(), "config", DATED)
    assert build_iso(make_files(), "config", DATED + timedelta(seconds=1)) != build_iso(make_files(), "config", DATED)


def test_a_naive_date_would_depend_on_the_time_zone():
    with pytest.raises(ValueError, match="aware"):
        build_iso(make_files(), "config", datetime(2031, 2, 3))


@pytest.mark.parametrize("names", ["-R", "-J", "-l"])
def test_isoinfo_sees_the_date_on_every_name(run, tmp_path, names):
    (tmp_path / "drive.iso").write_bytes(build_iso(make_files(), "config", DATED))

    listing = run("isoinfo", "-l", names, "-i", "drive.iso").splitlines()

    lines = [line for line in listing if re.match(r"[d-][-r]", line)]
    assert len(lines) > len(make_files())
    assert all("Feb  3 2031" in line for line in lines)


def test_blkid_and_xorriso_see_the_date_on_the_volume_and_no_end_of_it(run, tmp_path):
    (tmp_path / "drive.iso").write_bytes(build_iso(make_files(), "config", DATED))

    assert run("blkid", "-p", "-o", "value", "-s", "UUID", "drive.iso") == "2031-02-03-04-05-06-00\n"
    dates = re.findall(r"Time *: (\d+)", run("xorriso", "-indev", "drive.iso", "-pvd_info"))
    assert dates == ["2031020304050600", "2031020304050600", "0" * 16, "2031020304050600"]


# Secrets --------------------------------------------------------------------------------------


def test_no_image_holds_a_byte_of_the_ones_before():
    lengths = [1, 400, 30, 2, 120, 1, 90]
    for vm, length in enumerate(lengths * 3):
        files = make_files(password=f"canary{vm:04}" * length, user_data=f"canary{vm:04}".encode() * (length * 3))

        image = build_iso(files, "config", DATED)

        assert set(re.findall(rb"canary(\d{4})", image)) == {b"%04d" % vm}
        # The rest of every file's last block, too.
        assert image == made_by_pycdlib(files, "config", DATED)


def test_a_template_holds_nothing_of_the_files_that_it_was_made_of():
    files = of_another_vm(make_files())

    template = Template(plain_image(files, Shape.of(files, "config")))

    assert b"\xee" * 8 not in template.fill(dict.fromkeys(files, b""), DATED)


# The cache ------------------------------------------------------------------------------------


def test_a_shape_seen_before_costs_no_second_run_of_pycdlib(monkeypatch):
    build_iso(make_files(hostname="one", password="short"), "config", DATED)
    monkeypatch.delattr(iso, "PyCdlib")

    build_iso(make_files(hostname="another", password="a-longer-one"), "config", DATED)
    with pytest.raises(NameError):
        build_iso(make_files(), "not-seen-before", DATED)


def make_shape(number: int) -> tuple[Shape, Template]:
    files = {f"file{number}": b"x"}
    shape = Shape.of(files, "config")
    return shape, Template(plain_image(files, shape))


def test_the_cache_holds_a_bounded_number_and_forgets_the_longest_unused():
    templates = Templates(most=2, most_bytes=10**9)
    (first, kept), (second, gone), (third, new) = map(make_shape, range(3))

    templates.keep(first, kept)
    templates.keep(second, gone)
    templates.get(first)
    templates.keep(third, new)

    assert [templates.get(shape) for shape in (first, second, third)] == [kept, None, new]


def test_the_cache_holds_a_bounded_number_of_bytes():
    made = [make_shape(number) for number in range(4)]
    room = made[1][1].size + made[2][1].size
    templates = Templates(most=100, most_bytes=room)

    for shape, template in made[:3]:
        templates.keep(shape, template)
        templates.keep(shape, template)  # as a second thread would
    assert [templates.get(shape) is not None for shape, _ in made] == [False, True, True, False]

    Templates(most=100, most_bytes=room).keep(*made[3])
    small = Templates(most=100, most_bytes=made[3][1].size - 1)
    small.keep(*made[3])
    assert small.get(made[3][0]) is None


def test_a_template_takes_no_more_memory_with_the_largest_user_data():
    small, large = (
        Template(plain_image(files, Shape.of(files, "config")))
        for files in (make_files(user_data=b"x"), make_files(user_data=b"x" * MOST_USER_DATA))
    )

    assert small.size == large.size < 150_000


@pytest.fixture
def restless_threads():
    """Threads that take turns after about every line."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless_threads")
def test_threads_get_each_their_own_drive():
    drives = [make_files(password="x" * number, user_data=b"%d" % number * 3000) for number in range(1, 9)]
    expected = [made_by_pycdlib(files, "threads", DATED) for files in drives]

    with ThreadPoolExecutor(8) as pool:
        built = list(pool.map(lambda files: build_iso(files, "threads", DATED), drives * 25))

    assert built == expected * 25


# Images of others -----------------------------------------------------------------------------


def test_an_image_that_is_laid_out_otherwise_makes_no_template(run, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/one").write_bytes(b"1")
    run("genisoimage", "-quiet", "-J", "-r", "-o", "other.iso", "tree")

    with pytest.raises(UnknownLayout):  # it is padded at the end
        Template((tmp_path / "other.iso").read_bytes())
