"""The garbage collector in worker processes."""

import gc

# Rows, answers and findings have no cycles, and go by themselves. At Python's own 700 objects, looking for cycles among
# those of a batch of ten thousand took a quarter of its time.
THRESHOLDS = (20_000, 10, 10)


def spare(**_signal: object) -> None:
    """Called when a worker begins: what has been loaded by then stays, and is never looked at."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
