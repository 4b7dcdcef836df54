"""A browser as a person has it, on the real server with a worker and libvirt's test driver.

Tests that ask for any of this run in the second part of `make test`, with the machine to themselves.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.views import DESKTOP, View, flaws
from tests.browser.watching import Complaints
from tests.clients.environments import ClientMissing
from tests.server import Client, Server
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

CHROMIUM = Path("/usr/bin/chromium")
WAITED_MS = 10_000
USERS = ("admin", "maria", "olga", "crowd")


@dataclass(frozen=True)
class Site:
    """The running server: where it is, its users' session cookies, and API clients of theirs."""

    server: Server
    url: str
    cookies: dict[str, str]
    clients: dict[str, Client]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the browser runs alone: before pytest selects by mark."""
    for item in items:
        if {"browser", "site"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("alone")


def unable(reason: str) -> None:
    """A machine of CI must have all it takes: there, what is skipped would be a hole nobody sees."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


# Not for the whole run: while Playwright is there, Django refuses its database to the same thread.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        unable("Chromium is not installed; `.ci/setup test` installs it.")
    # Chromium's own sandbox refuses root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An invented host, the networks corporate-100 and corporate-200, and 600 stopped VMs of `crowd`'s."""
    directory = tmp_path_factory.mktemp("b")
    libvirtd = PrivateLibvirtd(directory / "v")
    try:
        libvirtd.start()
    except LibvirtdMissing as missing:
        unable(str(missing))
    server = Server(
        directory / "state", directory / "var", LIBVIRT_TEST_SOCKET=libvirtd.socket, ALLOW_TEST_HYPERVISOR="true"
    )
    try:
        server.prepare()
        keys = json.loads(server.run("-m", "tests.seed", "clients"))
        cookies = json.loads(server.run("-m", "tests.browser.sessions", *USERS))
        server.start()
        endpoint = server.announced["endpoint"]
        clients = {name: Client(endpoint, pair["api_key"], pair["secret_key"]) for name, pair in keys.items()}
        yield Site(server, server.announced["console"].rstrip("/"), cookies, {"admin": server.client, **clients})
    finally:
        server.stop()
        libvirtd.stop()


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    """What this test's pages complain about fails it, unless it was declared: `complaints.expect("503")`."""
    complaints = Complaints()
    yield complaints
    assert complaints.left() == []


@pytest.fixture
def open_page(browser: Browser, site: Site, complaints: Complaints) -> Iterator[Callable[..., Page]]:
    """Opens a window with cookies of its own: `open_page()`, `open_page("maria", View(390, "dark"))`."""
    contexts = []

    def open_page(user: str | None = None, view: View = DESKTOP) -> Page:
        context = browser.new_context(
            base_url=site.url,
            viewport={"width": view.width, "height": view.height},
            color_scheme=view.theme,
            timezone_id="Europe/Berlin",
        )
        contexts.append(context)
        context.set_default_timeout(WAITED_MS)
        complaints.watch(context)
        if user:
            context.add_cookies([{"name": "sessionid", "value": site.cookies[user], "url": site.url}])
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def page(open_page: Callable[..., Page]) -> Page:
    """A window of somebody who has not logged in."""
    return open_page()


@pytest.fixture
def signed_in(open_page: Callable[..., Page]) -> Callable[..., Page]:
    """`signed_in("maria")`: a window of hers, without passing the log-in page."""
    return open_page


@pytest.fixture
def looks_right() -> Callable[[Page, str], None]:
    """Fails where axe finds a violation or the page overflows, at both widths and in both themes; keeps pictures."""

    def looks_right(page: Page, name: str) -> None:
        try:
            assert flaws(page, name) == []
        except ClientMissing as missing:
            unable(str(missing))

    return looks_right
