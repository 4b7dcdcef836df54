"""Accounts: made with their first user, shut and opened, and removed once they own nothing."""

from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Account, Caller, Domain, Role, User
from extdhcp_site.accounts.services import users
from extdhcp_site.accounts.services.removal import belongings, refuse_if_removed, retired_name
from extdhcp_site.errors import InvalidParameter, PermissionDenied, ResourceInUse
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken


@dataclass(frozen=True)
class NewAccount:
    name: str
    domain: Domain
    role: Role


def create(new: NewAccount, first_user: users.NewUser, by: Caller) -> Account:
    """Raises PermissionDenied for more power than the caller's own, InvalidParameter for what is taken or malformed."""
    with transaction.atomic():
        account = create_empty(new, by)
        users.create(account, first_user, by)
    return account


def create_empty(new: NewAccount, by: Caller) -> Account:
    """One that nobody logs in to yet. Raises as `create` does."""
    if new.role == Role.ROOT_ADMIN and not by.is_root:
        raise PermissionDenied("Only a root admin makes root admins.")
    name = _checked_name(new.name, new.domain)
    account = Account(name=name, domain=new.domain, role=new.role)
    with transaction.atomic():
        with unless_taken(_taken(new.domain)):
            account.save()
        refuse_if_removed(new.domain)
        events.record(EventType.ACCOUNT_CREATE, f"Account {account} created", account=account, on=account, by=by)
    return account


def rename(account: Account, name: str, by: Caller) -> Account:
    """Raises InvalidParameter for a name that is taken."""
    before, name = account.name, _checked_name(name, account.domain, but=account)
    if name != before:
        with transaction.atomic():
            with unless_taken(_taken(account.domain)):
                Account.objects.filter(pk=account.pk).update(name=name)
            refuse_if_removed(account)
            account.name = name
            text = f"Account {before} renamed to {name}"
            events.record(EventType.ACCOUNT_UPDATE, text, account=account, on=account, by=by)
    return account


def change_role(account: Account, role: Role, by: Caller) -> None:
    """It ends the sessions of the account's users. Raises InvalidParameter for the caller's own account."""
    if account.pk == by.account.pk:
        raise InvalidParameter("You cannot change the role of your own account.")
    with transaction.atomic():
        Account.objects.live().filter(pk=account.pk).update(role=role)
        text = f"Account {account} is now {role.label}"
        events.record(EventType.ACCOUNT_UPDATE, text, account=account, on=account, by=by)


def _checked_name(name: str, domain: Domain, but: Account | None = None) -> str:
    name = name.strip()
    if not name:
        raise InvalidParameter("An account needs a name.")
    # Also in other letters: some databases compare without regard to case, and one would be taken for the other.
    if Account.objects.filter(domain=domain, name__iexact=name).exclude(pk=but and but.pk).exists():
        raise _taken(domain)
    return name


def _taken(domain: Domain) -> InvalidParameter:
    return InvalidParameter(f"{domain} has an account of this name already.")


def disable(account: Account, lock: bool, by: Caller) -> AsyncJob:
    """Submit the job. Raises InvalidParameter for the caller's own account."""
    if account.pk == by.account.pk:
        raise InvalidParameter("You cannot disable your own account.")
    with transaction.atomic():
        return jobs.submit("disableAccount", account, account=account, by=by, lock=lock)


@jobs.handler("disableAccount", EventType.ACCOUNT_DISABLE)
def _disable(job: AsyncJob) -> None:
    state = Account.State.LOCKED if job.arguments["lock"] else Account.State.DISABLED
    Account.objects.live().filter(uuid=job.instance_uuid).update(state=state)


def enable(account: Account, by: Caller) -> Account:
    with transaction.atomic():
        Account.objects.live().filter(pk=account.pk).update(state=Account.State.ENABLED)
        refuse_if_removed(account)
        events.record(EventType.ACCOUNT_ENABLE, f"Account {account} enabled", account=account, on=account, by=by)
    account.state = Account.State.ENABLED
    return account


def delete(account: Account, by: Caller) -> AsyncJob:
    """Submit the job. Raises ResourceInUse while the account owns something."""
    if account.pk == by.account.pk:
        raise InvalidParameter("You cannot delete your own account.")
    _refuse_if_owning(account)
    with transaction.atomic():
        return jobs.submit("deleteAccount", account, account=account, by=by)


@jobs.handler("deleteAccount", EventType.ACCOUNT_DELETE)
def _delete(job: AsyncJob) -> None:
    with transaction.atomic():
        account = Account.objects.select_for_update().live().filter(uuid=job.instance_uuid).first()
        if account is None:
            return
        _refuse_if_owning(account)
        now = timezone.now()
        for user in User.objects.live().filter(account=account):
            users.remove(user, now)
        Account.objects.filter(pk=account.pk).update(state=Account.State.REMOVED, name=retired_name(account.name))


def _refuse_if_owning(account: Account) -> None:
    if owned := belongings(account, besides=(User,)):
        raise ResourceInUse(
            f"Account {account.name} still owns {owned}. Delete these first; "
            "a destroyed VM counts until it is expunged."
        )
