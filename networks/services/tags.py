"""Tags: put on and taken off while the request is answered; the job submitted with it has nothing left to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import transaction
from django.db.models import Q

from extdhcp_site.accounts.models import Caller
from extdhcp_site.errors import InvalidParameter
from extdhcp_site.events.models import EventType
from extdhcp_site.jobs import services as jobs
from extdhcp_site.jobs.models import AsyncJob
from extdhcp_site.uniqueness import unless_taken
from networks.models import Network, ResourceTag, Template, VirtualMachine
from networks.models.tags import TAGGED

MOST_TAGS = 50
# All in one transaction, for which everybody else waits on SQLite.
MOST_AT_ONCE = 1000

Taggable = VirtualMachine | Network | Template


@dataclass(frozen=True)
class Tag:
    """A key with its value; None, where tags are looked for, is any value."""

    key: str
    value: str | None


def create(resources: Sequence[Taggable], tags: Sequence[Tag], by: Caller) -> AsyncJob:
    """Put all `tags` on each of `resources` (of one kind), or none. Raises InvalidParameter for a key that one has."""
    _check(tags)
    resources = _once(resources)
    _refuse_several_owners(resources)
    column = _column(resources[0])
    new = [ResourceTag(**{column: row}, key=tag.key, value=tag.value or "") for row in resources for tag in tags]
    if len(new) > MOST_AT_ONCE:
        raise InvalidParameter(f"At most {MOST_AT_ONCE} tags are put on at once; these are {len(new)}.")
    with transaction.atomic():
        _check_room(resources, tags)
        with unless_taken(InvalidParameter("One of these tags was put on meanwhile. Look at listTags.")):
            ResourceTag.objects.bulk_create(new)
        return jobs.submit("createTags", new[0], account=resources[0].account, by=by)


def delete(resources: Sequence[Taggable], tags: Sequence[Tag], by: Caller) -> AsyncJob:
    """Take those of `tags` from `resources` that they have; without `tags` all. Raises InvalidParameter for none."""
    _refuse_several_owners(resources)
    wanted = Q()
    for tag in tags:
        wanted |= Q(key__iexact=tag.key) & (Q() if tag.value is None else Q(value__iexact=tag.value))
    with transaction.atomic():
        found = ResourceTag.objects.filter(**{f"{_column(resources[0])}__in": resources}).filter(wanted)
        doomed = list(found.select_for_update())
        if not doomed:
            raise InvalidParameter("Unable to find any tags which conform to specified delete parameters.")
        ResourceTag.objects.filter(pk__in=[tag.pk for tag in doomed]).delete()
        # With a uuid of its own: the job that put it on may be pending still, and nobody has to wait for that.
        taken = ResourceTag(key=doomed[0].key, value=doomed[0].value)
        return jobs.submit("deleteTags", taken, account=resources[0].account, by=by)


@jobs.handler("createTags", EventType.TAGS_CREATE)
def _created(job: AsyncJob) -> None:
    """They were written with the job."""


@jobs.handler("deleteTags", EventType.TAGS_DELETE)
def _deleted(job: AsyncJob) -> None:
    """They went with the job's submission."""


def _column(row: Taggable) -> str:
    return next(
        column for column in TAGGED.values() if isinstance(row, ResourceTag._meta.get_field(column).related_model)
    )


def _once(resources: Sequence[Taggable]) -> list[Taggable]:
    return list({row.pk: row for row in resources}.values())


def _refuse_several_owners(resources: Sequence[Taggable]) -> None:
    # The job and its events are an account's.
    if len({row.account_id for row in resources}) > 1:
        raise InvalidParameter("These are several accounts' objects. Name those of one account at a time.")


def _check(tags: Sequence[Tag]) -> None:
    if not tags or any(not tag.key.strip() for tag in tags):
        raise InvalidParameter("Each tag has a key: tags[0].key=...&tags[0].value=...")
    if len({tag.key.lower() for tag in tags}) != len(tags):
        raise InvalidParameter("Each key can be given once.")


def _check_room(resources: Sequence[Taggable], tags: Sequence[Tag]) -> None:
    column, rows = _column(resources[0]), type(resources[0])._default_manager
    # Who puts some on beside this waits here, then counts these. All in one order, or two would wait for each other.
    list(rows.select_for_update().filter(pk__in=[row.pk for row in resources]).order_by("pk").values_list("pk"))
    # Whether two keys are alike must not depend on the database: MariaDB's comparison does not tell case.
    taken: dict[int, set[str]] = {row.pk: set() for row in resources}
    for pk, key in ResourceTag.objects.filter(**{f"{column}__in": resources}).values_list(column, "key"):
        taken[pk].add(key.lower())
    for row in resources:
        for tag in tags:
            if tag.key.lower() in taken[row.pk]:
                raise InvalidParameter(f"{row} has a tag {tag.key} already. To change it, delete it first.")
        if len(taken[row.pk]) + len(tags) > MOST_TAGS:
            raise InvalidParameter(f"An object has at most {MOST_TAGS} tags; {row} has {len(taken[row.pk])}.")
