"""The settings of the fetch loop, with the spec's names and defaults ("Configuration values")."""

from extdhcp_site.configuration.models import define, positive, positive_or_zero, switch

GROUP = "Address discovery"

INTERVAL = define(
    "externaldhcp.vmip.retrieval.interval",
    "180",
    positive,
    "Seconds between two tries to read a NIC's address.",
    group=GROUP,
    unit="seconds",
)
MAX_RETRY = define(
    "externaldhcp.vmip.max.retry",
    "10",
    positive,
    "Tries, at the full interval, before a NIC is given up.",
    group=GROUP,
    unit="tries",
)
MAX_THREADS = define(
    "externaldhcp.vmipFetch.threadPool.max",
    "10",
    positive,
    "Guests asked for their addresses at the same time.",
    group=GROUP,
    unit="guests",
)
EARLY_RETRY = define(
    "externaldhcp.vmip.early.retry",
    "true",
    switch,
    "Try soon after a start (5, 10, 20, 40 s ...) and only then at the interval; the early tries are not counted. "
    "false is the specification's loop exactly.",
    group=GROUP,
)
REFRESH_INTERVAL = define(
    "externaldhcp.vmip.refresh.interval",
    "900",
    positive_or_zero,
    "Seconds after which a known address is read again, and a NIC that was given up is looked at again; 0: never.",
    group=GROUP,
    unit="seconds",
)
