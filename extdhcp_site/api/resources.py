"""`/api/v1/`: what it serves. An app contributes with `register("vms", VmViewSet)`."""

from typing import Any

from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.routers import DefaultRouter
from rest_framework.viewsets import ReadOnlyModelViewSet

from extdhcp_site.accounts.models import Caller
from extdhcp_site.api.rest import BearerAuthentication, Pages


class VisibleViewSet(ReadOnlyModelViewSet):
    """What the caller may see of a model, by uuid. `filterset_fields` are the query parameters it takes."""

    pagination_class = Pages
    filter_backends = [DjangoFilterBackend]
    filterset_fields: list[str] = []
    lookup_field = "uuid"
    lookup_value_converter = "uuid"

    @property
    def caller(self) -> Caller | None:
        """None for the generator of the schema only: a request without a user is refused before."""
        return Caller.of(self.request.user) if self.request and self.request.user.is_authenticated else None

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()
        return queryset.visible_to(self.caller) if self.caller else queryset.none()

    def get_serializer_context(self) -> dict[str, Any]:
        return {**super().get_serializer_context(), "caller": self.caller}

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        super().initial(request, *args, **kwargs)
        if unknown := set(request.query_params) - self._known_parameters():
            # A misspelt filter would otherwise answer with everything.
            raise ValidationError({name: ["There is no such parameter."] for name in sorted(unknown)})

    def _known_parameters(self) -> set[str]:
        if self.detail:
            return set()
        filters = DjangoFilterBackend().get_filterset_class(self, self.queryset)
        return {Pages.cursor_query_param, Pages.page_size_query_param, *(filters.base_filters if filters else ())}


router = DefaultRouter(use_regex_path=False)
router.include_format_suffixes = False


def register(prefix: str, viewset: type[VisibleViewSet]) -> None:
    """Raises TypeError for a view set that is not bound to what its caller may see."""
    if not (issubclass(viewset, VisibleViewSet) and hasattr(viewset.queryset, "visible_to")):
        raise TypeError(f"{viewset.__name__} must be a VisibleViewSet over rows that have `visible_to`.")
    router.register(prefix, viewset)


class BearerInSchema(OpenApiAuthenticationExtension):
    target_class = BearerAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
