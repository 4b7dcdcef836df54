"""The second factor: codes of an authenticator app (RFC 6238), and recovery codes for who has lost it."""

import time
from datetime import UTC, datetime

from allauth.mfa.adapter import get_adapter
from allauth.mfa.base import forms as base
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.forms import ActivateTOTPForm
from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef, Q

from extdhcp_site.accounts.models import Caller, User
from extdhcp_site.api import throttling
from extdhcp_site.encryption import Sealed, is_current_at, seal_for, unseal_from
from extdhcp_site.errors import TooManyRequests
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType

# What allauth's secrets are sealed for: it says nothing of their row.
PLACE = "mfa_authenticator.data"
# Under which name the data of which kind have it.
SECRETS = {Authenticator.Type.TOTP: "secret", Authenticator.Type.RECOVERY_CODES: "seed"}
# Seconds for which an app shows one code.
STEP = 30

_CHANGES = {
    "mfa/email/totp_activated": "second factor set up",
    "mfa/email/totp_deactivated": "second factor removed",
    "mfa/email/recovery_codes_generated": "recovery codes made anew",
}


def is_set_up(user: User) -> bool:
    return Authenticator.objects.filter(user=user, type=Authenticator.Type.TOTP).exists()


def of(user_id: OuterRef) -> Exists:
    """Whether there is one, for queries of users."""
    return Exists(Authenticator.objects.filter(user=user_id, type=Authenticator.Type.TOTP))


def unused_recovery_codes(user: User) -> int:
    found = Authenticator.objects.filter(user=user, type=Authenticator.Type.RECOVERY_CODES).first()
    return len(found.wrap().get_unused_codes()) if found else 0


def forget(user: User) -> int:
    """How many there were: the app, the recovery codes."""
    return Authenticator.objects.filter(user=user).delete()[0]


def sealed(secret: str) -> str:
    return str(seal_for(PLACE, secret))


def unsealed(secret: str) -> str:
    return unseal_from(PLACE, Sealed(secret))


def is_current(row: Authenticator) -> bool:
    """Whether the first key of FIELD_ENCRYPTION_KEYS sealed its secret."""
    return is_current_at(PLACE, Sealed(row.data[SECRETS[row.type]]))


def sealed_anew(row: Authenticator) -> dict[str, object]:
    """Its data with the secret sealed by the first key. Raises CannotUnseal."""
    name = SECRETS[row.type]
    return {**row.data, name: sealed(unsealed(row.data[name]))}


def record_change(mail: str, user: User) -> None:
    """`mail`: which one allauth would write."""
    text = f"User {user}: {_CHANGES[mail]}"
    events.record(EventType.USER_UPDATE, text, account=user.account, on=user, by=Caller.of(user))


class _Guessed:
    """A form with a code: of a million, so whoever is wrong too often is not even asked, wherever they are."""

    user: User

    def clean_code(self) -> str:
        guess = ("second factor", f"user {self.user.pk}")
        try:
            throttling.log_ins.spend(*guess)
        except TooManyRequests as refusal:
            raise ValidationError(refusal.text) from None
        code: str = super().clean_code()  # type: ignore[misc]
        self.use()
        throttling.log_ins.give_back(*guess)
        return code

    def use(self) -> None:
        """Raises ValidationError for a code that was used before."""


class _Once(_Guessed):
    authenticator: Authenticator

    def use(self) -> None:
        """allauth remembers used codes by process; the row knows for all of them (RFC 6238, 5.2)."""
        if self.authenticator.type != Authenticator.Type.TOTP:
            return
        now = time.time()
        step = datetime.fromtimestamp(now // STEP * STEP, UTC)
        unused = Q(last_used_at=None) | Q(last_used_at__lt=step)
        mine = Authenticator.objects.filter(unused, pk=self.authenticator.pk)
        if not mine.update(last_used_at=datetime.fromtimestamp(now, UTC)):
            raise get_adapter().validation_error("incorrect_code")


class CodeForm(_Once, base.AuthenticateForm):
    """At log-in."""


class ConfirmForm(_Once, base.ReauthenticateForm):
    """Before something about the second factor changes."""


class SetUpForm(_Guessed, ActivateTOTPForm):
    """The first code, which shows that the app has the secret."""
