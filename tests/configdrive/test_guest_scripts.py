"""The scripts as they are handed out: whole, labelled, without errors; and their status, which a guest may forge."""

import json
import re
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
import tree_sitter_powershell
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from tree_sitter import Language, Node, Parser

from configdrive.guest_scripts import (
    BOOTHOOK,
    MAX_STATUS_BYTES,
    Act,
    GuestStatus,
    InvalidStatus,
    NoSuchScript,
    boothook,
    parse_status,
    render,
    scripts,
)
from extdhcp_site.configuration.models import Setting
from networks.volume_label import InvalidLabel
from tests.configdrive.drives import tool

SHELL_SCRIPTS = [name for name in scripts() if name.endswith(".sh")]
SETS_PASSWORD, READS, UNIT, POWERSHELL = (
    "cloud-set-vm-password.sh",
    "config-drive-read.sh",
    "extdhcp-config-drive.service",
    "cloud-set-vm-password.ps1",
)


def as_run(name: str) -> str:
    """cloud-init takes the boothook's first line away before it runs the rest."""
    return render(name, "config-2").removeprefix("#cloud-boothook\n")


# Handed out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", scripts())
def test_every_script_is_whole(name):
    text = render(name, "lab-7")

    assert not re.search(r"@\w+@|# include|boothook [{}]", text)
    assert text.isascii()  # Windows PowerShell takes a file without a mark for ANSI
    assert "\r" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize("name", [name for name in scripts() if name != UNIT])
def test_label_is_filled_in(name):
    assert "'lab-7'" in render(name, "lab-7")
    assert "lab-7" not in render(name, "config")


@pytest.mark.parametrize("label", ["", "a b", "x'; reboot; '", "cidata", "l" * 17, "config\n", "Grüße"])
@pytest.mark.parametrize("name", [READS, BOOTHOOK])
def test_label_that_no_drive_can_have_is_refused(name, label):
    with pytest.raises(InvalidLabel):
        render(name, label)


@pytest.mark.parametrize("name", ["drive.sh", "", "../guest_scripts.py", "config-drive-read"])
def test_other_names_are_no_scripts(name):
    with pytest.raises(NoSuchScript):
        render(name, "config")


def test_document_names_every_script_and_every_line_of_the_status():
    page = (Path(__file__).resolve().parents[2] / "docs/guest-scripts.md").read_text()

    for name in scripts():
        assert f"`{name}`" in page
    assert (
        parse_status(re.search(r"^```\n(version=.*?)```", page, re.MULTILINE | re.DOTALL)[1].encode()).password
        is Act.SET
    )
    for act in Act:
        assert f"`{act}`" in page


def test_boothook_is_what_cloud_init_takes_for_one():
    text = boothook("config")

    assert text.startswith("#cloud-boothook\n#!/bin/sh\n")
    assert len(text) < 8192
    assert "getopts" not in text
    assert "Usage" not in text


# Read by those who know the language ---------------------------------------------------------------


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
def test_shellcheck_finds_nothing(tmp_path, name):
    (tmp_path / name).write_text(as_run(name))

    tool(tmp_path, "shellcheck", "-s", "sh", name)


@pytest.mark.parametrize("name", SHELL_SCRIPTS)
@pytest.mark.parametrize("shell", [["dash"], ["busybox", "sh"]], ids=" ".join)
def test_shells_parse_them(tmp_path, name, shell):
    (tmp_path / name).write_text(as_run(name))

    tool(tmp_path, *shell, "-n", name)


def test_system_v_header_is_complete():
    text = render(SETS_PASSWORD, "config")

    header = re.search(r"^### BEGIN INIT INFO\n(.*?)^### END INIT INFO\n", text, re.MULTILINE | re.DOTALL)
    assert header
    for keyword in (
        "Provides",
        "Required-Start",
        "Required-Stop",
        "Default-Start",
        "Default-Stop",
        "Short-Description",
    ):
        assert re.search(rf"^# {keyword}:", header[1], re.MULTILINE), keyword
    assert re.search(r"^# chkconfig: [0-9]+ [0-9]{2} [0-9]{2}\n# description: \S", text, re.MULTILINE)


def test_systemd_takes_the_unit(tmp_path):
    # It wants the program to be there.
    (tmp_path / UNIT).write_text(
        render(UNIT, "config").replace("/usr/local/sbin/cloud-set-vm-password.sh", "/bin/true")
    )

    tool(tmp_path, "systemd-analyze", "verify", "--man=no", f"./{UNIT}")


