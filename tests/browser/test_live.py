"""A page that is open shows what happens, says whether it is live, and costs nothing while nobody looks at it."""

import secrets

import pytest
from playwright.sync_api import Page, expect

from tests.browser.views import BORN_HIDDEN, visit

# The server looks twice a second, and a busy page is fetched every two seconds; the rest is for a machine that is busy.
SOON_MS = 15_000
RESTARTED_MS = 60_000
TABS = 9
STREAM = "/api/v1/events/stream"
SET_HIDDEN = """is_hidden => {
    Object.defineProperty(document, "hidden", {get: () => is_hidden, configurable: true});
    document.dispatchEvent(new Event("visibilitychange"));
}"""
# What a browser and htmx write when a server is not there.
SERVER_AWAY = "ERR_|Failed to fetch|network error|status of 50[234]"


@pytest.fixture
def happen(site):
    """Lets something of maria's happen; what her page will say of it."""

    def happen() -> str:
        name = f"key-{secrets.token_hex(4)}"
        key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + "I" + "A" * 42 + "A"
        site.clients["maria"]("registerSSHKeyPair", name=name, publickey=key)
        return name

    return happen


def state_of(page: Page):
    return page.locator("#live")


def test_what_happens_appears_on_an_open_page(signed_in, happen):
    page = signed_in("maria")
    visit(page, "/")
    expect(state_of(page)).to_have_text("Live", timeout=SOON_MS)

    name = happen()

    expect(page.locator("main")).to_contain_text(name, timeout=SOON_MS)


def test_of_nine_tabs_the_one_that_is_looked_at_is_live_and_the_others_hold_no_stream(signed_in, happen):
    looked_at = signed_in("maria")
    hidden = [looked_at.context.new_page() for _ in range(TABS - 1)]
    streams = []
    for tab in hidden:
        tab.on("request", lambda request: streams.append(request.url) if STREAM in request.url else None)
        tab.add_init_script(BORN_HIDDEN)
        visit(tab, "/")
    visit(looked_at, "/")
    expect(state_of(looked_at)).to_have_text("Live", timeout=SOON_MS)

    name = happen()

    expect(looked_at.locator("main")).to_contain_text(name, timeout=SOON_MS)
    assert streams == []


def test_a_tab_that_is_hidden_ends_its_stream_and_catches_up_when_it_is_shown(signed_in, happen):
    page = signed_in("maria")
    visit(page, "/")
    expect(state_of(page)).to_have_text("Live", timeout=SOON_MS)

    with page.expect_event("requestfailed", lambda request: STREAM in request.url, timeout=SOON_MS):
        page.evaluate(SET_HIDDEN, True)
    name = happen()
    page.evaluate(SET_HIDDEN, False)

    expect(page.locator("main")).to_contain_text(name, timeout=SOON_MS)
    expect(state_of(page)).to_have_text("Live", timeout=SOON_MS)


def test_a_page_says_that_the_server_is_away_and_comes_back_with_it(signed_in, site, happen, complaints):
    complaints.expect(SERVER_AWAY)
    page = signed_in("maria")
    visit(page, "/")
    expect(state_of(page)).to_have_text("Live", timeout=SOON_MS)

    site.server.stop()
    try:
        expect(state_of(page)).to_have_text("Reconnecting…", timeout=SOON_MS)
    finally:
        site.server.start()

    expect(state_of(page)).to_have_text("Live", timeout=RESTARTED_MS)
    name = happen()
    expect(page.locator("main")).to_contain_text(name, timeout=SOON_MS)


def test_a_page_whose_session_has_ended_leads_to_the_log_in(signed_in, complaints):
    complaints.expect("status of 40[13]")
    page = signed_in("olga")
    visit(page, "/")
    expect(state_of(page)).to_have_text("Live", timeout=SOON_MS)

    page.context.clear_cookies()

    page.wait_for_url("**/login/**", timeout=2 * SOON_MS)
