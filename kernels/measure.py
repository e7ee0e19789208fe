"""How one case is measured: compile, check, memory, then time; each apart from the others."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from kernels import get_backend
from kernels.problem import Problem
from kernels.registry import Op

MIN_ROUNDS = 3
MAX_ROUNDS = 1000
TIMED_S = 0.1
"""Seconds of timing that a case aims at, between `MIN_ROUNDS` and `MAX_ROUNDS` rounds."""
WARM_UP_S = 0.02
LEAST_COMPILE_S = 0.02
"""A first call that takes less than this longer than the second has not compiled: its caches were cold."""
TRACED_S = 2.0
"""Seconds that tracing one call may take, however large the budget for timing is."""
TRACING_FACTOR = 15.0
"""What tracing allocations costs at most, as a multiple of a call: the loops allocate every number."""


def seconds_of(call: Callable[[], Any]) -> tuple[float, Any]:
    """How long `call` took, and what it returned."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


class FirstCalls:
    """Runs problems, and keeps apart what compiling backends spend on being called for the first time.

    That is compilation, or loading the result from the backend's cache.
    """

    def __init__(self) -> None:
        self._spent_s: dict[str, float] = {}

    def run(self, problem: Problem, backend: str) -> tuple[float, tuple[np.ndarray, ...]]:
        """The seconds of one call without compilation, and its results."""
        seconds, results = seconds_of(lambda: problem.run(backend))
        if get_backend(backend).compiles:
            first_s = seconds
            seconds, results = seconds_of(lambda: problem.run(backend))
            if first_s - seconds > LEAST_COMPILE_S:
                self._spent_s[backend] = self._spent_s.get(backend, 0.0) + first_s - seconds
        return seconds, results

    def take_s(self, backend: str) -> float | None:
        """Seconds spent on first calls since this was last asked; None for a backend that never compiles."""
        return self._spent_s.pop(backend, 0.0) if get_backend(backend).compiles else None


class Memory:
    """Measures the most memory that calls hold, where tracing them fits into `budget_s`.

    Counts what NumPy and Python allocate beyond what there was, results included. Buffers inside compiled
    code and BLAS are not seen; the backends keep theirs to a few rows.
    """

    def __init__(self, budget_s: float) -> None:
        self.budget_s = budget_s
        self._factors: dict[tuple[str, Op], float] = {}

    def peak_bytes(
        self, problem: Problem, backend: str, call_s: float, out: tuple[np.ndarray, ...] | None = None
    ) -> int | None:
        """The peak of one call that takes `call_s` untraced; None where tracing would take too long.

        With `out` to write to, results are not counted.
        """
        key = backend, problem.op
        if call_s * self._factors.get(key, TRACING_FACTOR) > self.budget_s:
            return None
        start = time.perf_counter()
        peak = traced_peak(lambda: problem.run(backend, out))
        self._factors[key] = (time.perf_counter() - start) / call_s
        return peak


def traced_peak(call: Callable[[], Any]) -> int:
    """The most bytes that `call` held at a time beyond what there was."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def rounds_for(call_s: float) -> int:
    """Timed rounds for a call of `call_s` seconds."""
    return int(min(MAX_ROUNDS, max(MIN_ROUNDS, TIMED_S / call_s)))


def warm_up_rounds_for(call_s: float) -> int:
    """Untimed rounds before them: none for a call that is long enough to warm up by itself."""
    return int(min(MAX_ROUNDS, WARM_UP_S / call_s))


def median_s(call: Callable[[], Any], call_s: float) -> float:
    """Median seconds of a `call` that takes about `call_s`: warmed up, over as many rounds as fit."""
    for _ in range(warm_up_rounds_for(call_s)):
        call()
    return median(seconds_of(call)[0] for _ in range(rounds_for(call_s)))
