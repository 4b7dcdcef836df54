"""Loads every module that registers messages."""

from . import devices, hosts, networks, sessions, storage, tasks, vms

__all__ = ["devices", "hosts", "networks", "sessions", "storage", "tasks", "vms"]
