from datetime import timedelta

from django.apps import AppConfig
from django.db.models.signals import post_migrate


def _sync_schedules(**kwargs) -> None:
    from extdhcp_site.jobs import tasks

    tasks.sync_schedules()


class JobsConfig(AppConfig):
    name = "extdhcp_site.jobs"
    label = "jobs"
    verbose_name = "Jobs"

    def ready(self) -> None:
        from django_q.signals import post_spawn, pre_enqueue

        from extdhcp_site.console import panels
        from extdhcp_site.jobs import collector, panel, services, tasks

        panels.register(panel.PANEL)

        pre_enqueue.connect(tasks.queue_only)
        post_spawn.connect(collector.spare)

        tasks.every(1, services.housekeeping)
        tasks.every(1, services.take_up_lost, first_after=timedelta(seconds=35))
        # Migrate is the moment when the table is known to exist.
        post_migrate.connect(_sync_schedules, sender=self)
