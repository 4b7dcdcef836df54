"""Somebody's own account: the second factor by its picture and its codes, keys, and times in their zone."""

import re
import time

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value
from playwright.sync_api import Page, expect

from tests.browser.views import View, visit

PASSWORD = "a long password"


@pytest.fixture
def newcomer(signed_in, site) -> Page:
    """A user of their own for each test: what they change stays theirs."""
    name = f"new{time.time_ns()}"
    site.clients["admin"](
        "createAccount",
        username=name,
        password=PASSWORD,
        firstname="Nell",
        lastname="New",
        email="nell@example.com",
        accounttype="0",
    )
    page = signed_in(None)
    log_in(page, name)
    expect(page.locator(".who")).to_have_text(name)
    return page


def log_in(page: Page, name: str) -> None:
    visit(page, "/login/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def code_of(secret: str, later: int = 0) -> str:
    return format_hotp_value(hotp_value(secret, int(time.time() // 30) + later))


def name_of(page: Page) -> str:
    return page.locator(".who").inner_text()


def test_a_second_factor_from_the_picture_to_the_next_log_in(newcomer, looks_right):
    page, name = newcomer, name_of(newcomer)
    visit(page, "/account/")
    looks_right(page, "account")
    page.get_by_role("link", name="Set one up").click()
    looks_right(page, "account-confirm")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Go on").click()

    assert page.locator("img.qr").evaluate("picture => picture.naturalWidth") > 0
    looks_right(page, "second-factor-set-up")
    secret = page.locator("code").first.inner_text()
    page.get_by_label("code").fill(code_of(secret))
    page.get_by_role("button", name="Set up").click()
    codes = page.locator(".codes code").all_inner_texts()
    assert len(codes) == 10
    looks_right(page, "recovery-codes")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_text("10 unused")).to_be_visible()
    looks_right(page, "account-with-second-factor")

    page.get_by_role("button", name="Log out").click()
    log_in(page, name)
    looks_right(page, "log-in-code")
    page.get_by_label("Code").fill("000000")
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_text("Incorrect code.")).to_be_visible()
    page.get_by_label("Code").fill(codes[0])
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.locator(".who")).to_have_text(name)


def test_the_password_is_changed(newcomer, looks_right):
    page = newcomer
    visit(page, "/account/password/")
    looks_right(page, "account-password")
    page.get_by_label("Password now").fill(PASSWORD)
    page.get_by_label("New password").fill("correct horse battery")
    assert "correct" not in page.locator("code.call").inner_text()
    page.get_by_role("button", name="Change it").click()
    expect(page.get_by_text("Your password is changed.")).to_be_visible()


def test_api_keys_are_shown_once(newcomer, looks_right):
    page = newcomer
    visit(page, "/account/")
    page.get_by_role("link", name="Make new API keys").click()
    looks_right(page, "api-keys-new")
    page.get_by_role("button", name="Make new API keys").click()
    key = page.locator("dl.facts code").first.inner_text()
    looks_right(page, "api-keys-once")
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_text(f"{key[:8]}…").first).to_be_visible()
    looks_right(page, "account-with-keys")
    page.get_by_role("button", name="Disable…").click()
    page.get_by_role("button", name="Disable", exact=True).click()
    expect(page.locator(".chip", has_text="disabled")).to_be_visible()


def test_times_stand_in_the_viewers_zone(newcomer):
    page = newcomer
    visit(page, "/account/")
    time_shown = page.locator("dl.facts time").first
    utc = time_shown.get_attribute("datetime")
    hour = page.evaluate("utc => new Date(utc).getHours()", utc)
    expect(time_shown).to_have_text(re.compile(rf"^\d{{4}}-\d\d-\d\d {hour:02}:\d\d:\d\d$"))
    assert time_shown.get_attribute("title").endswith("UTC")


def test_key_pairs(newcomer, looks_right):
    page = newcomer
    visit(page, "/key-pairs/")
    looks_right(page, "key-pairs-none")
    page.get_by_role("link", name="Make a key pair").click()
    page.get_by_label("Name").fill("laptop")
    expect(page.locator("code.call")).to_have_text("cmk create sshkeypair name=laptop")
    looks_right(page, "key-pair-new")
    page.get_by_role("button", name="Make it").click()
    expect(page.get_by_text("BEGIN RSA PRIVATE KEY")).to_be_visible()
    looks_right(page, "key-pair-made")
    page.get_by_role("link", name="Done").click()
    looks_right(page, "key-pairs")
    page.get_by_role("button", name="Delete…").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("There is none.")).to_be_visible()


@pytest.mark.parametrize("path", ["accounts", "users"])
def test_the_lists_of_administrators(signed_in, looks_right, path):
    page = signed_in("admin", View(1280, "light"))
    visit(page, f"/{path}/")
    looks_right(page, path)
    page.locator("tbody a").first.click()
    looks_right(page, path.removesuffix("s"))
