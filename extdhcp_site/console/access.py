"""Who may open which part of the console."""

from django.contrib.auth.models import AnonymousUser

from extdhcp_site.accounts.models import Role, User


def may_administer(user: User | AnonymousUser) -> bool:
    """Staff of a root admin's account. What they may do there, model permissions say."""
    return user.is_staff and user.account.role == Role.ROOT_ADMIN
