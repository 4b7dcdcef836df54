"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1

_forking = 0


def die_with_parent() -> None:
    """In a child: ask the kernel for SIGKILL when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def children_die_with_parent() -> None:
    """From now on, all that this process forks, and what that forks in turn."""
    os.register_at_fork(before=_remember_parent, after_in_child=_die_with_remembered_parent)


def _remember_parent() -> None:
    global _forking
    _forking = os.getpid()


def _die_with_remembered_parent() -> None:
    die_with_parent()
    if os.getppid() != _forking:
        os._exit(1)  # the parent was killed before the kernel knew that we want to hear of it
