"""The stock admin under our stylesheet: the index, a list and a form of every kind."""

import pytest

from tests.browser.views import visit


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("index", ""),
        ("vms", "networks/virtualmachine/"),
        ("networks", "networks/network/"),
        ("network", "networks/network/1/change/"),
        ("new-network", "networks/network/add/"),
        ("endpoint", "networks/endpoint/1/change/"),
        ("users", "accounts/user/"),
        ("user", "accounts/user/1/change/"),
        ("events", "events/event/"),
        ("settings", "configuration/setting/"),
    ],
)
def test_an_admin_page_looks_right(signed_in, looks_right, name, path):
    page = signed_in("admin")
    visit(page, f"/admin/{path}")

    looks_right(page, f"admin-{name}")
