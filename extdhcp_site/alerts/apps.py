from django.apps import AppConfig


class AlertsConfig(AppConfig):
    name = "extdhcp_site.alerts"
    label = "alerts"
    verbose_name = "Alerts"

    def ready(self) -> None:
        from extdhcp_site.alerts import console, server, watches
        from extdhcp_site.console import panels
        from extdhcp_site.jobs import tasks

        panels.register(console.PANEL)

        watches.register(server.WATCH)
        tasks.every(1, watches.look)
