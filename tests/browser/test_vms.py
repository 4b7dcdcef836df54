"""A VM's life by a person's path: deployed until its address is there, its password read, stopped, destroyed."""

import re

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from tests.browser.views import View, visit

# From a click until the worker has done it.
DONE_MS = 60_000


def pressed(page: Page, label: str) -> None:
    """A button that asks first."""
    page.get_by_role("button", name=f"{label}…", exact=True).click()
    page.get_by_role("dialog", name=label).get_by_role("button", name=label, exact=True).click()


def deploy(page: Page, name: str, user_data: str = "") -> None:
    """Fills in the form as far as it matters; the page is the VM's then."""
    visit(page, reverse("vms"))
    page.get_by_role("link", name="Deploy a VM").click()
    page.get_by_label("Host name").fill(name)
    page.get_by_label("Template").select_option(label="invented-linux (KVM, Linux, sets passwords)")
    page.get_by_label("Offering").select_option(label="Small Instance: 1 CPU, 512 MiB")
    page.get_by_label("corporate-100").check()
    if user_data:
        page.get_by_text("More: user data").click()
        page.get_by_label("User data").fill(user_data)


def test_a_vm_is_deployed_until_its_address_is_there(signed_in, looks_right):
    page = signed_in("maria")
    deploy(page, "by-hand", "#cloud-config\npackages: [nginx]\n")
    preview = page.locator("#preview")
    page.get_by_label("Name for people").focus()
    expect(preview).to_contain_text("local_hostname.txt")
    expect(preview).not_to_contain_text("nginx")
    expect(page.locator(".call")).to_contain_text("name=by-hand")
    looks_right(page, "deploy")

    page.get_by_role("button", name="Deploy", exact=True).click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("by-hand")
    # By the page's one stream, and not by loading it again.
    page.evaluate("document.body.dataset.same = 'page'")
    expect(page.locator("#vm-state")).to_have_text("Running", timeout=DONE_MS)
    expect(page.locator("#nics")).to_contain_text(re.compile(r"192\.168\.\d+\.\d+"), timeout=DONE_MS)
    assert page.evaluate("document.body.dataset.same") == "page"
    looks_right(page, "vm")

    page.get_by_role("button", name="Show the password").click()
    expect(page.locator(".password")).to_have_text(re.compile("^[A-Za-z0-9]{16}$"))
    looks_right(page, "vm-password")


def test_user_data_that_may_be_wrong_is_seen_first(signed_in):
    page = signed_in("maria")
    deploy(page, "warned", "#cloud-config\nrun_cmd: [ls]\n")
    page.get_by_role("button", name="Deploy", exact=True).click()

    expect(page.get_by_role("alert")).to_contain_text("Did you mean runcmd?")
    page.get_by_role("button", name="Deploy all the same").click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("warned")


@pytest.fixture
def vm(site):
    """Maria's, running."""
    maria = site.clients["maria"]
    (zone,) = (zone["id"] for zone in maria("listZones")["zone"])
    networks = maria("listNetworks")["network"]
    answer = maria(
        "deployVirtualMachine",
        zoneid=zone,
        templateid=maria("listTemplates", templatefilter="executable", name="invented-linux")["template"][0]["id"],
        serviceofferingid=maria("listServiceOfferings", name="Small Instance")["serviceoffering"][0]["id"],
        networkids=next(network["id"] for network in networks if network["name"] == "corporate-100"),
    )
    return maria.wait_for(answer["jobid"])["virtualmachine"]


def test_its_password_is_reset_and_it_is_stopped(signed_in, vm, looks_right):
    page = signed_in("maria")
    visit(page, reverse("vm", args=[vm["id"]]))
    page.get_by_role("link", name="Reset password…").click()
    looks_right(page, "vm-reset-password")
    page.get_by_label("New password").fill("By-Hand-1")
    expect(page.locator(".call")).not_to_contain_text("By-Hand-1")
    page.get_by_role("button", name="Reset the password").click()
    expect(page.locator("#jobs")).to_contain_text("resetPasswordForVirtualMachine")
    page.get_by_role("button", name="Show the password").click(timeout=DONE_MS)
    expect(page.locator(".password")).to_have_text("By-Hand-1")
    page.get_by_role("link", name="Done").click()

    pressed(page, "Stop")
    expect(page.locator("#vm-state")).to_have_text("Stopped", timeout=DONE_MS)
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_visible()
    expect(page.locator("#config-drive")).to_contain_text("It is built when the VM starts.")

    pressed(page, "Destroy")
    expect(page.locator("#vm-state")).to_have_text("Destroyed", timeout=DONE_MS)
    page.get_by_role("button", name="Recover").click()
    expect(page.locator("#vm-state")).to_have_text("Stopped", timeout=DONE_MS)


def test_what_is_open_stays_open_while_the_page_is_live(signed_in, vm, site):
    page = signed_in("maria", View(390, "dark"))
    visit(page, reverse("vm", args=[vm["id"]]))
    page.locator("#drive-files").click()
    page.get_by_role("button", name="Reboot…").click()

    site.clients["maria"]("updateVirtualMachine", id=vm["id"], displayname="Another name")

    expect(page.locator("#state")).to_contain_text("Another name")
    expect(page.get_by_role("dialog", name="Reboot")).to_be_visible()
    expect(page.locator("#drive-tree pre").first).to_be_visible()


def test_troubleshooting_comes_when_it_is_asked_for(signed_in, vm, looks_right):
    page = signed_in("admin")
    visit(page, reverse("vm", args=[vm["id"]]))
    page.get_by_role("link", name="Look into it").click()

    expect(page.locator("#checks")).to_contain_text("kvm-demo says that it is running")
    looks_right(page, "vm-checks")


def test_user_data_on_the_drive_is_revealed_after_a_question(signed_in, vm, site):
    site.clients["maria"](
        "resetUserDataForVirtualMachine", id=vm["id"], userdata="I2Nsb3VkLWNvbmZpZwpob3N0bmFtZTogY2FuYXJ5Cg=="
    )
    page = signed_in("maria")
    visit(page, reverse("vm", args=[vm["id"]]))
    page.locator("#drive-files").click()
    expect(page.locator("#drive-tree")).not_to_contain_text("hostname: canary")

    pressed(page, "Reveal")

    expect(page.locator(".drive-files")).to_contain_text("hostname: canary")
    visit(page, reverse("vm", args=[vm["id"]]))
    expect(page.locator("#events")).to_contain_text("was revealed")


def test_the_list_looks_right(signed_in, looks_right, vm):
    page = signed_in("admin")
    visit(page, f"{reverse('vms')}?account=")
    looks_right(page, "vms")

    page.get_by_label("Search").fill(vm["name"])
    page.get_by_role("button", name="Show").click()
    expect(page.locator("#rows tr")).to_have_count(1)


def test_a_vm_with_hostile_words_harms_nobody(signed_in, site, looks_right):
    page = signed_in("maria")
    visit(page, reverse("vm", args=[site.rows["virtualmachine"]["uuid"]]))

    looks_right(page, "vm-hostile")
