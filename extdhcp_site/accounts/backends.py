"""Who may log in, and stay logged in."""

from django.contrib.auth.backends import ModelBackend

from extdhcp_site.accounts.models import Account, User


class AccountBackend(ModelBackend):
    """Users of enabled accounts: asked at log-in and again at each request of a session."""

    def user_can_authenticate(self, user: User) -> bool:
        return super().user_can_authenticate(user) and user.account.state == Account.State.ENABLED

    def get_user(self, user_id: int) -> User | None:
        """One query for all that a request's caller is made of."""
        user = User.objects.select_related("account__domain").filter(pk=user_id).first()
        return user if user and self.user_can_authenticate(user) else None
