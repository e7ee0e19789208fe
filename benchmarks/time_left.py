"""How long the rest of a run may take, by what similar cases took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from benchmarks.journal import Journal
from benchmarks.run import Case

LEAST_CASES = 5
"""Finished cases before which nothing is said: the first ones warm up the machine and the libraries."""


class TimeLeft:
    """Learns from the finished cases of a journal, those of earlier processes included.

    A case is expected to take the mean of those with its backend, operation and batch size, skipped ones
    included: half of a run may be skipped, most of it at the large batches. Compilation does not count, as
    few cases have to be compiled for, and most of those come first.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._learned = 0
        self._sums: dict[Hashable, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def of(self, cases: Iterable[Case]) -> float | None:
        """Seconds that `cases` may take; None before enough is known."""
        for facts, seconds in self.journal.durations[self._learned :]:
            self._learn(facts, seconds)
        self._learned = len(self.journal.durations)
        return sum(map(self._expected_s, cases)) if self._learned >= LEAST_CASES else None

    def _learn(self, facts: Mapping[str, Any], seconds: float) -> None:
        seconds = max(0.0, seconds - (facts.get("compile_s") or 0.0))
        for group in _groups(facts["backend"], facts["op"], facts["batch"]):
            total, count = self._sums[group]
            self._sums[group] = total + seconds, count + 1

    def _expected_s(self, case: Case) -> float:
        groups = _groups(case.backend, case.op, case.layer.N)
        total, count = next(self._sums[group] for group in groups if group in self._sums)
        return total / count


def _groups(backend: str, op: str, batch: int) -> list[Hashable]:
    """The groups that a case belongs to, of similar cases first; the last holds all."""
    return [(backend, op, batch), (backend, batch), backend, None]
