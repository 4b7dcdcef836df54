"""Nothing that a browser complains about goes unseen."""

import re

from playwright.sync_api import BrowserContext, ConsoleMessage, Dialog, Page, WebError

# Also where a policy only reports, or a script swallowed the error.
_POLICY = """document.addEventListener("securitypolicyviolation", (event) => console.error(
    `CSP violation: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`))"""


class Complaints:
    """What pages complained about: console errors, uncaught exceptions, policy violations and dialogs.

    A test that provokes some declares them by `expect`.
    """

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._expected: list[str] = []

    def expect(self, pattern: str) -> None:
        """From now until the test's end, what this regular expression matches is no complaint."""
        self._expected.append(pattern)

    def watch(self, context: BrowserContext) -> None:
        context.add_init_script(_POLICY)
        context.on("console", self._console)
        context.on("weberror", self._error)
        context.on("dialog", self._dialog)

    def left(self) -> list[str]:
        """All that was not expected."""
        return [text for text in self._heard if not any(re.search(pattern, text) for pattern in self._expected)]

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._heard.append(f"{_place(message.page)}: console: {message.text} ({message.location['url']})")

    def _error(self, error: WebError) -> None:
        self._heard.append(f"{_place(error.page)}: exception: {error.error}")

    def _dialog(self, dialog: Dialog) -> None:
        self._heard.append(f"{_place(dialog.page)}: {dialog.type}: {dialog.message}")
        dialog.dismiss()


def _place(page: Page | None) -> str:
    return page.url if page else "(closed page)"
