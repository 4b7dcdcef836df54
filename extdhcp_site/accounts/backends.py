"""Who may log in, and stay logged in."""

from django.contrib.auth.backends import ModelBackend

from extdhcp_site.accounts.models import Account, User


class AccountBackend(ModelBackend):
    """Users of enabled accounts: asked at log-in and again at each request of a session."""

    def user_can_authenticate(self, user: User) -> bool:
        return super().user_can_authenticate(user) and user.account.state == Account.State.ENABLED
