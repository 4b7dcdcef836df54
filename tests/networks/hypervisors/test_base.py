import threading
import time

import pytest

from networks.hypervisors import base
from networks.hypervisors.base import DeadlineExceeded, abandoned_calls, call_within
from tests.networks.hypervisors.factories import soon


def test_result_and_exception_come_back():
    assert call_within(soon(), lambda: 7) == 7
    with pytest.raises(KeyError):
        call_within(soon(), lambda: {}["nothing"])


def test_stuck_call_is_left_behind_and_counted_while_it_is_stuck():
    before, release = abandoned_calls(), threading.Event()

    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        call_within(soon(0.1), lambda: release.wait(30))

    assert time.monotonic() - begun < 1
    assert abandoned_calls() == before + 1
    release.set()
    give_up = soon(5)
    while abandoned_calls() > before and time.monotonic() < give_up:
        time.sleep(0.01)
    assert abandoned_calls() == before


def test_call_is_not_begun_after_its_deadline():
    begun = []

    with pytest.raises(DeadlineExceeded):
        call_within(time.monotonic() - 1, lambda: begun.append(True))

    assert not begun


def test_heart_beats_while_a_call_is_waited_for(monkeypatch):
    monkeypatch.setattr(base, "HEARTBEAT_SECONDS", 0.02)
    beats = []

    with base.heartbeat(lambda: beats.append(time.monotonic())):
        call_within(soon(), lambda: time.sleep(0.15))
    call_within(soon(), lambda: time.sleep(0.05))

    assert 3 <= len(beats) <= 8
