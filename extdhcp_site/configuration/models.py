"""Settings that an administrator changes while the server runs; read anew at each use."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from django.db import models, transaction
from django.utils import timezone

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events import models as events

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
    """One setting: its name is what users type; `parse` raises ValueError for a bad value."""

    name: str
    default: str
    parse: Callable[[str], T]
    help: str
    category: str = "Advanced"

    def get(self) -> T:
        stored = Setting.objects.filter(name=self.name).values_list("value", flat=True).first()
        return self.parse(self.default if stored is None else stored)


_definitions: dict[str, Definition] = {}


def values_of(*definitions: Definition) -> list:
    """The values of several settings, in their order, by one query."""
    stored = dict(Setting.objects.filter(name__in=[each.name for each in definitions]).values_list("name", "value"))
    return [each.parse(stored.get(each.name, each.default)) for each in definitions]


def define(name: str, default: str, parse: Callable[[str], T], help: str, category: str = "Advanced") -> Definition[T]:
    """Declare a setting, at import; its owner keeps the result and calls `.get()` on it."""
    definition = Definition(name, default, parse, help, category)
    definition.parse(default)
    _definitions[name] = definition
    return definition


def definitions() -> list[Definition]:
    return sorted(_definitions.values(), key=lambda definition: definition.name)


def set_value(name: str, value: str, by: Caller) -> Definition:
    """Change a setting and record who did. Raises InvalidParameter."""
    definition = _definitions.get(name)
    if definition is None:
        raise InvalidParameter(f"There is no setting named {name[:100]}. listConfigurations shows all names.")
    value = value.strip()
    try:
        definition.parse(value)
    except ValueError as error:
        raise InvalidParameter(f"{name}: {str(error).rstrip('.')}.") from None
    with transaction.atomic():
        previous = Setting.objects.filter(name=name).values_list("value", flat=True).first() or definition.default
        Setting.objects.update_or_create(
            name=name, defaults={"value": value, "changed_at": timezone.now(), "changed_by": by.user.username}
        )
        events.record(
            events.EventType.CONFIGURATION_EDIT,
            f"{name}: {previous} to {value}",
            account=by.account,
            by=by,
        )
    return definition


PAGE_SIZE = define("default.page.size", "500", positive, "Rows in a page of a list, and the most one may ask for.")
JOB_EXPIRE_MINUTES = define("job.expire.minutes", "1440", positive, "Minutes after which an ended job is forgotten.")
