"""A request by a name that the server is not called by: wrong in itself, or not one of ALLOWED_HOSTS."""

import pytest
from django.test import Client

from extdhcp_site.api.hosts import NOT_ITS_NAME

pytestmark = pytest.mark.parametrize("host", ["1/0", "a b", "evil.example.com", "[::1", "localhost:x", "x" * 5000])


@pytest.fixture(params=[False, True], autouse=True, ids=["", "debug"])
def debug(request, settings):
    settings.DEBUG = request.param


def test_cloudstacks_clients_are_told_in_their_words(host):
    """`cs` takes anything but JSON for a wrong URL."""
    answer = Client().get("/client/api?command=listZones&response=json", headers={"host": host})
    assert (answer.status_code, answer["Content-Type"]) == (400, "application/json; charset=UTF-8")
    shown = {"uuidList": [], "errorcode": 400, "cserrorcode": 9999, "errortext": NOT_ITS_NAME}
    assert answer.json() == {"errorresponse": shown}


@pytest.mark.parametrize("path", ["/api/v1/vms", "/api/v1/leases", "/api/v1/nothing", "/api/schema/"])
def test_rest_says_it_as_any_problem(host, path):
    answer = Client().get(path, headers={"host": host})
    assert (answer.status_code, answer.json()) == (400, {"detail": NOT_ITS_NAME, "errorcode": 400})
    assert answer["Cache-Control"] == "no-store"


def test_a_browser_gets_a_page(host):
    answer = Client(raise_request_exception=False).get("/admin/login/", headers={"host": host})
    assert (answer.status_code, answer["Content-Type"]) == (400, "text/html; charset=utf-8")
