"""Loads every module that registers messages."""

from . import devices, events, hosts, networks, sessions, storage, tasks, vms

__all__ = ["devices", "events", "hosts", "networks", "sessions", "storage", "tasks", "vms"]
