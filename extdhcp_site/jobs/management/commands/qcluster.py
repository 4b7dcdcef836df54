"""django-q2's command, whose processes do not outlive it."""

import ctypes
import os
import signal
from typing import Any

from django_q.management.commands.qcluster import Command as QClusterCommand

PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    """Without this, workers whose main process was killed go on for ever with old code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Command(QClusterCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        # The cluster forks a sentinel, and that one its workers: each of them gets this.
        os.register_at_fork(after_in_child=_die_with_parent)
        super().handle(*args, **options)
