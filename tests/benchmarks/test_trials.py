"""Short trials of the machine."""

from __future__ import annotations

import pytest

from benchmarks import trials


def test_the_clock_and_a_product_take_time():
    assert 0 < trials.tick_s() < 1
    found = trials.product_s()
    assert trials.LEAST_CALLS <= len(found) <= trials.CALLS
    assert min(found) > 0


def test_a_compiled_loop_is_timed_on_several_threads(monkeypatch):
    pytest.importorskip("numba")
    found = trials.loop_s(2)
    assert trials.LEAST_CALLS <= len(found) <= trials.CALLS
    assert min(found) > 0
    monkeypatch.setattr(trials, "available_backends", lambda: ("loops", "im2col"))
    assert trials.loop_s(2) == ()


def test_a_slow_machine_is_spared_calls(monkeypatch):
    calls = []
    monkeypatch.setattr(trials, "seconds_of", lambda call: (0.05, call()))
    assert trials._times_s(lambda: calls.append(1)) == (0.05,) * trials.LEAST_CALLS
    assert len(calls) == 2 * trials.LEAST_CALLS
