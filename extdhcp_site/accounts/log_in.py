"""Whether a user name and password are right: the one way in by password, for the API and the console."""

from collections.abc import Callable

from django.contrib import auth
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from extdhcp_site.accounts.models import User
from extdhcp_site.api import throttling
from extdhcp_site.errors import TooManyRequests


def verified(
    request: HttpRequest, username: str, password: str, is_meant: Callable[[User], bool] = lambda user: True
) -> User | None:
    """The user, if all is right; the same work and the same answer for whatever is wrong.

    `is_meant` looks at what else was asked for. Raises TooManyRequests after too many wrong ones.
    """
    who = User.normalize_username(username).casefold()
    peer = throttling.peer_of(request)
    throttling.log_ins.spend(who, peer)
    user = auth.authenticate(request, username=username, password=password)
    if not isinstance(user, User) or not is_meant(user):
        return None
    throttling.log_ins.give_back(who, peer)
    return user


class LogInForm(AuthenticationForm):
    """The console's."""

    def clean(self) -> dict[str, str]:
        username, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if username and password:
            try:
                self.user_cache = verified(self.request, username, password)
            except TooManyRequests as refusal:
                raise ValidationError(refusal.text) from None
            if self.user_cache is None:
                raise self.get_invalid_login_error()
        return self.cleaned_data
