from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class ApiConfig(AppConfig):
    name = "extdhcp_site.api"
    label = "api"
    verbose_name = "API"

    def ready(self) -> None:
        """Import each app's `api` module: what stands there registers itself."""
        autodiscover_modules("api")
