"""A user's API keys: one pair at a time is in use."""

from django.db import transaction
from django.utils import timezone

from extdhcp_site.accounts.models import ApiKey, Caller, NewApiKey, User, create_api_key
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType


def register(user: User, by: Caller) -> NewApiKey:
    """A new pair; those that the user had let nobody in any more. Raises InvalidParameter for a disabled user."""
    with transaction.atomic():
        # One at a time: else two that come together would both leave theirs in use.
        if not User.objects.select_for_update().filter(pk=user.pk, is_active=True).exists():
            raise InvalidParameter(f"{user} is disabled. Enable the user first.")
        ApiKey.objects.filter(user=user, disabled_at=None).update(disabled_at=timezone.now())
        new = create_api_key(user)
        text = f"API key {new.api_key[:8]}… made for {user}; those before it are disabled"
        events.record(EventType.API_KEY_CREATE, text, account=user.account, on=user, by=by)
    return new


def disable(key: ApiKey, by: Caller) -> ApiKey:
    with transaction.atomic():
        if ApiKey.objects.filter(pk=key.pk, disabled_at=None).update(disabled_at=timezone.now()):
            user = key.user
            events.record(EventType.API_KEY_DISABLE, f"{key} disabled", account=user.account, on=user, by=by)
    key.refresh_from_db(fields=["disabled_at"])
    return key


def in_use(user: User) -> ApiKey | None:
    """The newest of the user's keys that let somebody in."""
    return ApiKey.objects.usable().filter(user=user).first()
