"""Short trials of the machine, for the doctor: its clock, a product, and a loop on several threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.measure import seconds_of
from kernels.registry import available_backends

SIZE = 256
"""Rows and columns of what is multiplied, and copied."""
CALLS = 200
CALLS_S = 0.2
"""Seconds after which a slow machine is spared the rest of the calls, but for `LEAST_CALLS`."""
LEAST_CALLS = 20
LOOP_WORK = 100
"""Makes a copy, which is a small one, count as work enough for several threads."""
READINGS = 2000
"""Of the clock."""


def tick_s() -> float:
    """The least time that the clock can tell, reading it included."""
    readings = np.array([time.perf_counter() for _ in range(READINGS)])
    steps = np.diff(readings)
    return max(float(steps[steps > 0].min(initial=1.0)), time.get_clock_info("perf_counter").resolution)


def product_s() -> tuple[float, ...]:
    """A product of fixed matrices on the pinned threads."""
    a, out = _square(), _square()
    return _times_s(lambda: np.matmul(a, a, out=out))


def loop_s(threads: int) -> tuple[float, ...]:
    """A copy by a compiled loop on the pinned threads, when BLAS's threads have had something to do."""
    if threads == 1 or "numba" not in available_backends():
        return ()
    from benchmarks.numba_copy import copy

    a, out = _square(), _square()
    np.matmul(a, a, out=out)
    return _times_s(lambda: copy(a.nbytes * LOOP_WORK, a, out))


def _square() -> np.ndarray:
    return np.linspace(-1, 1, SIZE**2, dtype=np.float32).reshape(SIZE, SIZE)


def _times_s(call: Callable[[], Any]) -> tuple[float, ...]:
    """The seconds of each of `CALLS` warm calls, or of as many as `CALLS_S` allows."""
    for _ in range(LEAST_CALLS):
        call()
    times: list[float] = []
    while len(times) < CALLS and (len(times) < LEAST_CALLS or sum(times) < CALLS_S):
        times.append(seconds_of(call)[0])
    return tuple(times)
