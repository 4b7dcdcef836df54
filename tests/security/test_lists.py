"""Every list by every role, with every combination of owners that can be asked for: who sees what, and no more.

Who may see what is written in tests/api/examples.py; a new list is in this matrix, or fails it, as soon as it is
registered.
"""

import itertools
from collections.abc import Iterator

import pytest
from django.db.models import Model

from extdhcp_site.accounts.models import Account, ApiKey, Domain, User
from extdhcp_site.alerts.models import Alert
from extdhcp_site.api import registry
from extdhcp_site.api.registry import ListCommand
from extdhcp_site.events.models import Event
from extdhcp_site.jobs.models import AsyncJob
from networks.api.empty import EmptyList
from networks.models import (
    Cluster,
    Endpoint,
    Host,
    Network,
    NetworkOffering,
    Pod,
    PrimaryStorage,
    ResourceTag,
    ServiceOffering,
    SshKeyPair,
    Template,
    VirtualMachine,
    Volume,
    Zone,
)
from tests import factories
from tests.api.client import Signer
from tests.api.examples import EXAMPLES, Example
from tests.factories import make_account, make_domain, make_vm

pytestmark = pytest.mark.django_db


def _tag(account: Account) -> ResourceTag:
    return ResourceTag.objects.create(vm=make_vm(account), key="role", value="web")


# What each list shows, and by which field of an answer its rows are known.
SHOWS: dict[str, tuple[type[Model], str]] = {
    "listAccounts": (Account, "id"),
    "listAlerts": (Alert, "id"),
    "listApiKeys": (ApiKey, "id"),
    "listAsyncJobs": (AsyncJob, "jobid"),
    "listClusters": (Cluster, "id"),
    "listDomains": (Domain, "id"),
    "listEndpoints": (Endpoint, "id"),
    "listEvents": (Event, "id"),
    "listHosts": (Host, "id"),
    "listNetworkOfferings": (NetworkOffering, "id"),
    "listNetworks": (Network, "id"),
    "listPods": (Pod, "id"),
    "listSSHKeyPairs": (SshKeyPair, "id"),
    "listServiceOfferings": (ServiceOffering, "id"),
    "listStoragePools": (PrimaryStorage, "id"),
    "listTags": (ResourceTag, "resourceid"),
    "listTemplates": (Template, "id"),
    "listUsers": (User, "id"),
    "listVirtualMachines": (VirtualMachine, "id"),
    "listVolumes": (Volume, "id"),
    "listZones": (Zone, "id"),
}
# Of constants, which are everybody's; what there are clusters of; of one object, which test_policy.py looks at.
OTHERS = {
    "listAlertTypes",
    "listEventTypes",
    "listOsTypes",
    "listOsCategories",
    "listHypervisors",
    "listConfigurations",
    "listNics",
}
# Not the domain itself.
OTHERS |= {"listDomainChildren"}
_FILTERS = {"listTemplates": [{"templatefilter": word} for word in ("self", "executable", "community", "all")]}
KINDS = {**EXAMPLES, ResourceTag: Example(_tag)}


@pytest.fixture(autouse=True)
def numbers_from_one(monkeypatch):
    """So many networks are made that the factories would run out of VLANs."""
    monkeypatch.setattr(factories, "_numbers", itertools.count(1))


def lists() -> Iterator[type[ListCommand]]:
    for command in registry.commands():
        if issubclass(command, ListCommand) and not issubclass(command, EmptyList):
            yield command


def test_each_list_is_in_this_matrix():
    assert {command.name for command in lists()} == SHOWS.keys() | OTHERS


def asked(own: Account, accounts: list[Account]) -> Iterator[dict[str, object]]:
    """Owners as clients name them, by a list that is short and one that reaches as far as it can."""
    owners: list[dict[str, object]] = [{}]
    owners += [{"domainid": uuid} for uuid in {account.domain.uuid for account in accounts}]
    owners += [{"account": account.name} for account in accounts if account.domain == own.domain]
    owners += [{"account": account.name, "domainid": account.domain.uuid} for account in accounts]
    # That account, in a domain where it is not.
    owners += [{"account": accounts[-1].name, "domainid": Domain.root().uuid}]
    for owner in owners:
        yield owner
        yield {**owner, "listall": "true", "isrecursive": "true"}


@pytest.mark.parametrize(
    ("name", "role"), [(name, role) for name in SHOWS for role in sorted(registry.find(name).roles)]
)
def test_no_combination_shows_more_than_policy_allows(name, role):
    """CVE-2013-4317 (listProjectAccounts), CVE-2014-0031 (listNetworkACL), CVE-2024-42222 (listNetworks),
    CVE-2025-30675 (templates by `self`), CVE-2025-59454 (ACLs, usage), CVE-2025-66170 (backups), CVE-2026-66721
    (host tags), CVE-2026-59780 (LDAP): lists of Apache CloudStack showed rows of other accounts and domains; here
    every list by every combination of owners shows what policy allows, and all of it to who asks for all.
    """
    command = registry.find(name)
    model, known_by = SHOWS[name]
    caller = Signer.of(make_account(role, make_domain(make_domain())))
    allowed, forbidden, accounts = set(), set(), []
    for _, account, kind in KINDS[model].cells(caller.caller.account):
        row = kind.make(account)
        uuid = str(row.resource.uuid if isinstance(row, ResourceTag) else row.uuid)
        (allowed if kind.seen_by(caller.caller, account) else forbidden).add(uuid)
        if kind is KINDS[model]:
            accounts.append(account)
    forbidden -= allowed

    def shown(**params: object) -> set[str]:
        reply = caller.call(name, **params)
        assert reply.status in (200, 431), (params, reply)
        return {row[known_by] for row in reply.body.get(command.word(), [])}

    for params in asked(caller.caller.account, accounts):
        for word in _FILTERS.get(name, [{}]):
            assert not shown(**params, **word) & forbidden, {**params, **word}
    assert not shown(listall="true", keyword="a") & forbidden
    everything = {"listall": "true", "isrecursive": "true", "projectid": "-1"}
    assert shown(**everything) >= allowed
