from django.apps import AppConfig
from django.contrib.admin import apps as admin_apps


class ConsoleConfig(AppConfig):
    name = "extdhcp_site.console"
    label = "console"
    verbose_name = "Console"

    def ready(self) -> None:
        from extdhcp_site.console import event_panel, panels, views  # noqa: F401 registers its page

        panels.register(event_panel.PANEL)


class AdminConfig(admin_apps.AdminConfig):
    """Django's admin on our own site: settings name it in place of django.contrib.admin."""

    default = False
    default_site = "extdhcp_site.console.administration.Site"
