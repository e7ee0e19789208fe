"""The probe: a fixed piece of work, timed now and then, that tells the machine's drift from a change.

Two runs of the same code differ where the clock, the temperature or a neighbour on the host is another one.
The probe is the same on every machine and in every version of convbench: where it takes longer, so does
everything else. Saved times of it can only be compared as long as `SIZE` and `COPY_BYTES` stay as they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from kernels.measure import seconds_of

SIZE = 128
"""Rows of the square float32 matrices that are multiplied, on all threads that BLAS may use."""
COPY_BYTES = 2**18
CALLS = 200
"""Calls of some 0.1 ms: the median of many short calls passes over the moments in which a neighbour has the
core, as that of a case does; of a few long ones (matrices of 512 rows, 8 MiB) it varied three times as much."""
MOST_AGE_S = 3.0
"""Before a case, a probe older than this is taken anew."""


@dataclass
class Probe:
    """The probe of one run; makes its data, and begins to count the seconds, as it is made."""

    timings: list[dict[str, float]] = field(default_factory=list)
    """What is saved: `at_s`, seconds since the run began, and `seconds`, the median of a call."""

    def __post_init__(self) -> None:
        self._start = time.perf_counter()
        rng = np.random.default_rng(0)
        self._a, self._b = (rng.standard_normal((SIZE, SIZE), dtype=np.float32) for _ in range(2))
        self._product = np.empty_like(self._a)
        self._source = np.ones(COPY_BYTES, np.uint8)
        self._target = np.zeros_like(self._source)

    def measure(self) -> float:
        """Median seconds of a call, which are also noted; takes some 20 ms."""
        at_s = time.perf_counter() - self._start
        self._work()
        seconds = median(seconds_of(self._work)[0] for _ in range(CALLS))
        self.timings.append({"at_s": at_s, "seconds": seconds})
        return seconds

    def recent_s(self) -> float:
        """The latest median, measured anew where it is more than `MOST_AGE_S` old."""
        age_s = time.perf_counter() - self._start - self.timings[-1]["at_s"] if self.timings else None
        return self.measure() if age_s is None or age_s > MOST_AGE_S else self.timings[-1]["seconds"]

    def _work(self) -> Any:
        np.matmul(self._a, self._b, out=self._product)
        np.copyto(self._target, self._source)
