from django.apps import AppConfig


class ConfigDriveConfig(AppConfig):
    name = "configdrive"
    verbose_name = "Config drives"

    def ready(self) -> None:
        from configdrive import storage
        from extdhcp_site.jobs import tasks
        from networks import elements

        elements.register(storage.ConfigDriveElement())
        tasks.every(1, storage.remove_leftovers)
