"""What an operator does all day: alerts seen to, settings changed in place, a job followed to its end."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.views import visit


def test_a_setting_is_changed_in_place_and_given_its_default_again(signed_in, looks_right, complaints):
    page = signed_in("admin")
    visit(page, "/settings/?q=vm.shutdown.wait")
    setting = page.locator(".setting")
    setting.get_by_text("Change").click()
    value = setting.get_by_label("vm.shutdown.wait", exact=True)
    value.fill("soon")
    expect(setting.locator(".call")).to_have_text("cmk update configuration name=vm.shutdown.wait value=soon")
    setting.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("must be a whole number above 0")
    expect(value).to_have_value("soon")
    looks_right(page, "setting-refused")

    value.fill("90")
    setting.get_by_role("button", name="Save").click()
    expect(setting.locator(".now")).to_have_text("90 seconds")
    expect(setting).to_contain_text("Default: 60. Changed by admin")
    setting.get_by_text("Change", exact=False).first.click()
    setting.get_by_role("button", name="Use the default").click()
    expect(setting.locator(".now")).to_have_text("60 seconds")

    visit(page, "/settings/")
    expect(page.locator("#changes")).to_contain_text("vm.shutdown.wait: 90 to 60, the default")


def test_a_secret_is_not_in_the_call_that_is_shown(signed_in):
    page = signed_in("admin")
    visit(page, "/settings/?q=alert.smtp.password")
    page.get_by_text("Change").first.click()
    page.get_by_label("alert.smtp.password", exact=True).fill("hunter2-hunter2")
    expect(page.locator(".call")).to_contain_text("value=…")
    expect(page.locator(".call")).not_to_contain_text("hunter2")


@pytest.mark.parametrize("user", ["maria", "olga"])
def test_a_job_is_followed_from_the_list_to_what_happened(signed_in, site, user):
    client = site.clients[user]
    client("createSSHKeyPair", name=f"key-of-{user}")
    page = signed_in(user)
    visit(page, "/events/?type=REGISTER.SSH.KEYPAIR")
    expect(page.locator("#rows")).to_contain_text(f"key-of-{user}")
    expect(page.locator("#rows")).not_to_contain_text("key-of-olga" if user == "maria" else "key-of-maria")


def test_what_is_new_waits_until_it_is_asked_for(signed_in, site):
    page = signed_in("olga")
    visit(page, "/events/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    site.clients["olga"]("createSSHKeyPair", name="made-meanwhile")
    expect(page.locator("#news")).to_contain_text(re.compile(r"\d+ new: show"))
    expect(page.locator("#rows")).not_to_contain_text("made-meanwhile")
    page.locator("#news a").click()
    expect(page.locator("#rows")).to_contain_text("made-meanwhile")
