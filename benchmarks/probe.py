"""The probe: a fixed piece of work, timed now and then, that tells the machine's drift from a change.

Two runs of the same code differ where the clock, the temperature or a neighbour on the host is another one.
The probe is the same on every machine and in every version of convbench: where it takes longer, so does
everything else. Saved times of it can only be compared as long as `SIZE` and `COPY_BYTES` stay as they are.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from benchmarks.journal import Journal
from kernels.measure import seconds_of

SIZE = 128
"""Rows of the square float32 matrices that are multiplied, on all threads that BLAS may use."""
COPY_BYTES = 2**18
CALLS = 200
"""Calls of some 0.1 ms: the median of many short calls passes over the moments in which a neighbour has the
core, as that of a case does. Of a few long ones (matrices of 512 rows, 8 MiB) it varied three times as much.
"""
MOST_AGE_S = 3.0
"""Before a case, a probe older than this is taken anew."""


class Probe:
    """The probe of one run; each of its times is in the run's journal at once."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._latest: tuple[float, float] | None = None
        rng = np.random.default_rng(0)
        self._a, self._b = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
        self._product = np.empty_like(self._a)
        self._source = np.ones(COPY_BYTES, np.uint8)
        self._target = np.zeros_like(self._source)

    def measure(self) -> float:
        """Median seconds of a call; takes some 20 ms.

        Noted as `at_s`, seconds since the run began, and `seconds`.
        """
        at_s = self.journal.seconds
        self._work()
        seconds = median(seconds_of(self._work)[0] for _ in range(CALLS))
        self.journal.write("probe", {"at_s": at_s, "seconds": seconds})
        self._latest = time.perf_counter(), seconds
        return seconds

    def recent_s(self) -> float:
        """The latest median, measured anew where it is more than `MOST_AGE_S` old."""
        if self._latest is None or time.perf_counter() - self._latest[0] > MOST_AGE_S:
            return self.measure()
        return self._latest[1]

    def _work(self) -> Any:
        np.matmul(self._a, self._b, out=self._product)
        np.copyto(self._target, self._source)
