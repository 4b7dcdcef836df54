from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "extdhcp_site.api"
    label = "api"
    verbose_name = "API"
