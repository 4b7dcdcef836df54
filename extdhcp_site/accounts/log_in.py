"""Whether a user name and password are right: the one way in by password, for the API and the console."""

from collections.abc import Callable

from allauth.account.utils import perform_login
from django.contrib import auth
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse

from extdhcp_site.accounts.models import Caller, User
from extdhcp_site.api import throttling
from extdhcp_site.errors import TooManyRequests
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType


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


def record(type: EventType, what: str, request: HttpRequest, user: User) -> None:
    """The event of a log-in or log-out, with where it came from."""
    text = f"{user} {what} from {throttling.peer_of(request) or 'this machine'}"
    events.record(type, text, account=user.account, on=user, by=Caller.of(user))


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

    def login(self, request: HttpRequest, redirect_url: str | None = None) -> HttpResponse:
        """Begin the session, or ask for the second factor first."""
        # Never in the session whose cookie came along, which somebody else may have put there.
        auth.logout(request)
        return perform_login(request, self.user_cache, redirect_url=redirect_url)
