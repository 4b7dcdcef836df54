"""django-q2's command, whose processes do not outlive it: workers would go on for ever with old code."""

from typing import Any

from django_q.conf import Conf
from django_q.management.commands.qcluster import Command as QClusterCommand

from extdhcp_site.connections import keep_connections
from extdhcp_site.jobs.tasks import ADDRESSES
from extdhcp_site.processes import children_die_with_parent


class Command(QClusterCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        # The cluster forks a sentinel, and that one its workers: each of them gets this.
        children_die_with_parent()
        if Conf.CLUSTER_NAME == ADDRESSES:
            # Many small tasks. The other cluster's sentinel asks the database too, and forks.
            keep_connections()
        super().handle(*args, **options)
