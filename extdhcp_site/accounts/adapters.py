"""What allauth asks this product: who may log in, how it is told, and how its secrets are kept."""

import io
from typing import Any

import qrcode
from allauth.account.adapter import DefaultAccountAdapter
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.mfa.adapter import DefaultMFAAdapter
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.shortcuts import redirect
from django.utils.http import url_has_allowed_host_and_scheme
from qrcode.image.svg import SvgPathFillImage

from extdhcp_site.accounts import log_in, second_factor
from extdhcp_site.accounts.backends import AccountBackend
from extdhcp_site.accounts.models import User
from extdhcp_site.accounts.services import users
from extdhcp_site.api import throttling
from extdhcp_site.errors import TooManyRequests
from extdhcp_site.events.models import EventType

# Longer ones are not gone to after a log-in.
LONGEST_NEXT = 2000
# Said by the page that comes next.
_NEEDLESS = frozenset(
    {
        "account/messages/logged_in.txt",
        "account/messages/logged_out.txt",
        "mfa/messages/recovery_codes_generated.txt",
    }
)


class AccountAdapter(DefaultAccountAdapter):
    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def is_safe_url(self, url: str | None) -> bool:
        """A path of this server: no other site, and nothing that a browser might take for one."""
        return bool(
            url
            and len(url) <= LONGEST_NEXT
            and url.startswith("/")
            and url.isprintable()
            and url_has_allowed_host_and_scheme(url, allowed_hosts=None)
        )

    def login(self, request: HttpRequest, user: User) -> None:
        # Asked again: the password may have been given a while before the code.
        if not AccountBackend().user_can_authenticate(user):
            raise ImmediateHttpResponse(redirect("login"))
        super().login(request, user)
        log_in.record(EventType.USER_LOGIN, "logged in", request, user)

    def logout(self, request: HttpRequest) -> None:
        user = request.user
        super().logout(request)
        log_in.record(EventType.USER_LOGOUT, "logged out", request, user)

    def reauthenticate(self, user: User, password: str) -> bool:
        try:
            return users.knows_password(user, password)
        except TooManyRequests as refusal:
            raise ValidationError(refusal.text) from None

    def add_message(self, request: HttpRequest, level: int, message_template: str | None = None, *args, **kwargs):
        if message_template not in _NEEDLESS:
            super().add_message(request, level, message_template, *args, **kwargs)

    def send_notification_mail(self, template_prefix: str, user: User, *args: Any, **kwargs: Any) -> None:
        """An event in place of the mail that allauth would write about a changed second factor."""
        second_factor.record_change(template_prefix, user)

    def get_client_ip(self, request: HttpRequest) -> str:
        return throttling.peer_of(request)


class SecondFactorAdapter(DefaultMFAAdapter):
    def get_totp_label(self, user: User) -> str:
        return user.username

    def build_totp_svg(self, url: str) -> str:
        """On white, whatever the page's colour: apps read dark on light alone."""
        picture = io.BytesIO()
        qrcode.make(url, image_factory=SvgPathFillImage).save(picture)
        return picture.getvalue().decode()

    def encrypt(self, text: str) -> str:
        return second_factor.sealed(text)

    def decrypt(self, encrypted_text: str) -> str:
        return second_factor.unsealed(encrypted_text)
