from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.urls import include, path
from drf_spectacular.views import SpectacularSwaggerSplitView

from extdhcp_site.api import health, routes
from extdhcp_site.api.document import DocumentView
from extdhcp_site.api.views import client_api

urlpatterns = [
    path("client/api", client_api, name="client-api"),
    path("api/v1/", include("ipfetch.urls")),
    path("api/v1/", include(routes.urls())),
    path("api/schema/", DocumentView.as_view(), name="schema"),
    path("api/docs/", login_required(SpectacularSwaggerSplitView.as_view(url_name="schema")), name="docs"),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
    path("admin/", admin.site.urls),
    path("", include("extdhcp_site.accounts.urls")),
    path("guest/", include("configdrive.urls")),
    path("", include("extdhcp_site.console.urls")),
]
