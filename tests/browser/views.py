"""What a page is looked at with, and what is looked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page

from tests.clients.environments import axe_core
from tests.server import ROOT

SCREENSHOTS = ROOT / "var" / "screenshots"
# WCAG 2.2 A and AA, in axe's words.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]

# So many elements are named that break one rule.
NAMED = 3
# So many steps are taken through a page by keyboard.
TABS = 40

# For a tab that was opened behind others; Playwright's are all in front.
BORN_HIDDEN = 'Object.defineProperty(document, "hidden", {get: () => true, configurable: true})'

Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class View:
    """A window: its width in CSS pixels, and the theme that the viewer's system prefers."""

    width: int
    theme: Theme

    @property
    def height(self) -> int:
        return 844 if self.width < 768 else 900

    def __str__(self) -> str:
        return f"{self.width}-{self.theme}"


DESKTOP = View(1280, "light")
VIEWS = tuple(View(width, theme) for width, theme in product((1280, 390), ("light", "dark")))
# Each width and each theme once.
TWO_VIEWS = (View(1280, "light"), View(390, "dark"))


@contextmanager
def seen_by(page: Page, view: View) -> Iterator[None]:
    """The page as this view has it; it keeps its content."""
    before = page.viewport_size
    page.set_viewport_size({"width": view.width, "height": view.height})
    page.emulate_media(color_scheme=view.theme)
    try:
        yield
    finally:
        page.set_viewport_size(before)
        page.emulate_media(color_scheme=DESKTOP.theme)


def visit(page: Page, path: str) -> None:
    """Go there; what answers must be a page, and no report of an error."""
    answer = page.goto(path)
    assert answer is not None
    assert answer.ok, f"{path}: {answer.status}"


# Without its copies of stylesheets, which the policy would refuse.
_RUN = "rules => axe.run({runOnly: rules, preload: false}).then(result => result.violations)"


def violations(page: Page) -> list[str]:
    """What axe finds: rule, the first elements and the reason of each."""
    source = Path(axe_core().home, "node_modules/axe-core/axe.min.js").read_text()
    page.evaluate(f"() => {{ if (!window.axe) {{ {source} }} }}")
    found = page.evaluate(_RUN, RULES)
    return [f"{rule['id']} ({len(rule['nodes'])}): {'; '.join(map(_told, rule['nodes'][:NAMED]))}" for rule in found]


def _told(node: dict[str, str]) -> str:
    return f"{node['html'][:160]} {node['failureSummary'].splitlines()[-1].strip()}"


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("() => document.scrollingElement.scrollWidth - window.innerWidth")


# What has the focus, and whether somebody can see that it has: an outline or a shadow that it has only now.
_FOCUSED = """() => {
    const it = document.activeElement;
    if (!it || it === document.body) return null;
    const style = getComputedStyle(it), box = it.getBoundingClientRect();
    const isOutlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
    const seen = (isOutlined || style.boxShadow !== "none") && box.width > 0 && box.height > 0;
    return {tag: it.outerHTML.slice(0, 120), seen};
}"""


def unseen_focus(page: Page) -> list[str]:
    """Elements that the Tab key reaches without a sign of it."""
    unseen = []
    for _ in range(TABS):
        page.keyboard.press("Tab")
        focused = page.evaluate(_FOCUSED)
        if focused is None:
            break
        if not focused["seen"]:
            unseen.append(focused["tag"])
    return unseen


def picture(page: Page, name: str) -> Path:
    """A screenshot of the whole page among the build's output."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path


def flaws(page: Page, name: str, views: Sequence[View]) -> list[str]:
    """What is wrong with the page in any of the views; a picture of each is kept."""
    found = []
    for view in views:
        with seen_by(page, view):
            picture(page, f"{name}-{view}")
            found += [f"{view}: {violation}" for violation in violations(page)]
            if (wider := overflow(page)) > 0:
                found.append(f"{view}: {wider} px wider than the window")
    return found
