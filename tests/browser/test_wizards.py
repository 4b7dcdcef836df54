"""A person makes a network in two steps, and an endpoint that is tried first, against libvirt's test driver."""

from playwright.sync_api import expect

from tests.browser.views import TWO_VIEWS, visit


def test_an_offering_and_its_network(signed_in, looks_right):
    page = signed_in("admin")
    visit(page, "/networks/")
    page.get_by_role("link", name="New network").click()
    page.get_by_role("link", name="With a config drive").click()
    page.get_by_label("Name").fill("wizard's offering")
    looks_right(page, "new-network-1", TWO_VIEWS)
    page.get_by_role("button", name="Make it, then the network").click()

    page.get_by_label("Name").fill("wizards-700")
    page.get_by_label("Zone").select_option(index=1)
    page.get_by_label("VLAN").fill("700")
    page.get_by_label("Gateway").fill("192.0.2.1")
    page.get_by_label("Netmask").fill("255.255.255.0")
    page.get_by_label("First address").fill("192.0.2.200")
    page.get_by_label("Last address").fill("192.0.2.100")
    page.get_by_text("The API call that this makes").click()
    expect(page.locator(".call")).to_contain_text("cmk create network")
    expect(page.locator(".call")).to_contain_text("vlan=700")
    page.get_by_role("button", name="Make the network").click()
    expect(page.get_by_role("alert")).to_contain_text("comes after endip")

    page.get_by_label("First address").fill("192.0.2.90")
    looks_right(page, "new-network-2", TWO_VIEWS)
    page.get_by_role("button", name="Make the network").click()
    expect(page.get_by_text("The network is there.")).to_be_visible()
    expect(page.get_by_text("dhcp-range=set:vlan700,192.0.2.90,192.0.2.100,255.255.255.0,12h")).to_be_visible()
    looks_right(page, "network")


def test_an_endpoint_is_tried_then_stored_then_given_its_host(signed_in, looks_right):
    page = signed_in("admin")
    visit(page, "/endpoints/")
    page.get_by_role("link", name="New endpoint").click()
    page.get_by_label("Name", exact=True).fill("wizards-kvm")
    page.get_by_label("Transport").select_option("tcp")
    page.get_by_label("Host", exact=False).first.fill("no.such.host.example")
    page.get_by_role("button", name="Try the connection").click()
    trial = page.get_by_label("The connection")
    expect(trial.get_by_text("Fails", exact=True)).to_be_visible(timeout=20_000)
    looks_right(page, "new-endpoint-fails", TWO_VIEWS)

    page.get_by_label("Transport").select_option("test")
    page.get_by_label("Host", exact=False).first.fill("")
    page.get_by_role("button", name="Try the connection").click()
    expect(trial.get_by_text("Works", exact=True)).to_be_visible(timeout=20_000)
    looks_right(page, "new-endpoint-works", TWO_VIEWS)

    page.get_by_role("button", name="Save, then add its hosts").click()
    page.get_by_label("Cluster").select_option(index=1)
    looks_right(page, "new-host", TWO_VIEWS)
    page.get_by_role("button", name="Add the host").click()
    expect(page.get_by_role("heading", name="wizards-kvm")).to_be_visible(timeout=20_000)
    looks_right(page, "host")

    page.get_by_role("link", name="wizards-kvm").click()
    page.get_by_role("button", name="Check now").click()
    expect(page.locator("#checks").get_by_text("connection")).to_be_visible(timeout=30_000)
    looks_right(page, "endpoint")


def test_the_overview_follows_what_happens(signed_in, looks_right):
    page = signed_in("admin")
    visit(page, "/")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    before = page.locator("#last-events tbody tr").first.inner_text()

    other = signed_in("admin")
    visit(other, "/offerings/")
    other.get_by_role("button", name="Disable").first.click()

    expect(page.locator("#last-events tbody tr").first).not_to_have_text(before)
    expect(page.locator("#last-events")).to_contain_text("is Disabled")
    looks_right(page, "overview")
