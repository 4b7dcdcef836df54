"""VMs deployed and led through their life without a worker: the job is run where it was submitted."""

from typing import Any

from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.models import VirtualMachine
from networks.services import vms
from networks.services.vms import Deployment
from tests.api.client import Reply, Signer
from tests.factories import make_network, make_service_offering, make_template


def deploy(caller, cluster, **wanted) -> VirtualMachine:
    zone = cluster.pod.zone
    defaults = {
        "zone": zone,
        "template": make_template(),
        "service_offering": make_service_offering(),
        "networks": [make_network(zone)],
    }
    vm, job = vms.deploy(Deployment(**{**defaults, **wanted}), caller.account, caller)
    run(job)
    vm.refresh_from_db()
    return vm


def run(job: AsyncJob) -> AsyncJob:
    """What a worker does with the job's task."""
    jobs.run(job.pk, job.attempt)
    job.refresh_from_db()
    return job


def finished(by: Signer, reply: Reply) -> dict[str, Any]:
    """What a client that polls the job reads as its result; the job is run here."""
    assert reply.status == 200, reply
    job = AsyncJob.objects.get(uuid=reply.body["jobid"])
    run(job)
    return by.call("queryAsyncJobResult", jobid=job.uuid).body["jobresult"]
