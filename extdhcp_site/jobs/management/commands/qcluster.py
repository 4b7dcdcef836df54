"""django-q2's command, whose processes do not outlive it."""

import ctypes
import os
import signal
from typing import Any

from django_q.management.commands.qcluster import Command as QClusterCommand

PR_SET_PDEATHSIG = 1

_forking = 0


def children_die_with_parent() -> None:
    """From now on: without this, workers whose main process was killed go on for ever with old code."""
    os.register_at_fork(before=_remember_parent, after_in_child=_die_with_parent)


def _remember_parent() -> None:
    global _forking
    _forking = os.getpid()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != _forking:
        os._exit(1)  # the parent was killed before the kernel knew that we want to hear of it


class Command(QClusterCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        # The cluster forks a sentinel, and that one its workers: each of them gets this.
        children_die_with_parent()
        super().handle(*args, **options)
