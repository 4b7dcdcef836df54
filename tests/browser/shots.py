"""`make shots`: the pictures of README and docs, each light and dark, from a small cloud that is made for them.

A picture `docs/NAME.png` is light, `docs/NAME-dark.png` dark.
"""

import base64
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from playwright.sync_api import Page
from rich.console import Console

from tests.browser.chromium import ChromiumMissing, running
from tests.server import ROOT, ApiFailed, Client, Server, ServerFailed
from tests.simulators.libvirtd import LibvirtdMissing, PrivateLibvirtd

DOCS = ROOT / "docs"
SIZE = {"width": 1280, "height": 860}
# A README with larger ones is slow to open.
MOST_BYTES = 200_000
FOUND_WITHIN = 120.0
USER_DATA = "#cloud-config\npackages: [nginx]\nruncmd:\n  - systemctl enable --now nginx\n"

console = Console(stderr=True)


@dataclass(frozen=True)
class World:
    """The VMs by name, as the API has them; all but `web-3` have their addresses."""

    vms: dict[str, dict[str, Any]]

    def nic_of(self, name: str) -> str:
        return str(self.vms[name]["nic"][0]["id"])


@dataclass(frozen=True)
class Shot:
    """`prepare` is what a person does on the page before the picture is taken."""

    name: str
    url: Callable[[World], str]
    prepare: Callable[[Page], None] = lambda page: None


def fill_in_a_vm(page: Page) -> None:
    """Up to the preview of what its guest would get."""
    page.get_by_label("Host name").fill("web-4")
    page.get_by_label("Template").select_option(index=1)
    page.get_by_label("Offering").select_option(index=1)
    page.get_by_label("corporate-100").check()
    page.get_by_text("More: user data").click()
    page.get_by_label("User data").fill(USER_DATA)
    with page.expect_response("**/vms/deploy/preview/"):
        page.get_by_role("button", name="Preview the drive").click()
    page.get_by_text("Choose a template, an offering").wait_for(state="hidden")
    page.evaluate("() => scrollTo(0, 0)")


SHOTS = (
    Shot("overview", lambda world: "/"),
    Shot("nics", lambda world: "/nics/"),
    Shot("nic", lambda world: f"/nics/{world.nic_of('web-3')}/"),
    Shot("vm", lambda world: f"/vms/{world.vms['web-1']['id']}/"),
    Shot("deploy", lambda world: "/vms/deploy/", fill_in_a_vm),
)


def main() -> int:
    try:
        with (
            tempfile.TemporaryDirectory(prefix="shots") as directory,
            PrivateLibvirtd(Path(directory, "v")) as libvirtd,
        ):
            server = Server(
                Path(directory, "state"),
                Path(directory, "var"),
                LIBVIRT_TEST_SOCKET=libvirtd.socket,
                ALLOW_TEST_HYPERVISOR="true",
            )
            server.prepare()
            server.run("-m", "tests.seed", "shots")
            try:
                server.start()
                take_all(server, make_world(server.client))
            finally:
                server.stop()
    except (ApiFailed, ChromiumMissing, LibvirtdMissing, ServerFailed, TimeoutError) as error:
        console.print(f"[bold red]No pictures:[/] {error}")
        return 1
    return 0


def make_world(api: Client) -> World:
    near = create_network(api, "corporate-100", 100, "192.168.0.0/16")
    # The invented addresses lie outside: nobody's address is found here.
    far = create_network(api, "dmz-200", 200, "198.51.100.0/24")
    networks = {"web-1": near, "web-2": near, "db-1": near, "mail-1": near, "build-1": near, "web-3": far}
    common = {
        "zoneid": api("listZones")["zone"][0]["id"],
        "templateid": api("listTemplates", templatefilter="executable")["template"][0]["id"],
        "serviceofferingid": api("listServiceOfferings")["serviceoffering"][0]["id"],
        "userdata": base64.b64encode(USER_DATA.encode()).decode(),
    }
    jobs = [
        api("deployVirtualMachine", name=name, networkids=network, **common)["jobid"]
        for name, network in networks.items()
    ]
    for job in jobs:
        api.wait_for(job)
    give_up = time.monotonic() + FOUND_WITHIN
    while time.monotonic() < give_up:
        vms = {vm["name"]: vm for vm in api("listVirtualMachines")["virtualmachine"]}
        if sum("ipaddress" in vm["nic"][0] for vm in vms.values()) == len(networks) - 1:
            return World(vms)
        time.sleep(0.5)
    raise TimeoutError("The addresses did not come.")


def create_network(api: Client, name: str, vlan: int, cidr: str) -> str:
    addresses = ip_network(cidr)
    offering = api(
        "createNetworkOffering",
        name=f"external-dhcp-{vlan}",
        displaytext="No services: DHCP and DNS are external",
        guestiptype="Shared",
        traffictype="Guest",
        specifyvlan="true",
        specifyipranges="true",
    )["networkoffering"]["id"]
    api("updateNetworkOffering", id=offering, state="Enabled")
    network = api(
        "createNetwork",
        name=name,
        displaytext=f"VLAN {vlan}, addresses by somebody else's DHCP server",
        networkofferingid=offering,
        zoneid=api("listZones")["zone"][0]["id"],
        vlan=vlan,
        gateway=addresses[1],
        netmask=addresses.netmask,
        startip=addresses[20],
        endip=addresses[-2],
    )["network"]
    return str(network["id"])


def take_all(server: Server, world: World) -> None:
    with running() as browser:
        for theme in ("light", "dark"):
            page = browser.new_page(base_url=server.announced["console"], viewport=SIZE, color_scheme=theme)
            page.goto("/")
            page.get_by_label("Username").fill(server.username)
            page.get_by_label("Password").fill(server.password)
            page.keyboard.press("Enter")
            page.get_by_role("button", name="Log out").wait_for()
            for shot in SHOTS:
                take(page, shot, world, DOCS / f"{shot.name}{'-dark' if theme == 'dark' else ''}.png")
            page.close()


def take(page: Page, shot: Shot, world: World, path: Path) -> None:
    page.goto(shot.url(world))
    shot.prepare(page)
    page.get_by_text("Live", exact=True).wait_for()
    page.screenshot(path=path)
    size = path.stat().st_size
    console.print(f"{path.relative_to(ROOT)}  {size // 1000} kB" + (" [red]too large[/]" if size > MOST_BYTES else ""))


if __name__ == "__main__":
    sys.exit(main())
