"""For each model that a parameter can name: how to make one for an account, and who must see it.

Who sees it is written here a second time on purpose: the policy test compares it with what the
commands do. A model without an example fails that test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Model
from django.utils import timezone

from extdhcp_site.accounts.models import Account, ApiKey, Caller, Domain, Role, User
from extdhcp_site.alerts import services as alerts
from extdhcp_site.alerts.models import Alert, Kind
from extdhcp_site.events import models as events
from extdhcp_site.jobs.models import AsyncJob
from networks.models import (
    Cluster,
    Endpoint,
    Host,
    Network,
    NetworkOffering,
    Nic,
    NicSecondaryIp,
    Pod,
    PrimaryStorage,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
    Volume,
    Zone,
)
from networks.models.infrastructure import AllocationState
from networks.models.networks import AclType
from tests.factories import (
    make_account,
    make_api_key,
    make_cluster,
    make_domain,
    make_endpoint,
    make_host,
    make_network,
    make_network_offering,
    make_service_offering,
    make_template,
    make_user,
    make_vm,
    make_zone,
)

SeenBy = Callable[[Caller, Account], bool]


def its_owners(caller: Caller, account: Account) -> bool:
    """The account itself, the admins of the domains above it, and root admins; a root admin's: those only."""
    match caller.role:
        case Role.ROOT_ADMIN:
            return True
        case Role.DOMAIN_ADMIN:
            below = account.domain.path.startswith(caller.domain_path)
            return below and account.role != Role.ROOT_ADMIN
        case _:
            return account == caller.account


def everybody(caller: Caller, account: Account) -> bool:
    return True


def root_admins(caller: Caller, account: Account) -> bool:
    return caller.role == Role.ROOT_ADMIN


def nobody(caller: Caller, account: Account) -> bool:
    return False


def its_domain(caller: Caller, account: Account) -> bool:
    """A domain itself: its own people, the admins of those above it, root admins."""
    match caller.role:
        case Role.ROOT_ADMIN:
            return True
        case Role.DOMAIN_ADMIN:
            return account.domain.path.startswith(caller.domain_path)
        case _:
            return account.domain == caller.account.domain


def domains_below(caller: Caller, account: Account) -> bool:
    """What is for a domain and those below it: their people, root admins; not the admins of a domain above."""
    return caller.role == Role.ROOT_ADMIN or caller.domain_path.startswith(account.domain.path)


def its_owners_and_domains_below(caller: Caller, account: Account) -> bool:
    return its_owners(caller, account) or domains_below(caller, account)


# Of such it does not matter for whom they were made.
OF_NOBODY = (everybody, root_admins, nobody)


def relations(own: Account) -> Iterator[tuple[str, Account]]:
    """The caller's own account, and one in every other place that matters."""
    domain = own.domain
    yield "its own", own
    yield "another account's", make_account(domain=domain)
    yield "a sub-domain's", make_account(domain=make_domain(domain))
    yield "a sibling domain's", make_account(domain=make_domain(domain.parent))
    yield "a namesake domain's", make_account(domain=make_domain(domain.parent, name=f"{domain.name}-2"))
    yield "a parent domain's", make_account(domain=domain.parent)
    yield "a root admin's", make_account(Role.ROOT_ADMIN, Domain.root())
    yield "its domain's root admin's", make_account(Role.ROOT_ADMIN, domain)
    yield "its domain admin's", make_account(Role.DOMAIN_ADMIN, domain)


@dataclass(frozen=True)
class Example:
    make: Callable[[Account], Model]
    seen_by: SeenBy = its_owners
    # One that can be deleted; most can be made for a new account and deleted.
    make_deletable: Callable[[], Model] | None = None
    # Others of the same model, which others see.
    others: tuple["Example", ...] = ()

    def cells(self, own: Account) -> Iterator[tuple[str, Account, "Example"]]:
        """Each kind of the model by each relation that an account, whose it is, may have to `own`."""
        kinds = (self, *self.others)
        matters = any(kind.seen_by not in OF_NOBODY for kind in kinds)
        related = list(relations(own)) if matters else []
        for kind in kinds:
            of_whom = [("anybody's", own)] if kind.seen_by in OF_NOBODY else related
            yield from ((relation, account, kind) for relation, account in of_whom)

    def deleted(self) -> Model:
        """What is left in memory of an object that is gone from the database."""
        row = self.make_deletable() if self.make_deletable else self.make(make_account())
        type(row).objects.filter(pk=row.pk).delete()
        return row


def _user(account: Account) -> User:
    return account.users.first() or make_user(account)


def _api_key(account: Account) -> ApiKey:
    return ApiKey.objects.get(key=make_api_key(_user(account)).api_key)


def themselves(caller: Caller, account: Account) -> bool:
    return account == caller.account


def _event(account: Account) -> events.Event:
    return events.record(events.EventType.VM_CREATE, "something happened", account=account)


def _alert(account: Account) -> Alert:
    about = events.Subject.of(account)
    alerts.raise_(alerts.Problem(Kind.HOST, about, "something is wrong", account_id=account.pk), timezone.now())
    return Alert.objects.get(subject_uuid=about.uuid)


