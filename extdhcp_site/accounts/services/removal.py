"""What removing a domain, an account or a user has in common: who may not go yet, and what becomes of the name."""

import secrets
from collections.abc import Iterator

from django.db import models

from extdhcp_site.accounts.models import Account, Domain, User
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import Event
from extdhcp_site.jobs.models import AsyncJob

# What stays when its account is gone, and keeps its row for that.
_HISTORY = (Event, AsyncJob)


def belongings(row: models.Model, *, besides: tuple[type[models.Model], ...] = ()) -> str:
    """What other tables still hold of `row`, in words: "2 virtual machines, 1 network"; empty if nothing.

    `besides` are models that the caller looks at by itself.
    """
    return ", ".join(_counted(row, (*_HISTORY, *besides)))


def _counted(row: models.Model, but: tuple[type[models.Model], ...]) -> Iterator[str]:
    for relation in row._meta.get_fields(include_hidden=True):
        if not (relation.one_to_many and relation.on_delete is models.PROTECT) or relation.related_model in but:
            continue
        number = relation.related_model._base_manager.filter(**{relation.field.name: row}).count()
        if number:
            words = relation.related_model._meta
            yield f"{number} {words.verbose_name if number == 1 else words.verbose_name_plural}"


def refuse_if_removed(owner: Account | Domain | User) -> None:
    """Raises InvalidParameter when `owner` has been removed.

    In the transaction that gave it something, and after that was written: by its foreign key whoever removes the owner
    waits for us, or we have waited for them and see what they did.
    """
    if not type(owner).objects.live().filter(pk=owner.pk).exists():
        raise InvalidParameter(f"The {owner._meta.verbose_name} {owner} has been deleted meanwhile.")


def retired_name(name: str) -> str:
    """A name that nobody has or can foresee, of at most 100 characters: `name` may be taken again (CVE-2025-66467)."""
    return f"{name[:70]}-removed-{secrets.token_hex(8)}"
