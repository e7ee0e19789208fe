"""The probe: the same work each time, taken anew when it is old."""

from __future__ import annotations

import numpy as np

from benchmarks import probe
from benchmarks.journal import Journal
from benchmarks.probe import Probe


def clocked(monkeypatch) -> list[float]:
    """A clock that stands still at the last of its numbers."""
    now = [100.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[-1])
    return now


def test_what_is_measured_is_noted(monkeypatch):
    now = clocked(monkeypatch)
    monkeypatch.setattr(probe, "seconds_of", lambda call: (0.004, call()))
    found = Probe(Journal())
    now.append(101.5)
    assert found.measure() == 0.004
    assert found.journal.all("probe") == [{"at_s": 1.5, "seconds": 0.004}]


def test_a_recent_one_is_taken_as_it_is_and_an_old_one_anew(monkeypatch):
    now = clocked(monkeypatch)
    seconds = iter(number for number in (0.004, 0.008) for _ in range(probe.CALLS))
    monkeypatch.setattr(probe, "seconds_of", lambda call: (next(seconds), call()))
    found = Probe(Journal())
    assert found.recent_s() == 0.004
    now.append(now[0] + probe.MOST_AGE_S)
    assert found.recent_s() == 0.004
    now.append(now[-1] + 0.1)
    assert found.recent_s() == 0.008
    assert [timing["seconds"] for timing in found.journal.all("probe")] == [0.004, 0.008]


def test_the_work_is_the_same_for_all():
    one, other = Probe(Journal()), Probe(Journal())
    one.measure()
    other.measure()
    assert one.journal.all("probe")[0]["seconds"] > 0
    np.testing.assert_array_equal(one._product, other._product)
    assert (probe.SIZE, probe.COPY_BYTES) == (128, 262144), "probes of before cannot be compared any more"
