"""How long something that happened takes until a page that is open shows it: nine tabs, one of them looked at.

From the answer of the API call that committed it, until the text stands in the page.
"""

import json
import math
import random
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from playwright.sync_api import Page

from tests.browser.chromium import running
from tests.browser.views import BORN_HIDDEN
from tests.server import Client, Server

EVENTS = 40
TABS = 9
# Seconds between two events; the server looks twice a second, and the moments must not fall in with that.
BETWEEN = (2.0, 4.0)
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + "I" + "A" * 42 + "A"
# Notes, by the clock of the machine, when each name was there first.
NOTE = """() => {
    window.seen = {};
    const look = () => {
        for (const [name] of document.body.textContent.matchAll(/key-[0-9a-f]{8}/g)) window.seen[name] ??= Date.now();
    };
    look();
    new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""


def measure() -> Mapping[str, float]:
    """Seconds from commit to page, by name. Raises ChromiumMissing."""
    with TemporaryDirectory(prefix="open-page") as directory:
        server = Server(Path(directory, "state"), Path(directory, "var"))
        server.prepare()
        server.start()
        try:
            waits = sorted(_waits(server))
        finally:
            server.stop()
    return {
        "commit_to_page_p50_s": median(waits),
        "commit_to_page_p95_s": waits[math.ceil(0.95 * len(waits)) - 1],
    }


def _waits(server: Server) -> list[float]:
    chance = random.Random(7)  # noqa: S311 - moments, no secret
    with running() as browser:
        context = browser.new_context(base_url=server.announced["console"])
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Username").fill(server.username)
        page.get_by_label("Password").fill(server.password)
        page.keyboard.press("Enter")
        page.get_by_text("Live", exact=True).wait_for()
        for _ in range(TABS - 1):
            tab = context.new_page()
            tab.add_init_script(BORN_HIDDEN)
            tab.goto("/")
        page.evaluate(NOTE)
        return [_wait(page, server.client, chance.uniform(*BETWEEN)) for _ in range(EVENTS)]


def _wait(page: Page, api: Client, pause: float) -> float:
    time.sleep(pause)
    name = f"key-{secrets.token_hex(4)}"
    api("registerSSHKeyPair", name=name, publickey=PUBLIC_KEY)
    committed_at = time.time()
    seen = page.wait_for_function("name => window.seen[name]", arg=name).json_value()
    return seen / 1000 - committed_at


if __name__ == "__main__":
    print(json.dumps(measure()))
