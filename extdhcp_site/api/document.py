"""`/api/schema/`: the OpenAPI document, which says the same for as long as the server runs."""

from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


class DocumentView(SpectacularAPIView):
    permission_classes = [IsAuthenticated]
    # It does not describe itself.
    schema = None

    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer = request.accepted_renderer
        content_type = f"{renderer.media_type}; charset=utf-8"
        return HttpResponse(rendered(type(renderer)), content_type=content_type)


@cache
def rendered(renderer: type[BaseRenderer]) -> bytes:
    """Made once in each form: that takes a second, which is too long to be had for the asking."""
    document = SchemaGenerator().get_schema(request=None, public=True)
    text = renderer().render(document, renderer_context={})
    return text if isinstance(text, bytes) else text.encode()
