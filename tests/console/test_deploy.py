"""Deploying from the console: the form, what it shows beforehand, and that it is what then is made."""

import base64
import re

import pytest
from django.urls import reverse

from configdrive.facts import shown_files
from extdhcp_site.accounts.models import Role
from extdhcp_site.api import throttling
from extdhcp_site.jobs.models import AsyncJob
from networks.models import ConfigDriveUse, SshKeyPair, VirtualMachine, Zone
from tests import factories
from tests.console.worlds import client_of
from tests.life import run

pytestmark = pytest.mark.django_db

DEPLOY, PREVIEW = reverse("deploy"), reverse("deploy-preview")
USER_DATA = "#cloud-config\nruncmd: [echo ud-canary-81f3]\n"
PASSWORD = "Vq7mZ2kT9xLw4RbN"


@pytest.fixture
def user():
    return factories.make_user()


@pytest.fixture
def client(user):
    return client_of(user)


@pytest.fixture
def world(fake, user):
    """What a form may say, in a zone that is the only one."""
    cluster = factories.make_cluster()
    factories.make_host(cluster, name="kvm-1")
    zone = cluster.pod.zone
    networks = [factories.make_network(zone, name=name) for name in ("net-a", "net-b")]
    template = factories.make_template(name="debian", password_enabled=True)
    Zone.objects.exclude(pk=zone.pk).delete()
    SshKeyPair.objects.create(
        account=user.account, name="laptop", public_key="ssh-ed25519 AAAA laptop", fingerprint="00"
    )
    return {
        "zoneid": str(zone.uuid),
        "templateid": str(template.uuid),
        "serviceofferingid": str(factories.make_service_offering().uuid),
        "networkids": [str(network.uuid) for network in networks],
        "name": "web-1",
        "keypairs": ["laptop"],
        "configdrive": "Always",
        "startvm": "true",
    }


def test_the_fields_that_matter_stand_before_the_others(client, world):
    page = client.get(DEPLOY).text
    before, more = page.split('<details class="more"')

    assert set(re.findall(r' name="(\w+)"', before)) >= {
        "zoneid",
        "name",
        "templateid",
        "serviceofferingid",
        "networkids",
    }
    assert {"userdata", "password", "configdrive", "startvm"} <= set(re.findall(r' name="(\w+)"', more))


def test_the_host_is_for_root_admins_to_choose(client, world):
    assert 'name="hostid"' not in client.get(DEPLOY).text
    root = client_of(factories.make_user(factories.make_account(Role.ROOT_ADMIN)))
    assert "kvm-1: 16.0 GiB of memory free" in root.get(DEPLOY).text


def test_of_several_zones_one_is_chosen_first(client, world):
    other = factories.make_zone(name="other")
    factories.make_network(other, name="net-of-other")

    page = client.get(DEPLOY).text
    assert "templateid" not in page
    assert f'value="{other.uuid}"' in page

    page = client.get(f"{DEPLOY}?zone={other.uuid}").text
    assert "net-of-other" in page
    assert "net-a" not in page


@pytest.mark.parametrize("zone", ["x", "00000000-0000-0000-0000-000000000000"])
def test_a_zone_that_is_not_there_is_asked_for_again(client, world, zone):
    factories.make_zone()

    assert 'name="zone"' in client.get(f"{DEPLOY}?zone={zone}").text


def test_it_deploys_and_leads_to_the_vm(client, world):
    page = client.post(DEPLOY, {**world, "userdata": USER_DATA.replace("\n", "\r\n")})

    vm = VirtualMachine.objects.get()
    assert page["Location"] == reverse("vm", args=[vm.uuid])
    assert (vm.name, vm.user_data_bytes) == ("web-1", USER_DATA.encode())
    assert [nic.network.name for nic in vm.nics.order_by("device_id")] == ["net-a", "net-b"]
    assert [key["name"] for key in vm.ssh_keys] == ["laptop"]


def test_it_may_be_left_stopped(client, world):
    client.post(DEPLOY, {name: value for name, value in world.items() if name != "startvm"})

    assert AsyncJob.objects.get().arguments["start"] is False


def test_what_is_refused_is_said_on_the_form(client, world):
    page = client.post(DEPLOY, {**world, "name": "no_such_name"}).text

    assert "A name has 1 to 63 letters" in page
    assert 'value="no_such_name"' in page
    assert not VirtualMachine.objects.exists()


def test_a_password_that_was_typed_is_not_given_back(client, world):
    page = client.post(DEPLOY, {**world, "name": "no_such_name", "password": PASSWORD}).text

    assert PASSWORD not in page


def test_user_data_that_may_be_wrong_is_seen_before_it_is_sent(client, world):
    wrong = {**world, "userdata": "#cloud-config\nrun_cmd: [ls]\n"}

    page = client.post(DEPLOY, wrong).text
    assert "Did you mean runcmd?" in page
    assert not VirtualMachine.objects.exists()

    client.post(DEPLOY, {**wrong, "_although": "1"})
    assert VirtualMachine.objects.exists()


