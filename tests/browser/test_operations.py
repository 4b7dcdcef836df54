"""What an operator does all day: alerts seen to, settings changed in place, a job followed to its end."""

import re

from playwright.sync_api import expect

from tests.browser.views import visit


def test_a_setting_is_changed_in_place_and_given_its_default_again(signed_in, looks_right, complaints):
    page = signed_in("admin")
    visit(page, "/settings/?q=vm.shutdown.wait")
    setting = page.locator(".setting")
    setting.locator("summary").first.click()
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
    setting.locator("summary").first.click()
    setting.get_by_role("button", name="Use the default").click()
    expect(setting.locator(".now")).to_have_text("60 seconds")

    visit(page, "/settings/")
    expect(page.locator("#changes")).to_contain_text("vm.shutdown.wait: 90 to 60, the default")


def test_a_secret_is_not_in_the_call_that_is_shown(signed_in):
    page = signed_in("admin")
    visit(page, "/settings/?q=alert.smtp.password")
    page.locator(".setting summary").first.click()
    page.get_by_label("alert.smtp.password", exact=True).fill("hunter2-hunter2")
    expect(page.locator(".call")).to_contain_text("value=…")
    expect(page.locator(".call")).not_to_contain_text("hunter2")


def test_a_job_is_followed_from_the_list_to_its_end(signed_in, site, looks_right):
    client = site.clients["olga"]
    page = signed_in("olga")
    zone = next(each["id"] for each in client("listZones")["zone"] if each["name"] == "demo")
    chosen = {
        "zoneid": zone,
        "serviceofferingid": client("listServiceOfferings")["serviceoffering"][0]["id"],
        "templateid": client("listTemplates", templatefilter="executable")["template"][0]["id"],
        "networkids": client("listNetworks", zoneid=zone)["network"][0]["id"],
    }
    client("deployVirtualMachine", name="followed", startvm="false", **chosen)

    visit(page, "/jobs/?q=followed")
    page.get_by_role("link", name="deployVirtualMachine").click()
    expect(page.locator("#job > section").first).to_contain_text("Done")
    expect(page.locator(".story")).to_contain_text("deployVirtualMachine completed")
    looks_right(page, "job")
    page.get_by_role("link", name="In the list of events").click()
    expect(page.locator("#rows")).to_contain_text("deployVirtualMachine started")
    page.get_by_role("link", name=re.compile("Follow")).first.click()
    expect(page.locator(".story li")).to_have_count(3)


def test_what_is_new_waits_until_it_is_asked_for(signed_in, site):
    page = signed_in("olga")
    visit(page, "/events/")
    expect(page.locator("#live")).to_have_attribute("data-state", "live")
    site.clients["olga"]("createSSHKeyPair", name="made-meanwhile")
    expect(page.locator("#news")).to_contain_text(re.compile(r"\d+ new: show"))
    expect(page.locator("#rows")).not_to_contain_text("made-meanwhile")
    page.locator("#news a").click()
    expect(page.locator("#rows")).to_contain_text("made-meanwhile")
