from django.apps import AppConfig


class ConfigDriveConfig(AppConfig):
    name = "configdrive"
    verbose_name = "Config drives"

    def ready(self) -> None:
        from configdrive import storage, troubleshooting, upkeep
        from extdhcp_site.jobs import tasks
        from networks import checks, elements

        elements.register(storage.ConfigDriveElement())
        checks.troubleshoots(troubleshooting.drive_checks)
        tasks.every(1, upkeep.remove_leftovers)
        tasks.every(1, upkeep.look_after)
        tasks.every(5, upkeep.reconcile)