def powershell_errors(text: str) -> list[str]:
    """Where the grammar finds something that is not PowerShell."""

    def below(node: Node) -> list[str]:
        here = [f"line {node.start_point.row + 1}: {node.type}"] if node.is_error or node.is_missing else []
        return here + [error for child in node.children for error in below(child)]

    return below(Parser(Language(tree_sitter_powershell.language())).parse(text.encode()).root_node)


def test_powershell_is_powershell():
    assert powershell_errors(render(POWERSHELL, "config-2")) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("function Find-Drive {", "function Find-Drive"),
        ("if ($Directory) {", "if ($Directory {"),
        ("foreach ($root in $roots) {", "foreach ($root of $roots) {"),
        ("'placeholder'", "'placeholder"),
    ],
)
def test_grammar_finds_an_error(right, wrong):
    text = render(POWERSHELL, "placeholder")
    assert right in text

    assert powershell_errors(text.replace(right, wrong, 1))


def test_powershell_hands_the_password_to_no_cmdlet():
    """Module logging writes cmdlets' arguments to the event log, and not those of methods."""
    text = render(POWERSHELL, "config")

    assert "ConvertTo-SecureString" not in text
    assert "Set-LocalUser" not in text
    assert "UNTRIED ON WINDOWS" in text


# Served and printed --------------------------------------------------------------------------------


def get(path: str, **query: str):
    return Client().get(path, query)


@pytest.fixture
def configured(db):
    Setting.objects.create(name="vm.configdrive.label", value="config-2")


@pytest.mark.usefixtures("configured")
class TestView:
    @pytest.mark.parametrize("name", scripts())
    def test_anybody_gets_a_script_as_plain_text(self, name):
        answer = get(f"/guest/{name}")

        assert answer.status_code == 200
        assert answer.content.decode() == render(name, "config-2")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]

    def test_label_of_the_address_overrides_the_setting(self):
        assert get(f"/guest/{READS}", label="lab-7").content.decode() == render(READS, "lab-7")

    @pytest.mark.parametrize("path", ["/guest/", f"/guest/{READS}"])
    @pytest.mark.parametrize("label", ["", "'; reboot", "cidata", "x" * 17])
    def test_bad_label_is_refused_with_what_to_do(self, path, label):
        answer = get(path, label=label)

        assert answer.status_code == 400
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert re.match(r"# Label .*: use 1 to 16 characters|# Label .*; use 'config'", answer.content.decode())

    @pytest.mark.parametrize("name", ["drive.sh", "..%2fguest_scripts.py", "none"])
    def test_what_is_no_script_is_not_found(self, name):
        assert get(f"/guest/{name}").status_code == 404

    def test_index_leads_to_each_script(self):
        page = get("/guest/").content.decode()

        for name, summary in scripts().items():
            assert f'href="/guest/{name}"' in page
            assert summary in page
        assert "config-2" in page

    def test_index_keeps_the_label_that_was_asked_for(self):
        assert f'href="/guest/{READS}?label=lab-7"' in get("/guest/", label="lab-7").content.decode()

    def test_only_reading(self):
        assert Client().post(f"/guest/{READS}").status_code == 405
        assert Client().head(f"/guest/{READS}").status_code == 200


def printed(*words: str) -> str:
    out = StringIO()
    call_command("guest_script", *words, stdout=out)
    return out.getvalue()


@pytest.mark.usefixtures("configured")
class TestCommand:
    def test_lists_them(self):
        assert [line.split()[0] for line in printed().splitlines()] == list(scripts())
        assert json.loads(printed("--json")) == [{"name": n, "summary": s} for n, s in scripts().items()]

    def test_prints_one_with_the_configured_label(self):
        assert printed(SETS_PASSWORD) == render(SETS_PASSWORD, "config-2")

    def test_label_overrides(self):
        shown = json.loads(printed(SETS_PASSWORD, "--label", "lab-7", "--json"))

        assert shown == {"name": SETS_PASSWORD, "label": "lab-7", "text": render(SETS_PASSWORD, "lab-7")}

    @pytest.mark.parametrize(
        ("words", "says"), [(["none"], "There are: config-drive-read.sh"), ([READS, "--label", ""], "use 1 to 16")]
    )
    def test_what_is_wrong_is_told(self, words, says):
        with pytest.raises(CommandError, match=says):
            printed(*words)


