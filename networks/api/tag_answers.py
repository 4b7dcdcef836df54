"""What lists show of tags, and how they are asked by them."""

from typing import TypeVar

from django.db.models import QuerySet

from extdhcp_site.api.answers import Answer
from extdhcp_site.api.parameters import MapList, Params, Text, Values
from networks.api.fields import text

# Each is one more join, of which a database has 61 or 64.
MOST_ASKED_FOR = 10

Q_ = TypeVar("Q_", bound=QuerySet)


class OwnTagAnswer(Answer):
    """A tag in its object's own answer, whose rows must come with `tags`."""

    key = text("key", "the tag's key")
    value = text("value", "its value", allow_blank=True)
    resourcetype = text("resource_type", "UserVm, Network or Template")
    resourceid = text("resource.uuid", "the id of the object that it is on")
    account = text("account.name", "the account that owns that object")


class TagAnswer(OwnTagAnswer):
    id = text("uuid", "the tag's id (not in CloudStack)")
    domain = text("account.domain.name", "that account's domain")
    domainid = text("account.domain.uuid", "the id of that domain")


class TagEntry(Params):
    key = Text("The tag's key.", required=True)
    value = Text("Its value.", allow_blank=True)


def tags_filter() -> MapList:
    """The parameter of a list: `tags[0].key=...&tags[0].value=...`."""
    help_text = f"Only what has all these tags, {MOST_ASKED_FOR} at most: tags[0].key=...&tags[0].value=..."
    return MapList(help_text, TagEntry, most=MOST_ASKED_FOR)


def tagged(rows: Q_, params: Values) -> Q_:
    """Of `rows` those that have all the tags asked for; one without a value asks for the key alone."""
    for entry in params["tags"] or []:
        wanted = {"tags__key": entry["key"]}
        if entry["value"] is not None:
            wanted["tags__value"] = entry["value"]
        rows = rows.filter(**wanted)
    return rows
