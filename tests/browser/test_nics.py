"""NICs: why one has no address, and that it appears on the open page once somebody asks for it."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.views import visit

ADDRESS = re.compile(r"192\.168\.\d+\.\d+")
EARLY = "externaldhcp.vmip.early.retry"
# Two processes, the watcher's and a worker's, and a browser on two cores.
FOUND_WITHIN_MS = 30_000


@pytest.fixture
def waiting(site) -> Iterator[str]:
    """The id of a NIC of maria's whose next try is minutes away."""
    admin, maria = site.clients["admin"], site.clients["maria"]
    admin("updateConfiguration", name=EARLY, value="false")
    network = next(it for it in maria("listNetworks")["network"] if it["name"] == "corporate-100")
    deployed = maria(
        "deployVirtualMachine",
        name="waits",
        zoneid=network["zoneid"],
        templateid=maria("listTemplates", templatefilter="executable")["template"][0]["id"],
        serviceofferingid=next(
            it["id"] for it in maria("listServiceOfferings")["serviceoffering"] if it["name"] == "Small Instance"
        ),
        networkids=network["id"],
    )
    try:
        (nic,) = maria.wait_for(deployed["jobid"])["virtualmachine"]["nic"]
        yield nic["id"]
    finally:
        admin("resetConfiguration", name=EARLY)
        maria.wait_for(maria("destroyVirtualMachine", id=deployed["id"])["jobid"])
        admin.wait_for(admin("expungeVirtualMachine", id=deployed["id"])["jobid"])


def without_reload(page: Page) -> None:
    """From now on `is_the_same` tells whether the page was loaded anew."""
    page.evaluate("window.loadedBefore = true")


def is_the_same(page: Page) -> bool:
    return page.evaluate("window.loadedBefore === true")


def test_a_try_now_brings_the_address_to_the_open_page(signed_in, looks_right, waiting):
    page = signed_in("maria")
    visit(page, f"/nics/{waiting}/")
    expect(page.locator("#nic")).to_contain_text("Not tried yet.")
    expect(page.locator("#nic time.countdown").first).to_have_text(re.compile(r"in \d min"))
    expect(page.locator("#checks")).to_contain_text("Asked at")
    looks_right(page, "nic-waiting")

    page.get_by_role("button", name="Try now").click()
    expect(page.get_by_text("Try now: done.")).to_be_visible()
    without_reload(page)

    expect(page.locator("#nic .big code")).to_have_text(ADDRESS, timeout=FOUND_WITHIN_MS)
    expect(page.locator(".timeline")).to_contain_text("got fetched successfully")
    assert is_the_same(page)
    looks_right(page, "nic-found")


def test_the_countdown_runs(signed_in, waiting):
    page = signed_in("maria")
    visit(page, f"/nics/{waiting}/")
    countdown = page.locator("#nic .big time.countdown")
    before = countdown.text_content()

    expect(countdown).not_to_have_text(before or "")


def test_a_pause_and_its_end(signed_in, waiting):
    page = signed_in("maria")
    visit(page, f"/nics/{waiting}/")

    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#nic .chip.paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()

    expect(page.locator("#nic .big code")).to_have_text(ADDRESS, timeout=FOUND_WITHIN_MS)


def test_the_list_opens_on_those_not_found_and_is_live(signed_in, looks_right, site, waiting):
    page = signed_in("maria")
    visit(page, "/nics/")
    row = page.locator(f"#row-{waiting}")
    expect(row).to_contain_text("Not tried yet.")
    looks_right(page, "nics")
    without_reload(page)

    site.clients["maria"]("fetchNicAddress", nicid=waiting)

    expect(row).to_contain_text(ADDRESS, timeout=FOUND_WITHIN_MS)
    assert is_the_same(page)


def test_an_address_is_copied(signed_in, waiting):
    page = signed_in("maria")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit(page, f"/nics/{waiting}/")
    mac = page.locator("#nic dd code").first.text_content()

    page.get_by_role("button", name=f"Copy {mac}").click()

    expect(page.locator("[data-done=copied]")).to_have_count(1)
    assert page.evaluate("navigator.clipboard.readText()") == mac
