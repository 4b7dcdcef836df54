from django.apps import AppConfig


class EventsConfig(AppConfig):
    name = "extdhcp_site.events"
    label = "events"
    verbose_name = "Events"
