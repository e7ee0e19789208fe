"""How many threads compute: BLAS, OpenMP and Numba alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from threadpoolctl import threadpool_limits

from kernels.registry import get_backend


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def thread_count(threads: int | None) -> int:
    """`threads`, or all cores for None. Raises ValueError beyond the cores that there are."""
    cores = usable_cores()
    if threads is not None and not 1 <= threads <= cores:
        raise ValueError(f"--threads is {threads}; expected 1 to {cores}, the cores that can be used here")
    return threads or cores


_pinned: ContextVar[int | None] = ContextVar("pinned", default=None)
_CORES = usable_cores()


def active() -> int:
    """The threads that compute now: those pinned, or all cores."""
    return _pinned.get() or _CORES


@contextmanager
def pinned_threads(threads: int) -> Iterator[None]:
    """BLAS, OpenMP and Numba on `threads` threads."""
    before = _pinned.set(threads)
    try:
        with threadpool_limits(limits=threads), _numba_threads(threads):
            yield
    finally:
        _pinned.reset(before)


@contextmanager
def _numba_threads(threads: int) -> Iterator[None]:
    if get_backend("numba").unavailable:
        yield
        return
    import numba

    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        yield
    finally:
        numba.set_num_threads(before)


@contextmanager
def sharing_cores() -> Iterator[None]:
    """BLAS on one thread, as long as its idle threads would take the cores from those of compiled loops.

    OpenBLAS's threads spin for some 30 ms after each product. A network that alternates products with
    compiled loops then spends most of its time waiting (three times as long a step, on two cores). They sleep
    soon, and may stay, in a process that was started with OPENBLAS_THREAD_TIMEOUT set to 4.
    """
    if os.environ.get("OPENBLAS_THREAD_TIMEOUT") == "4":
        yield
    else:
        with threadpool_limits(limits=1, user_api="blas"):
            yield
