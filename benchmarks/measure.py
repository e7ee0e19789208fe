"""How one case is measured: compile, check, memory, then time; each apart from the others."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kernels import available_backends, get_backend
from kernels.problem import Problem
from kernels.registry import Op

MIN_ROUNDS = 3
MAX_ROUNDS = 200
TIMED_S = 0.1
"""Seconds of timing that a case aims at, between `MIN_ROUNDS` and `MAX_ROUNDS` rounds."""
WARM_UP_S = 0.02
TRACING_FACTOR = 15
"""What tracing allocations costs at most, as a multiple of a call: the loops allocate every number."""


@contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """BLAS, OpenMP and Numba on `threads` threads."""
    with threadpool_limits(limits=threads):
        if "numba" not in available_backends():
            yield
            return
        import numba

        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            yield
        finally:
            numba.set_num_threads(before)


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
        self._spent_s: dict[tuple[str, str, Op], float] = {}

    def run(self, problem: Problem, backend: str) -> tuple[float, tuple[np.ndarray, ...]]:
        """The seconds of one call without compilation, and its results."""
        seconds, results = seconds_of(lambda: problem.run(backend))
        if get_backend(backend).compiles:
            first_s = seconds
            seconds, results = seconds_of(lambda: problem.run(backend))
            key = backend, problem.spec.kind, problem.op
            self._spent_s[key] = self._spent_s.get(key, 0.0) + max(0.0, first_s - seconds)
        return seconds, results

    def spent_s(self, backend: str, kind: str, op: Op) -> float | None:
        """Seconds spent so far on first calls of `op` on layers of `kind`; None for what never compiles."""
        return self._spent_s.get((backend, kind, op))


def peak_bytes(call: Callable[[], Any]) -> int:
    """The most memory that `call` held at a time beyond what there was, its results included.

    Counts what NumPy and Python allocate. Buffers inside compiled code and BLAS are not seen; the
    backends keep theirs to a few rows.
    """
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
