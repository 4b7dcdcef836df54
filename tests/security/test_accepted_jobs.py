"""Who is shut out while their job waits: what was accepted is done whole, or fails with a reason."""

from collections.abc import Callable

import pytest
from django.utils import timezone

from extdhcp_site.accounts.models import ApiKey, Role
from extdhcp_site.events.models import Event, Level
from extdhcp_site.jobs.models import AsyncJob, Status
from networks.models import Nic, VirtualMachine, VmState
from tests.api.client import Signer, refused
from tests.factories import (
    make_account,
    make_api_key,
    make_cluster,
    make_domain,
    make_host,
    make_network,
    make_service_offering,
    make_template,
    make_user,
    make_vm,
)
from tests.life import finished, run

pytestmark = pytest.mark.django_db


@pytest.fixture
def deployed(fake, user) -> AsyncJob:
    """A deploy that was accepted and that no worker has begun."""
    zone = make_host(make_cluster()).cluster.pod.zone
    answer = user.call(
        "deployVirtualMachine",
        zoneid=zone.uuid,
        templateid=make_template(password_enabled=True).uuid,
        serviceofferingid=make_service_offering().uuid,
        networkids=make_network(zone).uuid,
    )
    assert answer.status == 200, answer
    return AsyncJob.objects.get(uuid=answer.body["jobid"])


def _disable_key(root: Signer, user: Signer) -> None:
    ApiKey.objects.filter(user=user.user).update(disabled_at=timezone.now())


def _disable_user(root: Signer, user: Signer) -> None:
    finished(root, root.call("disableUser", id=user.user.uuid))


def _delete_user(root: Signer, user: Signer) -> None:
    assert root.call("deleteUser", id=user.user.uuid).status == 200


def _disable_account(root: Signer, user: Signer) -> None:
    finished(root, root.call("disableAccount", id=user.user.account.uuid, lock="false"))


@pytest.mark.parametrize("shut_out", [_disable_key, _disable_user, _delete_user, _disable_account])
def test_an_accepted_deploy_is_carried_out_and_its_caller_stays_out(
    root, user, deployed, shut_out: Callable[[Signer, Signer], None]
):
    """It was allowed when it was asked for, and the VM is the account's: nobody could mend one left half-way."""
    shut_out(root, user)

    assert run(deployed).status == Status.SUCCEEDED

    assert VirtualMachine.objects.get().state == VmState.RUNNING
    assert user.call("queryAsyncJobResult", jobid=deployed.uuid).status == 401
    # The password was for who asked: nobody who may see the job reads it in their place.
    assert "password" not in root.call("queryAsyncJobResult", jobid=deployed.uuid).body["jobresult"]["virtualmachine"]


def test_an_account_is_not_deleted_while_a_deploy_of_its_waits(root, user, deployed):
    refused(root.call("deleteAccount", id=user.user.account.uuid), "still owns 1 virtual machine", status=536)

    assert run(deployed).status == Status.SUCCEEDED
    assert user.call("listVirtualMachines").body["count"] == 1


def test_whoever_is_shut_out_submits_nothing_more(root, user, deployed):
    run(deployed)
    vm = VirtualMachine.objects.get()
    _disable_user(root, user)

    assert user.call("stopVirtualMachine", id=vm.uuid).status == 401
    assert not AsyncJob.objects.pending().exists()


@pytest.mark.parametrize("command", ["startVirtualMachine", "destroyVirtualMachine", "resetPasswordForVirtualMachine"])
def test_a_job_whose_vm_is_gone_ends_and_touches_no_host(fake, user, command):
    """CVE-2015-3241 (Nova): a migration went on after its VM was deleted; here the job ends, with a reason if it
    could not do what it was for, and no host is asked for anything.
    """
    vm = make_vm(user.user.account, template=make_template(password_enabled=True))
    job = AsyncJob.objects.get(uuid=user.call(command, id=vm.uuid).body["jobid"])
    VirtualMachine.objects.filter(pk=vm.pk).delete()

    ended = run(job)

    # Destroying it is done by then.
    done = command == "destroyVirtualMachine"
    assert (ended.status, ended.busy_with) == (Status.SUCCEEDED if done else Status.FAILED, None)
    assert done or "gone" in ended.error_text
    assert not fake.calls
    assert Event.objects.filter(state="Completed", level=Level.INFO if done else Level.ERROR).exists()
    assert not Nic.objects.exists()


def test_what_an_administrator_had_asked_for_does_not_give_the_next_one_of_that_name_anything(root):
    """CVE-2025-66467 (CloudStack): a job's result is its caller's; one of the same name later is another."""
    domain = make_domain()
    former = Signer.of(make_account(Role.DOMAIN_ADMIN, domain))
    vm = make_vm(make_account(domain=domain), template=make_template(password_enabled=True))
    job = former.call("resetPasswordForVirtualMachine", id=vm.uuid).body["jobid"]
    run(AsyncJob.objects.get(uuid=job))
    username = former.user.username
    assert root.call("deleteUser", id=former.user.uuid).status == 200

    heir = make_user(former.user.account, username=username)

    shown = Signer(heir, make_api_key(heir)).call("queryAsyncJobResult", jobid=job).body["jobresult"]
    assert "password" not in shown["virtualmachine"]
