from django.apps import AppConfig


class ConfigDriveConfig(AppConfig):
    name = "configdrive"
    verbose_name = "Config drives"

    def ready(self) -> None:
        from configdrive import console, storage, timeline, troubleshooting, upkeep  # noqa: F401 - console declares pages
        from extdhcp_site.jobs import tasks
        from networks import checks, elements
        from networks import timeline as timelines

        elements.register(storage.ConfigDriveElement())
        checks.troubleshoots(troubleshooting.drive_checks)
        timelines.tells(timeline.of_the_drive)
        tasks.every(1, upkeep.remove_leftovers)
        tasks.every(1, upkeep.look_after)
        tasks.every(5, upkeep.reconcile)
