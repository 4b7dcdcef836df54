from django.apps import AppConfig


class ConfigurationConfig(AppConfig):
    name = "extdhcp_site.configuration"
    label = "configuration"
    verbose_name = "Configuration"
