"""What reading addresses has cost: one row a minute, whatever happens in it."""

from datetime import timedelta

import pytest

from ipfetch import sweeps
from ipfetch.models import Sweep

pytestmark = pytest.mark.django_db
MINUTE = timedelta(minutes=1)


def test_a_minute_is_one_row_once_it_is_over(now):
    at = now.replace(second=10, microsecond=0)
    sweeps.note(100, 90, 2.0, at, answered=True)
    sweeps.note(3, 0, 5.0, at, answered=False)
    assert not Sweep.objects.exists()

    sweeps.note(1, 1, 0.1, at + MINUTE, answered=True)

    row = Sweep.objects.get()
    assert (row.at, row.batches, row.nics, row.found, row.failed) == (at.replace(second=0), 2, 103, 90, 1)
    assert (row.seconds, row.slowest) == (7.0, 5.0)


def test_a_day_is_kept(now):
    some = {"batches": 1, "nics": 1, "found": 1, "failed": 0, "seconds": 1, "slowest": 1}
    Sweep.objects.create(at=now - sweeps.KEPT - 5 * MINUTE, **some)
    Sweep.objects.create(at=now - sweeps.KEPT + 5 * MINUTE, **some)

    sweeps.note(1, 1, 0.1, now, answered=True)
    sweeps.note(1, 1, 0.1, now + MINUTE, answered=True)

    assert Sweep.objects.count() == 2
