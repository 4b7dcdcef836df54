"""The product's settings for the processes that the bench measures: hypervisors that answer at once.

BENCH_ADDRESS_WORKERS changes how many processes work in the cluster "addresses"; the product has one.
"""

import os

from extdhcp_site.settings import *  # noqa: F403
from extdhcp_site.settings import INSTALLED_APPS, Q_CLUSTER

INSTALLED_APPS = [*INSTALLED_APPS, "tests.bench.zero_latency.ZeroLatency"]
_workers = int(os.environ.get("BENCH_ADDRESS_WORKERS", Q_CLUSTER["ALT_CLUSTERS"]["addresses"]["workers"]))
Q_CLUSTER["ALT_CLUSTERS"]["addresses"].update(workers=_workers, queue_limit=_workers)
