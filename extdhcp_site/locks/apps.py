from django.apps import AppConfig


class LocksConfig(AppConfig):
    name = "extdhcp_site.locks"
    label = "locks"
    verbose_name = "Locks"
