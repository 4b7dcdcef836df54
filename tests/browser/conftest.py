"""A browser as a person has it, on the real server with a worker and libvirt's test driver.

Tests that ask for any of this run in the second part of `make test`, with the machine to themselves.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.chromium import ChromiumMissing, running
from tests.browser.views import DESKTOP, VIEWS, View, flaws, picture
from tests.browser.watching import Complaints
from tests.clients.environments import ClientMissing
from tests.server import Client, Server
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

WAITED_MS = 10_000


FAILED = pytest.StashKey[bool]()


@dataclass(frozen=True)
class Site:
    """The running server: where it is, its users' session cookies, API clients of theirs, and rows to look at.

    `rows` has one row of each model, by its name: its "pk" and its "uuid".
    """

    server: Server
    url: str
    cookies: dict[str, str]
    clients: dict[str, Client]
    rows: dict[str, dict[str, str]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever uses the browser runs alone: before pytest selects by mark."""
    for item in items:
        if {"browser", "site"} & set(getattr(item, "fixturenames", ())):
            item.add_marker("alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fixtures see whether the test failed."""
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


def unable(reason: str) -> None:
    """A machine of CI must have all it takes: there, what is skipped would be a hole nobody sees."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


# Not for the whole run: other tests need the database.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        with running() as browser:
            yield browser
    except ChromiumMissing as missing:
        unable(str(missing))


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A zone with an invented host, networks corporate-100 and -200, 600 stopped VMs of `crowd`'s; and elsewhere one

    row of each model, maria's if it can have an owner, with hostile words for names.
    """
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
        keys, seeded = map(json.loads, server.run("-m", "tests.browser.seed").splitlines())
        server.start()
        endpoint = server.announced["endpoint"]
        clients = {name: Client(endpoint, pair["api_key"], pair["secret_key"]) for name, pair in keys.items()}
        url = server.announced["console"].rstrip("/")
        yield Site(server, url, clients={"admin": server.client, **clients}, **seeded)
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
def open_page(
    request: pytest.FixtureRequest, browser: Browser, site: Site, complaints: Complaints
) -> Iterator[Callable[..., Page]]:
    """Opens a window with cookies of its own: `open_page()`, `open_page("maria", View(390, "dark"))`.

    Of a test that fails, pictures are kept.
    """
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
    for number, page in enumerate(page for context in contexts for page in context.pages):
        if FAILED in request.node.stash:
            picture(page, f"failed-{re.sub(r'[^A-Za-z0-9]+', '-', request.node.name)}-{number}")
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
def looks_right() -> Callable[..., None]:
    """Fails where axe finds a violation or the page overflows, at both widths and in both themes; keeps pictures."""

    def looks_right(page: Page, name: str, views: Sequence[View] = VIEWS) -> None:
        try:
            found = flaws(page, name, views)
        except ClientMissing as missing:
            unable(str(missing))
        assert not found, "\n".join([page.url, *found])

    return looks_right
