"""Settings that an administrator changes while the server runs; read anew at each use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID, uuid5

from django.db import models, transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.encryption import EncryptedTextField
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events
from extdhcp_site.events.models import EventType, Subject
from extdhcp_site.models import UuidModel

T = TypeVar("T")


class Setting(models.Model):
    """A value that differs from its definition's default."""

    name = models.CharField(max_length=100, unique=True)
    value = models.CharField(max_length=4096, blank=True)
    changed_at = models.DateTimeField(default=timezone.now)
    changed_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class SecretSetting(UuidModel):
    """A setting's value that nobody is shown again."""

    name = models.CharField(max_length=100, unique=True)
    value = EncryptedTextField(editable=False)
    changed_at = models.DateTimeField(default=timezone.now)
    changed_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


def positive(text: str) -> int:
    """Raises ValueError with a text for the person who typed it."""
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:10]) <= 2_147_483_647 and len(text) <= 10):
        raise ValueError("must be a whole number above 0")
    return int(text)


def positive_or_zero(text: str) -> int:
    """Raises ValueError with a text for the person who typed it."""
    try:
        return 0 if text == "0" else positive(text)
    except ValueError:
        raise ValueError("must be a whole number, 0 or above") from None


def switch(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError("must be true or false")
    return text.lower() == "true"


@dataclass(frozen=True)
class Definition(Generic[T]):
    """One setting: its name is what users type; `parse` raises ValueError for a bad value.

    `group` is under what people look for it, `unit` what a number counts. A `secret` one is stored sealed, and its
    value leaves this server only to where it is needed.
    """

    name: str
    default: str
    parse: Callable[[str], T]
    help: str
    category: str = "Advanced"
    group: str = "Server"
    unit: str = ""
    secret: bool = False

    def get(self) -> T:
        if self.secret:
            sealed = SecretSetting.objects.filter(name=self.name).first()
            return self.parse(sealed.value if sealed else self.default)
        stored = Setting.objects.filter(name=self.name).values_list("value", flat=True).first()
        return self.parse(self.default if stored is None else stored)

    @property
    def subject(self) -> Subject:
        """What events about it are about: a setting has no row until it is changed."""
        return Subject("Configuration", uuid5(_SETTINGS, self.name), self.name)


# Only a name for names to be in.
_SETTINGS = UUID("6c8b1d52-6a3e-4d43-9b7e-0f6b5a5f1f1e")
_definitions: dict[str, Definition] = {}


def values_of(*definitions: Definition) -> list:
    """The values of several settings, none of them secret, in their order, by one query."""
    stored = dict(Setting.objects.filter(name__in=[each.name for each in definitions]).values_list("name", "value"))
    return [each.parse(stored.get(each.name, each.default)) for each in definitions]


def define(
    name: str,
    default: str,
    parse: Callable[[str], T],
    help: str,
    category: str = "Advanced",
    *,
    group: str = "Server",
    unit: str = "",
    secret: bool = False,
) -> Definition[T]:
    """Declare a setting, at import; its owner keeps the result and calls `.get()` on it."""
    definition = Definition(name, default, parse, help, category, group, unit, secret)
    definition.parse(default)
    _definitions[name] = definition
    return definition


def definitions() -> list[Definition]:
    return sorted(_definitions.values(), key=lambda definition: definition.name)


def set_value(name: str, value: str, by: Caller) -> Definition:
    """Change a setting and record who did. Raises InvalidParameter."""
    definition = _known(name)
    value = value.strip()
    try:
        definition.parse(value)
    except ValueError as error:
        raise InvalidParameter(f"{name}: {str(error).rstrip('.')}.") from None
    changed = {"value": value, "changed_at": timezone.now(), "changed_by": by.user.username}
    with transaction.atomic():
        previous = _stored(definition)
        _table(definition).update_or_create(name=name, defaults=changed)
        what = "a new value, which is secret" if definition.secret else f"{_spelt(previous)} to {_spelt(value)}"
        _record(definition, what, by)
    return definition


def reset_value(name: str, by: Caller) -> Definition:
    """Give a setting its default again, and record who did. Raises InvalidParameter."""
    definition = _known(name)
    with transaction.atomic():
        previous = _stored(definition)
        if _table(definition).filter(name=name).delete()[0]:
            default = f"{_spelt(definition.default)}, the default"
            _record(definition, default if definition.secret else f"{_spelt(previous)} to {default}", by)
    return definition


def _known(name: str) -> Definition:
    definition = _definitions.get(name)
    if definition is None:
        raise InvalidParameter(f"There is no setting named {name[:100]}. listConfigurations shows all names.")
    return definition


def _table(definition: Definition) -> models.Manager:
    return SecretSetting.objects if definition.secret else Setting.objects


def _stored(definition: Definition) -> str:
    """What it is now; of a secret one, nothing."""
    stored = Setting.objects.filter(name=definition.name).values_list("value", flat=True).first()
    return definition.default if stored is None else stored


def _spelt(value: str) -> str:
    return value or "nothing"


def _record(definition: Definition, what: str, by: Caller) -> None:
    text = f"{definition.name}: {what}"
    events.record(EventType.CONFIGURATION_EDIT, text, account=by.account, on=definition.subject, by=by)


PAGE_SIZE = define(
    "default.page.size", "500", positive, "Rows in a page of a list, and the most one may ask for.", unit="rows"
)
JOB_EXPIRE_MINUTES = define(
    "job.expire.minutes", "1440", positive, "Minutes after which an ended job is forgotten.", unit="minutes"
)
