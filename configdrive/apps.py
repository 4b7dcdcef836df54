from django.apps import AppConfig


class ConfigDriveConfig(AppConfig):
    name = "configdrive"
    verbose_name = "Config drives"

    def ready(self) -> None:
        from configdrive import storage, upkeep
        from extdhcp_site.jobs import tasks
        from networks import elements

        elements.register(storage.ConfigDriveElement())
        tasks.every(1, upkeep.remove_leftovers)
        tasks.every(1, upkeep.look_after)
        tasks.every(5, upkeep.reconcile)