# Status ------------------------------------------------------------------------------------------

LINES = {
    "version": "1",
    "script": "script",
    "ran_at": "2026-01-31T23:59:59Z",
    "label": "config",
    "drive": "/dev/sr1",
    "instance_id": "i-2-21-VM",
    "user": "root",
    "password": "set",
    "keys": "absent",
    "user_data_bytes": "1024",
}


def status_file(**changes: str | None) -> bytes:
    return "".join(f"{key}={value}\n" for key, value in (LINES | changes).items() if value is not None).encode()


class TestStatus:
    def test_is_read(self):
        assert parse_status(status_file()) == GuestStatus(
            script="script",
            ran_at=datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC),
            label="config",
            drive="/dev/sr1",
            instance_id="i-2-21-VM",
            user="root",
            password=Act.SET,
            keys=Act.ABSENT,
            user_data_bytes=1024,
        )

    def test_of_a_run_that_found_no_drive(self):
        empty = dict.fromkeys(("drive", "instance_id", "user", "password", "keys", "user_data_bytes"), "")

        status = parse_status(status_file(**empty))

        assert (status.drive, status.instance_id, status.user, status.password, status.keys) == (None,) * 5
        assert status.user_data_bytes is None

    def test_of_windows(self):
        status = parse_status(status_file(script="windows", drive="D:\\", user="Администратор"))

        assert (status.drive, status.user) == ("D:\\", "Администратор")

    def test_lines_of_later_versions_are_passed_over(self):
        assert parse_status(status_file(later="x <script>")) == parse_status(status_file())

    @pytest.mark.parametrize(
        "changes",
        [
            *[{key: None} for key in LINES],
            {"version": "2"},
            {"script": "<script>"},
            {"ran_at": "2026-02-31T00:00:00Z"},
            {"ran_at": "2026-01-31T23:59:59+02:00"},
            {"ran_at": "٢٠٢٦-01-31T23:59:59Z"},
            {"label": ""},
            {"label": "config\x00"},
            {"drive": "/dev/sr1;reboot"},
            {"drive": "/" * 101},
            {"instance_id": "<b>"},
            {"user": "root\x1b[2J"},
            {"user": "u" * 65},
            {"password": "Secret123"},
            {"keys": "SET"},
            {"user_data_bytes": "-1"},
            {"user_data_bytes": "1" * 10},
            {"user_data_bytes": "\N{ARABIC-INDIC DIGIT ONE}"},
            {"label": "config\nlabel=config"},
            {"label": "config\nno key"},
            {"label": "config\n"},
            {"label": "config\r"},
            {"label": "config\n" + "\n".join(f"a{'b' * n}=" for n in range(29)) + "\nc=\n" * 3},
        ],
        ids=repr,
    )
    def test_what_no_script_writes_is_refused(self, changes):
        with pytest.raises(InvalidStatus):
            parse_status(status_file(**changes))

    @pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"version=1", b"x" * (MAX_STATUS_BYTES + 1)])
    def test_other_files_are_refused(self, content):
        with pytest.raises(InvalidStatus):
            parse_status(content)

    def test_too_long_is_refused_before_it_is_read(self):
        with pytest.raises(InvalidStatus, match="bytes"):
            parse_status(status_file(later="x" * MAX_STATUS_BYTES))

    @given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
    def test_nothing_else_is_raised_and_nothing_is_quoted(self, content):
        with pytest.raises(InvalidStatus) as error:
            parse_status(content)
        assert len(str(error.value)) < 100

    @given(st.sampled_from(sorted(LINES)), st.text(max_size=120))
    def test_any_value_is_read_or_refused(self, key, value):
        try:
            status = parse_status(status_file(**{key: value}).replace(b"\r", b""))
        except InvalidStatus:
            return
        texts = (status.label, status.drive, status.instance_id, status.user)
        assert all(re.fullmatch(r"[\w.@/\\: -]+", text) for text in texts if text is not None)

    def test_both_writers_write_every_line(self):
        for name, form in ((SETS_PASSWORD, r'echo "(\w+)='), (POWERSHELL, r"\$names = (.+)")):
            found = re.findall(form, render(name, "config"))
            assert (found if len(found) > 1 else re.findall(r"'(\w+)'", found[0])) == list(LINES)
