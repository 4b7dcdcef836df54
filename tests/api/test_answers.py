"""One value, two spellings: JSON and XML; and what an error looks like."""

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework import serializers

from extdhcp_site.api import registry
from extdhcp_site.api.answers import Answer, Constant, IdField, Moment, Success, description_header, to_json, to_xml
from tests.factories import make_caller


class Place(Answer):
    id = IdField("The place.")
    name = serializers.CharField(help_text="Its name.")
    hostid = IdField("Its host.", source="host.uuid")
    seen = Moment(source="seen_at", help_text="When it was seen.")
    tags = Constant([], "Always empty.")
    secret = serializers.CharField(help_text="For root admins.")
    for_root = ("secret",)


def place(**fields):
    blank = {"uuid": UUID(int=10), "name": "n", "host": None, "seen_at": None, "secret": "s"}
    return SimpleNamespace(**{**blank, **fields})


@pytest.mark.django_db
def test_nothing_is_left_out_and_empty_lists_stay():
    """cmk crashes on a null, libcloud's guards let it pass; Ansible handles tags only where the key exists."""
    shown = Place(place(), context={"caller": make_caller()}).data
    assert shown == {"id": "00000000-0000-0000-0000-00000000000a", "name": "n", "tags": []}


@pytest.mark.django_db
def test_dates_have_one_layout():
    """Terraform parses this layout and no other."""
    shown = Place(place(seen_at=datetime(2025, 1, 31, 10, 11, 12, 999, tzinfo=UTC)), context={"caller": make_caller()})
    assert shown.data["seen"] == "2025-01-31T10:11:12+0000"


@pytest.mark.django_db
def test_what_is_for_root_admins_is_shown_to_them_only(root, domain_admin):
    assert "secret" in Place(place(), context={"caller": root.caller}).data
    assert "secret" not in Place(place(), context={"caller": domain_admin.caller}).data


def test_success_is_a_json_true():
    """The Go SDK takes no string for the success of a job."""
    assert Success().to_representation(None) == {"success": True}
    assert Success().to_representation("Gone.") == {"success": True, "displaytext": "Gone."}


def test_xml_repeats_an_element_for_each_of_a_list():
    xml = to_xml("xresponse", {"count": 2, "zone": [{"name": "a", "ok": True}, {"name": "<b>"}], "tags": []})
    root = ElementTree.fromstring(xml)
    assert [zone.findtext("name") for zone in root.findall("zone")] == ["a", "<b>"]
    assert root.findtext("zone/ok") == "true"
    assert root.find("tags") is None
    assert xml.startswith(b"<?xml version='1.0' encoding='UTF-8'?>")


def test_xml_leaves_out_what_xml_cannot_hold():
    root = ElementTree.fromstring(to_xml("xresponse", {"name": "a\x00\x08\x1b\ufffe\ud800b"}))
    assert root.findtext("name") == "ab"


def test_a_users_key_is_no_tag():
    xml = to_xml("xresponse", {"details": {"ok": "1", "a><b/><c": "2"}})
    assert [(e.tag, e.attrib, e.text) for e in ElementTree.fromstring(xml).find("details")] == [
        ("ok", {}, "1"),
        ("entry", {"key": "a><b/><c"}, "2"),
    ]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner.filter(lambda v: not isinstance(v, list))) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(min_size=1), values))
def test_whatever_is_answered_can_be_parsed(body):
    assert json.loads(to_json("xresponse", body)) == {"xresponse": body}
    ElementTree.fromstring(to_xml("xresponse", body))


@given(st.text())
def test_a_header_has_one_short_line(text):
    header = description_header(text)
    assert header.isascii()
    assert not header or header.isprintable()
    assert len(header) <= 512


@pytest.mark.parametrize("found", registry.commands(), ids=lambda found: found.name)
def test_every_field_and_parameter_is_documented(found):
    def undocumented(answer: type[Answer]) -> list[str]:
        missing = [name for name, field in answer._declared_fields.items() if not field.help_text]
        for field in answer._declared_fields.values():
            inner = getattr(field, "child", field)
            if isinstance(inner, Answer):
                missing += undocumented(type(inner))
        return missing

    assert undocumented(found.answer_class()) == []
    assert [name for name, field in found.params.declared().items() if not field.help_text] == []
    assert found.description()
