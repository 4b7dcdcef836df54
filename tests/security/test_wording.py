"""What a user is told of a failure: in words for users, without the names of what only operators see."""

import pytest
from django.test import Client

from extdhcp_site.accounts.models import Role
from ipfetch.models import IpFetch, Outcome
from networks.hypervisors.base import EndpointUnreachable, HypervisorError, Refused
from tests.api.client import Rest, Signer
from tests.factories import (
    make_account,
    make_cluster,
    make_domain,
    make_endpoint,
    make_host,
    make_network,
    make_service_offering,
    make_template,
)
from tests.life import finished

pytestmark = pytest.mark.django_db

HOST, ENDPOINT, ADDRESS, STORAGE = "kvm-secret-7", "rack-secret-9", "198.51.100.77", "pool-secret-3"


@pytest.fixture
def host(fake):
    endpoint = make_endpoint(name=ENDPOINT, transport="tls", host=ADDRESS)
    cluster = make_cluster()
    cluster.storage.update(name=STORAGE)
    return make_host(cluster, name=HOST, endpoint=endpoint)


@pytest.mark.parametrize("role", [Role.USER, Role.DOMAIN_ADMIN])
@pytest.mark.parametrize(
    "error",
    [EndpointUnreachable, Refused, HypervisorError, ValueError],
)
@pytest.mark.parametrize("at", ["define", "start", "ensure_network"])
def test_no_host_endpoint_address_or_storage_is_named(fake, host, role, error, at):
    """CVE-2017-7214 and its kin (Nova: a driver's own exception text went to the user): here a user reads that the
    hypervisor refused, an administrator reads where.
    """
    fake.failing[at] = error(f"{HOST} at {ADDRESS}: cannot open {STORAGE}")
    domain = make_domain()
    owner = Signer.of(make_account(domain=domain))
    caller = owner if role == Role.USER else Signer.of(make_account(role, domain))
    zone = host.cluster.pod.zone
    answer = owner.call(
        "deployVirtualMachine",
        zoneid=zone.uuid,
        templateid=make_template().uuid,
        serviceofferingid=make_service_offering().uuid,
        networkids=make_network(zone).uuid,
    )
    result = finished(owner, answer)
    assert "errorcode" in result, result

    rest, page = Rest.of(caller), Client()
    page.force_login(caller.user)
    told = {
        "the job's result": str(caller.call("queryAsyncJobResult", jobid=answer.body["jobid"]).body),
        "jobs": str(caller.call("listAsyncJobs", listall="true").body),
        "events": str(caller.call("listEvents", listall="true").body),
        "VMs": str(caller.call("listVirtualMachines", listall="true").body),
        "volumes": str(caller.call("listVolumes", listall="true").body),
        "the console": page.get("/").text,
        **{path: rest.get(path).text for path in ("jobs", "events", "vms", "nics", "volumes", "ip-fetches")},
    }
    for where, text in told.items():
        for name in (HOST, ENDPOINT, ADDRESS, STORAGE):
            assert name not in text, f"{name} in {where}"


def test_root_administrators_are_told_where(fake, host, root):
    fake.failing["define"] = Refused(f"cannot open {STORAGE}")
    zone = host.cluster.pod.zone
    answer = root.call(
        "deployVirtualMachine",
        zoneid=zone.uuid,
        templateid=make_template().uuid,
        serviceofferingid=make_service_offering().uuid,
        networkids=make_network(zone).uuid,
    )
    result = finished(root, answer)
    assert HOST in result["errortext"]
    assert STORAGE in result["errortext"]


@pytest.mark.parametrize("outcome", [Outcome.HOST_UNREACHABLE, Outcome.NOT_RUNNING, Outcome.AGENT_SILENT])
def test_why_an_address_is_missing_names_no_host(user, outcome):
    from tests.console.worlds import make_ip_fetch
    from tests.factories import make_running_vm

    make_ip_fetch(make_running_vm(account=user.user.account), last_outcome=outcome, last_detail=f"{HOST}: {ADDRESS}")
    page = Client()
    page.force_login(user.user)
    for text in (Rest.of(user).get("ip-fetches").text, page.get("/").text):
        assert HOST not in text
        assert ADDRESS not in text
    assert IpFetch.objects.count() == 1
