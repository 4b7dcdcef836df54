from django.urls import path

from extdhcp_site.console import pages, views

urlpatterns = [
    path("do/<str:command>", views.do, name="do"),
    *pages.urls(),
]
