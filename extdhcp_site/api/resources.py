"""`/api/v1/`: what it shows. An app contributes with `register("vms", VmViewSet)`; `routes` is for what changes things.

Paths are written as in the documentation, "nics/{id}/address", and are served with and without a slash at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.db.models import Model, QuerySet
from django.http import Http404
from django_filters import rest_framework as filters
from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError
from rest_framework.mixins import ListModelMixin
from rest_framework.request import Request
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet, ReadOnlyModelViewSet

from extdhcp_site.accounts.models import Caller, Role
from extdhcp_site.api.parameters import QuerySetFor, visible
from extdhcp_site.api.registry import EVERYBODY, Command
from extdhcp_site.api.rest import OnePage, Pages


class CallerView(APIView):
    """A view for callers of `roles`; to all others it is not there."""

    roles: ClassVar[frozenset[Role]]

    @property
    def caller(self) -> Caller | None:
        """None for the generator of the schema only: a request without a user is refused before."""
        return Caller.of(self.request.user) if self.request and self.request.user.is_authenticated else None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        self.check_role()
        if unknown := set(request.query_params) - self.known_parameters():
            # A misspelt filter would otherwise answer with everything.
            raise ValidationError({name: ["There is no such parameter."] for name in sorted(unknown)})
        if doubled := [name for name, values in request.query_params.lists() if len(values) > 1]:
            raise ValidationError({name: ["is given more than once."] for name in doubled})
        if unread := [name for name, value in request.query_params.items() if not self.can_read(name, value)]:
            raise ValidationError({name: ["is empty, or not what this parameter takes."] for name in unread})

    def check_role(self) -> None:
        if self.caller is None or self.caller.role not in self.roles:
            raise Http404

    def known_parameters(self) -> set[str]:
        """The names of the query's parameters; any other is refused."""
        return set()

    def can_read(self, name: str, value: str) -> bool:
        """Whether the query's parameter means something; one that means nothing would be taken for absent."""
        return True


class VisibleViewSet(CallerView, ReadOnlyModelViewSet):
    """What the caller may see of a model, by uuid. `filterset_fields` are the query parameters it takes."""

    roles = EVERYBODY
    pagination_class = Pages
    filter_backends = [filters.DjangoFilterBackend]
    filterset_fields: list[str] = []
    lookup_field = "uuid"
    lookup_url_kwarg = "id"

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()
        return queryset.visible_to(self.caller) if self.caller else queryset.none()

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "caller": self.caller}

    def known_parameters(self) -> set[str]:
        if self.detail:
            return super().known_parameters()
        return {Pages.cursor_query_param, Pages.page_size_query_param, *self.filters()}

    def can_read(self, name: str, value: str) -> bool:
        if isinstance(self.filters().get(name), filters.BooleanFilter):
            return value in ("true", "false")
        return value != ""

    @classmethod
    def filters(cls) -> Mapping[str, filters.Filter]:
        found = filters.DjangoFilterBackend().get_filterset_class(cls, cls.queryset)
        return found.base_filters if found else {}


class ConstantViewSet(CallerView, ListModelMixin, GenericViewSet):
    """What stands in no table and belongs to nobody: a few rows, all on one page, without filters."""

    pagination_class = OnePage
    filter_backends = []

    def rows(self) -> Sequence[Any]:
        raise NotImplementedError

    def get_queryset(self) -> Any:
        return self.rows()

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "caller": self.caller}

    @classmethod
    def filters(cls) -> Mapping[str, filters.Filter]:
        return {}


class ObjectFilter(filters.ModelChoiceFilter):
    """Narrows to what belongs to an object, out of those that the caller may see; any other is refused alike."""

    def __init__(self, help_text: str, field_name: str, queryset_for: QuerySetFor) -> None:
        def seen(request: Request) -> QuerySet:
            return queryset_for(Caller.of(request.user))

        super().__init__(field_name=field_name, label=help_text, queryset=seen, to_field_name="uuid")
        extend_schema_field({"type": "string", "format": "uuid", "description": help_text})(self)


def of(model: type[Model], field_name: str, help_text: str) -> ObjectFilter:
    """Narrows to what belongs to an object of `model`, as in `zone = of(Zone, "zone", "its zone")`."""
    return ObjectFilter(help_text, field_name, visible(model))


# What there is ----------------------------------------------------------------------------------------


@dataclass
class Place:
    """What stands at one path: a view, the `action` of a view set that answers GET, and commands by method."""

    view: type[CallerView] | None = None
    action: str = ""
    commands: dict[str, type[Command]] = field(default_factory=dict)


places: dict[str, Place] = {}


def register(prefix: str, viewset: type[VisibleViewSet]) -> None:
    """Raises TypeError for a view set that is not bound to what its caller may see."""
    if not (issubclass(viewset, VisibleViewSet) and hasattr(viewset.queryset, "visible_to")):
        raise TypeError(f"{viewset.__name__} must be a VisibleViewSet over rows that have `visible_to`.")
    _take(prefix, viewset, "list")
    _take(f"{prefix}/{{id}}", viewset, "retrieve")


def register_constants(prefix: str, viewset: type[ConstantViewSet]) -> None:
    """Raises TypeError for a view set that does not say for which roles it is."""
    _check_roles(viewset)
    _take(prefix, viewset, "list")


def path(route: str, view: type[CallerView]) -> None:
    """A view of its own, as in `path("nics/{id}/address", AddressView)`; it gets `id` as a text.

    Raises TypeError for one that does not say for which roles it is.
    """
    _check_roles(view)
    _take(route, view, "")


def _check_roles(view: type[CallerView]) -> None:
    if not (issubclass(view, CallerView) and getattr(view, "roles", None)):
        raise TypeError(f"{view.__name__} must be a CallerView with its roles, for instance EVERYBODY.")


def _take(route: str, view: type[CallerView], action: str) -> None:
    place = place_at(route)
    if place.view is not None:
        raise TypeError(f"There is a view at {route} already.")
    place.view, place.action = view, action


def place_at(route: str) -> Place:
    """The place at `route`, made if there is none. Raises TypeError where only the names in it are others."""
    for other in places:
        if other != route and _shape(other) == _shape(route):
            raise TypeError(f"{route} and {other} are one path: name its parts alike.")
    return places.setdefault(route, Place())


def _shape(route: str) -> list[str]:
    return ["{}" if part.startswith("{") else part for part in route.split("/")]


def prefixes() -> list[str]:
    """The paths of the lists."""
    return [route for route, place in places.items() if place.action == "list"]
