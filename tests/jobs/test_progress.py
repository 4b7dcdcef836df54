"""What a user reads of a job at work names no host."""

import pytest

from extdhcp_site.accounts.models import Role
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from networks.services import vms
from tests.factories import make_caller, make_host, make_running_vm

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("act", [vms.stop, vms.reboot])
def test_where_a_vm_is_worked_on_is_for_root_admins(fake, caller, act):
    vm = make_running_vm(account=caller.account)
    job = act(vm, caller, forced=True)

    jobs.run(job.pk, job.attempt)

    job = AsyncJob.objects.get(pk=job.pk)
    assert str(vm.host) in jobs.progress(job, make_caller(Role.ROOT_ADMIN))
    assert jobs.progress(job, caller) in ("Stopping", "Starting")


def test_nor_does_a_migration_say_where_to(fake, caller):
    vm = make_running_vm(account=caller.account)
    target = make_host(vm.host.cluster)
    job = vms.migrate(vm, make_caller(Role.ROOT_ADMIN), target)

    jobs.run(job.pk, job.attempt)

    job = AsyncJob.objects.get(pk=job.pk)
    assert jobs.progress(job, make_caller(Role.ROOT_ADMIN)) == f"Migrating from {vm.host} to {target}"
    assert jobs.progress(job, caller) == "Migrating"
