"""The reference page of the API, and that nothing on it lacks a word of explanation."""

import re
from collections.abc import Iterator

import pytest

from extdhcp_site.api import registry
from extdhcp_site.api.api import described
from extdhcp_site.api.reference import reference
from tests.server import ROOT

each_command = pytest.mark.parametrize("found", registry.commands(), ids=lambda found: found.name)


def undocumented(fields: list[dict], within: str) -> Iterator[str]:
    for field in fields:
        if not (field["description"].strip() and field["type"]):
            yield f"{within}.{field['name']}"
        yield from undocumented(field.get("response", []), f"{within}.{field['name']}")


def test_the_page_is_what_the_commands_declare():
    page = (ROOT / "docs" / "api-reference.md").read_text()
    assert page == reference(), "Make it anew: manage.py api_reference > docs/api-reference.md"


@each_command
def test_every_parameter_and_field_is_documented(found):
    shown = described(found)
    assert not list(undocumented([*shown["params"], *shown["response"]], found.name))
    assert shown["description"].endswith(".")
    assert re.fullmatch(r"\d+\.\d+", shown["since"])


def test_links_within_the_page_lead_to_its_headings():
    """Each command and each kind of object has a heading, and a link that leads there."""
    page = reference()
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) == headings
