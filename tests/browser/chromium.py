"""Debian's Chromium, driven by Playwright, which downloads none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

PROGRAM = Path("/usr/bin/chromium")


class ChromiumMissing(Exception):
    """It is not on this machine; the text says what installs it."""


@contextmanager
def running() -> Iterator[Browser]:
    """Raises ChromiumMissing. While it runs, Django refuses its database to the same thread."""
    if not PROGRAM.exists():
        raise ChromiumMissing("Chromium is not installed; `.ci/setup test` installs it.")
    # Chromium's own sandbox refuses root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=arguments)
        yield browser
        browser.close()
