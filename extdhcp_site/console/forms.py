"""The console's own forms."""

from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError

from extdhcp_site.accounts.models import User
from extdhcp_site.console.access import may_enter


class LoginForm(AuthenticationForm):
    def confirm_login_allowed(self, user: User) -> None:
        super().confirm_login_allowed(user)
        if not may_enter(user):
            raise ValidationError("Your account is disabled. Ask your administrator.")
