"""Whether this management server itself runs low (admin guide, 10.7, 1): each server of a farm for itself."""

import os
import shutil
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

from extdhcp_site.alerts.models import Kind
from extdhcp_site.alerts.services import Domain, Problem
from extdhcp_site.alerts.watches import Watch
from extdhcp_site.environment import VAR_DIR
from extdhcp_site.events.models import Subject

KIND = "ManagementServer"
MEMORY_USED = 0.9
STORAGE_USED = 0.85
LOAD_PER_CPU = 2.0
# A compilation, a backup.
BUSY_FOR = timedelta(minutes=10)
GIB = 1024**3

_name = socket.gethostname()
HERE = Subject(KIND, uuid5(NAMESPACE_DNS, _name), _name)


def problems() -> Iterator[Problem]:
    yield from memory(Path("/proc/meminfo").read_text())
    yield from load(os.getloadavg()[1], os.cpu_count() or 1)
    yield from storage(VAR_DIR)


def memory(meminfo: str) -> Iterator[Problem]:
    """`meminfo` as in proc(5), in kB; what the system would give back counts as free."""
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in meminfo.splitlines() if line.endswith("kB")}
    total, free = sizes["MemTotal"], sizes["MemAvailable"]
    if free < total * (1 - MEMORY_USED):
        yield Problem(
            Kind.MEMORY,
            HERE,
            f"Management server {HERE.name} has {free / 1024**2:.1f} GiB of {total / 1024**2:.1f} GiB memory left.",
            "Look for what takes it, give it more, or let fewer workers run (JOB_WORKERS, WEB_CONCURRENCY).",
        )


def load(average: float, cpus: int) -> Iterator[Problem]:
    if average > LOAD_PER_CPU * cpus:
        yield Problem(
            Kind.CPU,
            HERE,
            f"On management server {HERE.name} {average:.0f} processes want its {cpus} CPUs.",
            "Look for what takes them, or give it more.",
            lasting=BUSY_FOR,
        )


def storage(directory: Path) -> Iterator[Problem]:
    usage = shutil.disk_usage(directory)
    if usage.free < usage.total * (1 - STORAGE_USED):
        yield Problem(
            Kind.STORAGE,
            HERE,
            f"Management server {HERE.name} has {usage.free / GIB:.1f} GiB of {usage.total / GIB:.1f} GiB left "
            "where its data lies.",
            "Make room: when nothing is left, the server stops.",
        )


WATCH = Watch(Domain(frozenset({Kind.MEMORY, Kind.CPU, Kind.STORAGE}), KIND, HERE.uuid), problems)
