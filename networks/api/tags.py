"""Tags of VMs, networks and templates."""

from django.db.models import Model, Q, QuerySet
from rest_framework.serializers import ValidationError

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.owners import OwnedListParams, accounts_of, ownership
from extdhcp_site.api.parameters import Choice, MapList, ObjectListField, Params, Text, Uuid, Values
from extdhcp_site.api.registry import EVERYBODY, AsyncCommand, ListCommand, Success, command
from extdhcp_site.jobs.models import AsyncJob
from networks.api.tag_answers import TagAnswer, TagEntry
from networks.models import ResourceTag
from networks.models.tags import TAGGED
from networks.services import tags as services
from networks.services.tags import Tag


def _model(word: str) -> type[Model]:
    return ResourceTag._meta.get_field(TAGGED[word]).related_model


def changeable(word: str, caller: Caller) -> QuerySet:
    """What of a kind the caller may put tags on: what belongs to accounts that the caller answers for."""
    return _model(word)._default_manager.filter(account__in=accounts_of(caller))


class ResourcesField(ObjectListField):
    """Objects of the kind that the parameter `resourcetype` names."""

    def __init__(self, help_text: str) -> None:
        super().__init__(help_text, lambda caller: changeable(self._kind(), caller), required=True)

    def found(self, spelt: list[str]) -> list[Model]:
        if not spelt:
            raise ValidationError("must name an object.")
        return super().found(spelt)

    def _kind(self) -> str:
        words = {word.lower(): word for word in TAGGED}
        given = getattr(self.parent, "initial_data", {}).get("resourcetype") or ""
        # A wrong word is the other field's error.
        return words.get(given.lower(), next(iter(TAGGED)))


class TagsParams(Params):
    resourcetype = Choice("What they are: UserVm, Network or Template.", TAGGED, required=True)
    resourceids = ResourcesField("The objects' ids.")


class CreateTagsParams(TagsParams):
    tags = MapList("The tags: tags[0].key=...&tags[0].value=...", TagEntry, required=True)


@command(since="1.1", roles=EVERYBODY)
class CreateTags(AsyncCommand):
    """Put tags on objects. A key that one of them has already is refused."""

    params = CreateTagsParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.create(params["resourceids"], _tags(params), caller)


class DeleteTagsParams(TagsParams):
    tags = MapList("The tags, by key, or by key and value; absent: all.", TagEntry)


@command(since="1.1", roles=EVERYBODY)
class DeleteTags(AsyncCommand):
    """Take tags from objects."""

    params = DeleteTagsParams
    answer = Success

    def submit(self, caller: Caller, params: Values) -> AsyncJob:
        return services.delete(params["resourceids"], _tags(params), caller)


def _tags(params: Values) -> list[Tag]:
    return [Tag(entry["key"], entry["value"]) for entry in params["tags"] or []]


class ListTagsParams(OwnedListParams):
    resourceid = Uuid("Only tags of this object.")
    resourcetype = Text("Only tags of this kind of object: UserVm, Network or Template.")
    key = Text("Only tags with this key.")
    value = Text("Only tags with this value.")


@command(since="1.1", roles=EVERYBODY)
class ListTags(ListCommand):
    """List tags: of one's own objects, or of one object that one may see."""

    params = ListTagsParams
    answer = ("tag", TagAnswer)

    def rows(self, caller: Caller, params: Values) -> QuerySet[ResourceTag]:
        words = [word for word in TAGGED if (params["resourcetype"] or word).lower() == word.lower()]
        wanted = Q(pk=None)
        for word in words:
            wanted |= _on(word, caller, params)
        tags = ResourceTag.objects.filter(wanted)
        if params["keyword"]:
            tags = tags.filter(Q(key__icontains=params["keyword"]) | Q(value__icontains=params["keyword"]))
        asked = {name: params[name] for name in ("key", "value") if params[name] is not None}
        return tags.filter(**asked).for_listing()


def _on(word: str, caller: Caller, params: Values) -> Q:
    """Tags of one kind of object."""
    rows = _model(word)._default_manager.visible_to(caller)
    which = Q(uuid=params["resourceid"]) if params["resourceid"] else ownership(caller, params)
    return Q(**{f"{TAGGED[word]}__in": rows.filter(which).values("pk")})