@pytest.mark.parametrize("what", ["templateid", "serviceofferingid", "networkids", "zoneid"])
def test_what_others_own_cannot_be_deployed_from(client, world, what):
    hidden = {
        "templateid": factories.make_template(public=False),
        "serviceofferingid": factories.make_service_offering(removed_at="2026-01-01T00:00:00Z"),
        "networkids": factories.make_network(acl_type="Account", zone=Zone.objects.get()),
        "zoneid": factories.make_zone(domain=factories.make_domain()),
    }
    client.post(DEPLOY, {**world, what: str(hidden[what].uuid)})

    # Of zones, the one that the user sees is taken.
    assert [vm.zone.name for vm in VirtualMachine.objects.all()] == (
        [Zone.objects.get(domain=None).name] if what == "zoneid" else []
    )


# The preview


def files_of(page: str) -> dict[str, tuple[int, str]]:
    rows = re.findall(
        r'<code title="([^"]+)">[^<]+</code></td><td class="bytes"[^>]*>(\d+)</td><td[^>]*><pre[^>]*>(.*?)</pre>',
        page,
        re.DOTALL,
    )
    return {path: (int(size), text) for path, size, text in rows}


def test_the_preview_is_what_deploy_then_builds(client, world):
    wanted = {**world, "userdata": USER_DATA, "password": PASSWORD}
    shown = files_of(client.post(PREVIEW, wanted).text)
    client.post(DEPLOY, wanted)
    run(AsyncJob.objects.get())
    vm = VirtualMachine.objects.get()
    built = {file.path: (file.size, file.text) for file in shown_files(vm)}

    # Ids are made as the VM is.
    ids = re.compile(rf"{vm.uuid}|{vm.instance_name}|[0-9a-f-]{{36}}|i-\d+-0-VM|([0-9a-f]{{2}}:){{5}}[0-9a-f]{{2}}")
    said = {path: ids.sub("", text.replace("&quot;", '"')) for path, (_, text) in shown.items()}
    assert shown.keys() == built.keys()
    for path, (_, text) in built.items():
        if "vm_id" not in path and "vm-id" not in path:
            assert said[path] == ids.sub("", text), path
    assert {path: size for path, (size, _) in shown.items() if "user" in path} == {
        path: size for path, (size, _) in built.items() if "user" in path
    }


def test_it_shows_no_secret_and_keeps_nothing(client, world):
    page = client.post(PREVIEW, {**world, "userdata": USER_DATA, "password": PASSWORD}).text

    assert PASSWORD not in page
    assert "ud-canary-81f3" not in page
    assert base64.b64encode(USER_DATA.encode()).decode() not in page
    assert not VirtualMachine.objects.exists()
    assert not AsyncJob.objects.exists()


def test_as_a_fragment_it_is_the_panel_alone(client, world):
    page = client.post(PREVIEW, world, headers={"HX-Request": "true"}).text

    assert page.lstrip().startswith('<section class="panel" id="preview"')


def test_what_is_missing_is_said(client, world):
    assert "missing parameter templateid" in client.post(PREVIEW, {**world, "templateid": ""}).text
    assert (
        "is not password enabled"
        in client.post(PREVIEW, {**world, "templateid": str(factories.make_template().uuid), "password": PASSWORD}).text
    )


def test_what_the_user_data_lacks_is_said(client, world):
    assert "Did you mean runcmd?" in client.post(PREVIEW, {**world, "userdata": "#cloud-config\nrun_cmd: []\n"}).text


def test_who_asks_too_often_has_nothing_looked_at(client, world, monkeypatch):
    monkeypatch.setattr(throttling, "_limits", throttling.Limits(True, 1000, 1))
    throttling.forget()
    asked = {**world, "userdata": "#cloud-config\nrun_cmd: []\n"}

    assert ["Did you mean runcmd?" in client.post(PREVIEW, asked).text for _ in range(2)] == [True, False]


def test_malformed_user_data_is_told_and_no_page_fails(client, world):
    malformed = '#cloud-config\na: "\\UFFFFFFFF"\n'
    asked = {**world, "userdata": malformed}

    assert all("It is malformed" in client.post(path, asked).text for path in (PREVIEW, DEPLOY))
    sent = client.post(DEPLOY, {**asked, "_although": "1"})
    assert "It is malformed" in client.get(sent.url).text


def test_without_a_drive_there_is_nothing_to_see(client, world):
    page = client.post(PREVIEW, {**world, "configdrive": ConfigDriveUse.NEVER}).text

    assert "nothing brings user data" in page
    assert files_of(page) == {}


def test_hostile_words_are_escaped(client, world):
    evil = "<script>alert(1)</script>"
    Zone.objects.update(name=evil)
    page = client.post(PREVIEW, {**world, "userdata": f"#cloud-config\n{evil}: 1\n"}).text

    assert evil not in page
    assert "&lt;script&gt;" in page
