"""What every list of the console does: narrows, orders, pages, exports, and is refreshed row by row."""

import csv
import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from extdhcp_site.accounts.models import Caller
from extdhcp_site.console import lists
from extdhcp_site.console.lists import Column, Filter, ListOf
from networks.models import Zone
from tests import factories
from tests.console.worlds import make_root

pytestmark = pytest.mark.django_db

ZONES = ListOf(
    "zones",
    "Zones",
    rows=lambda caller: Zone.objects.order_by("name", "pk"),
    columns=[Column("Name", lambda zone: zone.name, sort="name"), Column("DNS", lambda zone: zone.dns1 or "none")],
    filters=[
        Filter("name", "Name", lambda zones, name, caller: zones.filter(name__contains=name)),
        Filter("kind", "Kind", lambda zones, kind, caller: zones.filter(name__startswith=kind), [("z", "Z")]),
    ],
    nothing="There is no zone.",
)


@pytest.fixture
def ask(rf):
    """The list's answer to a query string."""
    user = make_root()

    def ask(query=""):
        request = rf.get(f"/zones/?{query}")
        request.user, request.section = user, "zones"
        return ZONES.respond(request, Caller.of(user))

    return ask


def names(response) -> list[str]:
    return [row["Name"] for row in csv.DictReader(text_of(response).splitlines())]


def text_of(response) -> str:
    return b"".join(response.streaming_content).decode()


def make_zones(*names):
    return [factories.make_zone(name=name) for name in names]


def test_it_shows_all_in_order(ask):
    make_zones("b", "a")

    page = ask().text

    assert page.index(">a<") < page.index(">b<")


def test_nothing_is_said_in_words(ask):
    assert "There is no zone." in ask().text


def test_a_filter_narrows(ask):
    make_zones("one", "two")

    assert names(ask("name=on&export=csv")) == ["one"]


def test_a_misspelt_filter_is_refused(ask):
    response = ask("nmae=one")

    assert response.status_code == 400
    assert "no filter nmae" in response.text


@pytest.mark.parametrize("query", ["kind=q", "name=%00", "sort=dns1", "sort=pk"])
def test_what_a_filter_does_not_take_is_refused(ask, query):
    assert ask(query).status_code == 400


def test_a_heading_orders_and_then_the_other_way(ask):
    make_zones("a", "b")

    assert names(ask("sort=-name&export=csv")) == ["b", "a"]
    assert 'href="/zones/?sort=-name"' in ask("sort=name").text


def test_pages_lead_on_and_back(ask, monkeypatch):
    monkeypatch.setattr(lists, "PER_PAGE", 2)
    make_zones("a", "b", "c", "d", "e")

    middle = ask("page=2").text

    assert ">c<" in middle
    assert ">b<" not in middle
    assert 'rel="next" href="/zones/?page=3"' in middle
    assert 'rel="prev" href="/zones/"' in middle
    assert 'rel="next"' not in ask("page=3").text


@pytest.mark.parametrize("page", ["0", "-1", "x", "99999999999"])
def test_a_page_that_is_none_is_the_first(ask, page):
    make_zones("a")

    assert ">a<" in ask(f"page={page}").text


def test_many_are_not_counted_to_the_end(ask, monkeypatch):
    monkeypatch.setattr(lists, "PER_PAGE", 1)
    monkeypatch.setattr(lists, "COUNTED", 2)
    make_zones("a", "b", "c", "d")

    assert "2+" in ask().text


def test_an_export_has_every_page(ask, monkeypatch):
    monkeypatch.setattr(lists, "PER_PAGE", 1)
    make_zones("a", "b", "c")

    assert names(ask("export=csv&page=2")) == ["a", "b", "c"]
    assert [row["Name"] for row in json.loads(text_of(ask("export=json")))] == ["a", "b", "c"]


def test_an_export_of_nothing_is_one_too(ask):
    assert json.loads(text_of(ask("export=json"))) == []
    assert text_of(ask("export=csv")) == "Name,DNS\r\n"


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx"])
def test_no_spreadsheet_takes_a_cell_for_a_formula(ask, name):
    make_zones(name)

    assert names(ask("export=csv")) == [f"'{name}"]


def test_queries_do_not_grow_with_rows(ask):
    make_zones("a")
    with CaptureQueriesContext(connection) as few:
        ask()
    make_zones("b", "c", "d")
    with CaptureQueriesContext(connection) as many:
        ask()

    assert len(many) == len(few)


# Refreshed


def fragment_of(response) -> str:
    page = response.text
    return page.split('hx-get="')[1].split('"')[0].replace("&amp;", "&").removeprefix("/zones/?")


def test_a_refresh_shows_the_same_rows_as_they_are_now(ask):
    make_zones("a", "b")
    again = fragment_of(ask())
    Zone.objects.filter(name="a").update(dns1="192.0.2.53")
    make_zones("0")

    rows = ask(again).text

    assert "192.0.2.53" in rows
    assert ">0<" not in rows
    assert "1 new: show" in rows


def test_a_row_that_is_gone_leaves_the_page(ask):
    make_zones("a", "b")
    again = fragment_of(ask())
    Zone.objects.filter(name="a").delete()

    assert ">a<" not in ask(again).text


def test_a_refresh_tells_how_to_ask_once_more(ask):
    make_zones("a")
    again = fragment_of(ask("name=a"))

    assert parse_qs(urlsplit(fragment_of(ask(again))).path) == parse_qs(again)


@pytest.mark.parametrize("shown", ["x", "", "1,2", "00000000-0000-0000-0000-000000000000"])
def test_a_refresh_of_what_was_never_there_shows_nothing(ask, shown):
    make_zones("a")

    assert ">a<" not in ask(f"fragment=rows&shown={shown}").text


def test_a_filter_may_hold_while_nothing_is_said(rf):
    make_zones("a", "b")
    kinds = [("a", "A"), ("b", "B")]
    by_kind = Filter("kind", "Kind", lambda zones, kind, caller: zones.filter(name=kind), kinds, default="a")
    zones = replace(ZONES, filters=[by_kind])

    def ask(query=""):
        request = rf.get(f"/zones/?{query}")
        request.user = make_root()
        return zones.respond(request, Caller.of(request.user))

    assert names(ask("export=csv")) == ["a"]
    assert names(ask("export=csv&kind=b")) == ["b"]
    assert '<option value="">' not in ask().text
    assert "Show all" not in ask().text


def test_the_first_row_of_an_empty_list_comes_by_itself(ask):
    again = fragment_of(ask())
    make_zones("a")

    assert "1 new: show" in ask(again).text
