from django.apps import AppConfig


class ConfigurationConfig(AppConfig):
    name = "extdhcp_site.configuration"
    label = "configuration"
    verbose_name = "Configuration"

    def ready(self) -> None:
        from extdhcp_site.configuration import console  # noqa: F401 - it declares its page
