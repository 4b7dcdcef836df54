"""What the jobs that work on VMs share: the VM, the host that was named, and a heart that beats on."""

import contextlib
from collections.abc import Iterator

from django.db.models import Q

from extdhcp_site.errors import InternalError
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.hypervisors.base import heartbeat
from networks.models import Host, VirtualMachine
from networks.services.places import translated


def vm_of(job: AsyncJob) -> VirtualMachine:
    vm = (
        VirtualMachine.objects.for_listing()
        .select_related(
            "root_volume__storage",
            "host__endpoint",
            "host__cluster__pod__zone",
            "migrating_to__endpoint",
            "service_offering",
            "template",
            "account",
            "zone",
        )
        .filter(uuid=job.instance_uuid)
        .first()
    )
    if vm is None:
        raise InternalError("The VM is gone.")
    return vm


def named_host(job: AsyncJob) -> Host | None:
    return Host.objects.filter(pk=job.arguments["host"]).first() if job.arguments.get("host") else None


def named_hosts(job: AsyncJob) -> Q:
    """Which hosts the job may choose from: the one that was named, those of a cluster or of a pod, or all."""
    columns = {"host": "pk", "cluster": "cluster", "pod": "cluster__pod"}
    return Q(**{column: job.arguments[name] for name, column in columns.items() if job.arguments.get(name)})


@contextlib.contextmanager
def working(job: AsyncJob, host: Host | None, progress: str, *, where: str = "") -> Iterator[None]:
    """While slow calls are made: the job's heart beats, and drivers' errors become ours.

    `progress` is shown to users and names no host; `where`, by default on which host, is for operators.
    """
    assert host is not None
    jobs.beat(job, progress, for_operator=where or f"on {host}")
    with heartbeat(lambda: jobs.beat(job)), translated(host):
        yield


@contextlib.contextmanager
def cleaning_up(job: AsyncJob) -> Iterator[None]:
    """After a failure: only while the job is this worker's own, and with its heart beating on."""
    jobs.beat(job, "Cleaning up")
    with heartbeat(lambda: jobs.beat(job)):
        yield
