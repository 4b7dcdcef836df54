from django.apps import AppConfig


class EventsConfig(AppConfig):
    name = "extdhcp_site.events"
    label = "events"
    verbose_name = "Events"

    def ready(self) -> None:
        from extdhcp_site.events import console  # noqa: F401 - it declares its pages
