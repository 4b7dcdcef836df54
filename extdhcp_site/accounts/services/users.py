"""Users: people, or programs, that log in or sign requests for an account."""

from dataclasses import dataclass
from datetime import datetime

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts import second_factor
from extdhcp_site.accounts.models import Account, ApiKey, Caller, User
from extdhcp_site.accounts.services.removal import refuse_if_removed, retired_name
from extdhcp_site.api import throttling
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken


@dataclass(frozen=True)
class NewUser:
    username: str
    password: str
    first_name: str
    last_name: str
    email: str


@dataclass(frozen=True)
class Changes:
    """What to change of a user; None stays as it is. `current_password` is asked of whoever changes their own."""

    username: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    email: str | None = None
    password: str | None = None
    current_password: str | None = None

    def columns(self) -> dict[str, str]:
        wanted = {name: getattr(self, name) for name in ("username", "first_name", "last_name", "email")}
        return {name: value for name, value in wanted.items() if value is not None}


def create(account: Account, new: NewUser, by: Caller) -> User:
    """Raises InvalidParameter for a name that is taken and a password that is too easy to guess."""
    user = User(
        account=account,
        username=new.username,
        first_name=new.first_name,
        last_name=new.last_name,
        email=new.email,
    )
    _set_password(user, new.password)
    _check(user)
    with transaction.atomic():
        with unless_taken(_taken()):
            user.save()
        refuse_if_removed(account)
        events.record(EventType.USER_CREATE, f"User {user} created", account=account, on=user, by=by)
    return user


def update(user: User, changes: Changes, by: Caller) -> User:
    """Raises InvalidParameter. Changing a password ends the user's sessions; their API keys stay."""
    columns = changes.columns()
    for name, value in columns.items():
        setattr(user, name, value)
    if changes.password is not None:
        if user.pk == by.user.pk:
            _ask_current_password(user, changes.current_password)
        _set_password(user, changes.password)
        columns["password"] = user.password
    _check(user)
    if columns:
        with transaction.atomic():
            with unless_taken(_taken()):
                User.objects.filter(pk=user.pk).update(**columns)
            refuse_if_removed(user)
            what = ", ".join(sorted(name.replace("_", " ") for name in columns))
            events.record(EventType.USER_UPDATE, f"User {user}: {what} changed", account=user.account, on=user, by=by)
    return user


def record(type: EventType, what: str, user: User, by: Caller) -> None:
    events.record(type, f"User {user} {what}", account=user.account, on=user, by=by)


def _ask_current_password(user: User, given: str | None) -> None:
    """Whoever has found a session or a key must not take the whole user over with it."""
    if not knows_password(user, given or ""):
        raise InvalidParameter("To change your own password, give the one you have in currentpassword.")


def knows_password(user: User, given: str) -> bool:
    """Whether `given` is the user's password, which nobody may guess. Raises TooManyRequests."""
    # Each user apart, wherever they ask from.
    guess = ("current password", f"user {user.pk}")
    throttling.log_ins.spend(*guess)
    if not user.check_password(given):
        return False
    throttling.log_ins.give_back(*guess)
    return True


def _set_password(user: User, password: str) -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        raise InvalidParameter(" ".join(error.messages)) from None
    user.set_password(password)


def _check(user: User) -> None:
    try:
        user.full_clean(exclude=["account"])
    except ValidationError as error:
        raise InvalidParameter(
            " ".join(f"{name}: {' '.join(texts)}" for name, texts in error.message_dict.items())
        ) from None


def _taken() -> InvalidParameter:
    return InvalidParameter("username: A user with that username already exists.")


def disable(user: User, by: Caller) -> AsyncJob:
    """Submit the job."""
    if user.pk == by.user.pk:
        raise InvalidParameter("You cannot disable yourself.")
    with transaction.atomic():
        return jobs.submit("disableUser", user, account=user.account, by=by)


@jobs.handler("disableUser", EventType.USER_DISABLE)
def _disable(job: AsyncJob) -> None:
    User.objects.filter(uuid=job.instance_uuid).update(is_active=False)


def enable(user: User, by: Caller) -> User:
    with transaction.atomic():
        User.objects.filter(pk=user.pk).update(is_active=True)
        refuse_if_removed(user)
        events.record(EventType.USER_ENABLE, f"User {user} enabled", account=user.account, on=user, by=by)
    user.is_active = True
    return user


def delete(user: User, by: Caller) -> None:
    """Raises InvalidParameter for oneself."""
    if user.pk == by.user.pk:
        raise InvalidParameter("You cannot delete yourself.")
    with transaction.atomic():
        events.record(EventType.USER_DELETE, f"User {user} deleted", account=user.account, on=user, by=by)
        remove(user, timezone.now())


def remove_second_factor(user: User, by: Caller) -> User:
    """For somebody who has lost it: the password alone lets them in again. Raises InvalidParameter for oneself."""
    if user.pk == by.user.pk:
        raise InvalidParameter("Remove your own on your account page, which asks for your password or a code first.")
    with transaction.atomic():
        if not second_factor.forget(user):
            raise InvalidParameter(f"{user} has no second factor.")
        text = f"User {user}: second factor removed"
        events.record(EventType.USER_UPDATE, text, account=user.account, on=user, by=by)
    return user


def remove(user: User, now: datetime) -> None:
    """Take all that lets the user in, and the name: inside the caller's transaction."""
    second_factor.forget(user)
    ApiKey.objects.filter(user=user).delete()
    user.groups.clear()
    user.user_permissions.clear()
    user.set_unusable_password()
    User.objects.filter(pk=user.pk).update(
        username=retired_name(user.username),
        password=user.password,
        is_active=False,
        is_staff=False,
        is_superuser=False,
        removed_at=now,
    )
