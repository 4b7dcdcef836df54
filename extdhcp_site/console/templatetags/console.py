"""Times as people say them."""

from datetime import datetime, timedelta

from django import template
from django.utils import timezone

register = template.Library()

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@register.filter
def in_words(duration: timedelta) -> str:
    """The two largest units: 42 s, 3 min 5 s, 2 d 4 h. Below zero is 0 s."""
    rest = max(int(duration.total_seconds()), 0)
    parts = []
    for seconds, unit in _UNITS:
        count, rest = divmod(rest, seconds)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


@register.filter
def since(moment: datetime) -> timedelta:
    return timezone.now() - moment


@register.filter
def until(moment: datetime) -> timedelta:
    return moment - timezone.now()


@register.filter
def gigabytes(size: int) -> str:
    """Bytes, in GiB."""
    return f"{size / 1024**3:.1f}"


@register.filter
def after(end: datetime, begin: datetime) -> timedelta:
    return end - begin
