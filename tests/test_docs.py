"""What the documents name exists, and what they copy is still the same."""

import re
from pathlib import Path

import pytest
from django.core.management import get_commands

from extdhcp_site.api import registry
from extdhcp_site.configuration.models import definitions
from extdhcp_site.errors import NotInThisProduct
from extdhcp_site.events.models import EventType
from ipfetch.models import NEXT_STEP, Outcome
from networks.models.offerings import Provider, Service

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
EXTERNAL_DHCP, TEMPLATES, ARCHITECTURE, LEFT_OUT = (
    ROOT / "docs" / f"{name}.md" for name in ("external-dhcp", "templates", "architecture", "left-out")
)
PAGES = (
    README,
    ROOT / "docs" / "alerts.md",
    EXTERNAL_DHCP,
    TEMPLATES,
    ROOT / "docs" / "hypervisors.md",
    ROOT / "docs" / "leases.md",
    ROOT / "docs" / "guest-disks.md",
    ROOT / "docs" / "guest-scripts.md",
    ROOT / "docs" / "config-drive.md",
    ROOT / "docs" / "keys.md",
    ROOT / "docs" / "api.md",
    ROOT / "docs" / "api-reference.md",
    ARCHITECTURE,
    LEFT_OUT,
)
# Outcomes that no driver reports yet, and one that needs no advice.
NOT_SEEN = {Outcome.FOUND, Outcome.AMBIGUOUS}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def words_of(text: str) -> str:
    """Without line breaks and marks, so that a wrapped or emphasised sentence is found."""
    return re.sub(r"\s+", " ", re.sub(r"[`*]", "", text))


def test_readme_is_short():
    assert len(README.read_text().splitlines()) <= 120


def test_the_dhcp_example_is_the_labs_own():
    shown = re.search(r"```conf\n(.*?)```", EXTERNAL_DHCP.read_text(), re.DOTALL)
    assert shown
    assert shown[1] == (ROOT / "tests/lab/dnsmasq.conf").read_text()


@every_page
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@every_page
def test_named_files_exist(page: Path):
    for name in re.findall(r"\b(?:networks|ipfetch|configdrive|extdhcp_site|tests)/[\w./-]+", page.read_text()):
        assert (ROOT / name).exists(), name


@every_page
def test_make_targets_exist(page: Path):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # In code only: "to make sure" is no target.
    named = re.findall(r"(?:`|^    )(?:\w+=\w+ )*make ([a-z-]+)", page.read_text(), re.MULTILINE)
    assert set(named) <= set(targets)


@every_page
def test_management_commands_exist(page: Path):
    assert set(re.findall(r"manage\.py (\w+)", page.read_text())) <= set(get_commands())


@pytest.mark.parametrize("page", PAGES[:-1], ids=lambda page: page.name)
def test_api_commands_exist(page: Path):
    known = {command.name for command in registry.commands()}
    verbs = "list|create|update|delete|deploy|start|stop|reboot|migrate|destroy|register|restart|query"
    assert set(re.findall(rf"\b(?:{verbs})[A-Z][A-Za-z]+", page.read_text())) <= known


@every_page
def test_settings_exist(page: Path):
    known = {definition.name for definition in definitions()}
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    named = re.findall(r"\b(?:externaldhcp|vm|expunge|default|job)(?:\.[A-Za-z]+)+", prose)
    assert set(named) <= known


def test_every_setting_of_the_fetch_loop_is_told_with_its_default():
    rows = dict(re.findall(r"^\| `(externaldhcp\.[\w.]+)` \| `(\w+)` \|", EXTERNAL_DHCP.read_text(), re.MULTILINE))
    assert rows == {d.name: d.default for d in definitions() if d.name.startswith("externaldhcp.")}


@every_page
def test_event_types_exist(page: Path):
    assert set(re.findall(r"\b[A-Z]+(?:\.[A-Z]+){2,}\b", page.read_text())) <= set(EventType.values)


def test_environment_variables_exist():
    code = "".join((ROOT / "extdhcp_site" / name).read_text() for name in ("environment.py", "settings.py"))
    named = re.findall(r"^\| `([A-Z_]+)` \|", README.read_text(), re.MULTILINE)
    assert len(named) > 3
    assert all(f'"{name}"' in code for name in named)


@pytest.mark.parametrize("outcome", sorted(set(Outcome) - NOT_SEEN))
def test_each_outcome_is_in_the_troubleshooting_list(outcome: Outcome):
    text = words_of(EXTERNAL_DHCP.read_text())
    assert f"| {outcome.label} |" in text
    # The pages address administrators, who can do these two things themselves.
    if outcome not in (Outcome.HOST_UNREACHABLE, Outcome.NOT_RUNNING):
        assert NEXT_STEP[outcome].rstrip(".") in text


def test_what_is_refused_stands_where_the_error_points_to():
    page = LEFT_OUT.read_text()
    heading = re.search("'(.+)'", NotInThisProduct("It is").text)
    assert heading
    assert page.startswith(f"# {heading[1]}\n")
    sources = [
        path for room in ("extdhcp_site", "networks", "configdrive", "ipfetch") for path in (ROOT / room).rglob("*.py")
    ]
    refused = {
        what
        for path in sources
        for what in re.findall(r'NotInThisProduct\("(?:The provider )?(.+?) (?:are|is)"\)', path.read_text())
    }
    assert {"Isolated networks", Provider.VIRTUAL_ROUTER} <= refused
    assert not [what for what in refused if what not in page]
    assert all(service in page for service in Service.values)


@every_page
def test_nothing_here_is_somebodys_own_machine(page: Path):
    assert not re.search(r"/work/|\.\./shared|/home/|/root/|/tmp/", page.read_text())