def _job(account: Account) -> AsyncJob:
    return AsyncJob.objects.create(
        command="startVirtualMachine",
        account=account,
        user=account.users.first() or make_user(account),
        instance_type="Nothing",
        instance_uuid=account.uuid,
    )


def _key_pair(account: Account) -> SshKeyPair:
    return SshKeyPair.objects.create(
        account=account, name=f"key-of-{account.name}", public_key="ssh-ed25519 AAAA", fingerprint="aa"
    )


def _secondary_ip(account: Account) -> NicSecondaryIp:
    nic = make_vm(account).nics.get()
    return NicSecondaryIp.objects.create(nic=nic, network=nic.network, address="192.0.2.78")


def _gone(row: Model, **fields: object) -> Model:
    """Removed, but for the row that its history needs."""
    type(row).objects.filter(pk=row.pk).update(**fields)
    return row


def _removed_account() -> Account:
    return _gone(make_account(), state=Account.State.REMOVED)


def _removed_user() -> User:
    return _gone(make_user(), removed_at=timezone.now(), is_active=False)


def _removed_domain() -> Domain:
    domain = make_domain()
    return _gone(domain, path=f"removed-{domain.uuid}/")


def _empty_pod() -> Pod:
    return Pod.objects.create(zone=make_zone(), name="empty")


def _empty_cluster() -> Cluster:
    return Cluster.objects.create(pod=_empty_pod(), name="empty", hypervisor="KVM")


EXAMPLES: dict[type[Model], Example] = {
    Account: Example(lambda account: account, others=(Example(lambda account: _removed_account(), nobody),)),
    Alert: Example(_alert, root_admins),
    ApiKey: Example(_api_key),
    AsyncJob: Example(_job),
    Cluster: Example(lambda account: make_cluster(), root_admins, _empty_cluster),
    Domain: Example(
        lambda account: account.domain, its_domain, make_domain, (Example(lambda account: _removed_domain(), nobody),)
    ),
    events.Event: Example(_event),
    Endpoint: Example(lambda account: make_endpoint(), root_admins),
    Host: Example(lambda account: make_host(), root_admins),
    Network: Example(
        lambda account: make_network(account=account, acl_type=AclType.ACCOUNT),
        others=(Example(lambda account: make_network(account=account), its_owners_and_domains_below),),
    ),
    NetworkOffering: Example(
        lambda account: make_network_offering(),
        everybody,
        others=(Example(lambda account: make_network_offering(state=AllocationState.DISABLED), root_admins),),
    ),
    Nic: Example(lambda account: make_vm(account).nics.get()),
    NicSecondaryIp: Example(_secondary_ip),
    Pod: Example(lambda account: make_cluster().pod, root_admins, _empty_pod),
    PrimaryStorage: Example(lambda account: make_cluster().storage.get(), root_admins),
    ServiceOffering: Example(
        lambda account: make_service_offering(),
        everybody,
        others=(Example(lambda account: make_service_offering(removed_at=timezone.now()), nobody),),
    ),
    SshKeyPair: Example(_key_pair),
    Template: Example(
        lambda account: make_template(account, public=False),
        others=(Example(lambda account: make_template(account), everybody),),
    ),
    User: Example(_user, others=(Example(lambda account: _removed_user(), nobody),)),
    VirtualMachine: Example(lambda account: make_vm(account)),
    Volume: Example(lambda account: make_vm(account).root_volume),
    Zone: Example(
        lambda account: make_zone(),
        everybody,
        others=(
            Example(lambda account: make_zone(domain=account.domain), domains_below),
            Example(lambda account: make_zone(allocation_state=AllocationState.DISABLED), root_admins),
        ),
    ),
}

# Where a command's reference means something narrower than its model's: (command, parameter) to who may.
EXCEPTIONS: dict[tuple[str, str], SeenBy] = {
    ("getUserKeys", "id"): themselves,
    # Whom a network is for may use it; to change it is for those who answer for its owner.
    **{(command, "id"): its_owners for command in ("updateNetwork", "restartNetwork", "deleteNetwork")},
}


def expected(example: Example, command: str, parameter: str) -> SeenBy:
    """Who may name such an object in a command's parameter."""
    return example.seen_by if example.seen_by is nobody else EXCEPTIONS.get((command, parameter), example.seen_by)


# Values for required parameters that are not references, where "x" or the least number will not do.
SAMPLES: dict[tuple[str, str], dict[str, Any]] = {}

# Parameters whose names look like references and are none: ignored, refused, or of things that may be gone.
NOT_REFERENCES = {
    *("projectid", "startid", "resourceid", "ostypeid", "diskofferingid", "userdataid", "vpcid", "aclid"),
    *("securitygroupids", "affinitygroupids"),
}

# Lists of constants, which belong to nobody: (command, parameter).
OF_CONSTANTS = {("listOsTypes", "id"), ("listOsTypes", "oscategoryid"), ("listOsCategories", "id")}
