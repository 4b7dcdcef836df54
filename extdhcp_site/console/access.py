"""Who may open which part of the console."""

from django.contrib.auth.models import AnonymousUser

from extdhcp_site.accounts.models import Account, Role, User


def may_enter(user: User | AnonymousUser) -> bool:
    """Anybody who logged in and whose account is not disabled."""
    return user.is_authenticated and user.is_active and user.account.state == Account.State.ENABLED


def may_administer(user: User | AnonymousUser) -> bool:
    """Staff of a root admin's account. What they may do there, model permissions say."""
    return may_enter(user) and user.is_staff and user.account.role == Role.ROOT_ADMIN
