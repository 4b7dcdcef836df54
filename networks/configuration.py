"""The settings that govern VMs."""

from extdhcp_site.alerts.configuration import CATEGORY as ALERT
from extdhcp_site.alerts.configuration import GROUP as ALERTS
from extdhcp_site.alerts.configuration import share
from extdhcp_site.configuration.models import define, positive

GROUP = "Virtual machines"


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 100:
        raise ValueError("must be a number from 1 to 100")
    return value


def _password_length(text: str) -> int:
    value = positive(text)
    if not 8 <= value <= 128:
        raise ValueError("must be a whole number from 8 to 128")
    return value


def _user_data_length(text: str) -> int:
    value = positive(text)
    # CloudStack's hard maximum, and what a parameter of ours takes.
    if value > 2**20:
        raise ValueError(f"must be a whole number from 1 to {2**20}")
    return value


CPU_OVERPROVISIONING = define(
    "cpu.overprovisioning.factor",
    "1",
    _factor,
    "How many times a host's CPU may be promised to VMs. Memory is never promised twice.",
    group=GROUP,
)
PASSWORD_LENGTH = define(
    "vm.password.length",
    "16",
    _password_length,
    "Letters and digits in a generated password for a VM.",
    group=GROUP,
    unit="characters",
)
USER_DATA_MAX_LENGTH = define(
    "vm.userdata.max.length",
    "32768",
    _user_data_length,
    "Longest user data that a VM may have, in base64 characters. In a URL (GET) it may have 4096 at most.",
    group=GROUP,
    unit="characters",
)
EXPUNGE_DELAY = define(
    "expunge.delay",
    "86400",
    positive,
    "Seconds for which a destroyed VM's ROOT volume is kept.",
    group=GROUP,
    unit="seconds",
)
SHUTDOWN_WAIT = define(
    "vm.shutdown.wait",
    "60",
    positive,
    "Seconds that a guest has for an orderly shutdown before its power is cut.",
    group=GROUP,
    unit="seconds",
)
MEMORY_THRESHOLD = define(
    "cluster.memory.allocated.capacity.notificationthreshold",
    "0.75",
    share,
    "The share of a cluster's memory that may be promised to VMs before there is an alert.",
    category=ALERT,
    group=ALERTS,
)
STORAGE_THRESHOLD = define(
    "cluster.storage.capacity.notificationthreshold",
    "0.75",
    share,
    "The share of a primary storage that may be taken before there is an alert.",
    category=ALERT,
    group=ALERTS,
)
CPU_THRESHOLD = define(
    "cluster.cpu.allocated.capacity.notificationthreshold",
    "0.75",
    share,
    "The share of a cluster's CPU, times cpu.overprovisioning.factor, that may be promised before there is an alert.",
    category=ALERT,
    group=ALERTS,
)
