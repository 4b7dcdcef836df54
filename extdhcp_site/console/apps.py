from django.apps import AppConfig


class ConsoleConfig(AppConfig):
    name = "extdhcp_site.console"
    label = "console"
    verbose_name = "Console"
