"""Compiling loops with Numba so that they are cached, parallel where it pays, and safe to call.

Each function is compiled twice, at need: with its `prange` loops parallel, and serial. The serial one
serves small work, where starting threads costs more than it saves, and the cases in which a parallel
launch is not safe: a second Python thread while one is under way (Numba's workqueue layer is not
thread-safe, and two teams on the same cores gain nothing), and a process forked from one that has
already launched (GNU OpenMP does not survive a fork).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba

from kernels import fork
from kernels.sources import digest

# Sums may be reordered and fused, but NaN and infinity keep their meaning: max pooling propagates them.
_FASTMATH = {"contract", "reassoc", "nsz", "arcp"}
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
# Below this many operations (some 20 microseconds of one core) a launch of threads costs more than it saves.
_LEAST_PARALLEL_WORK = 400_000


class _Launch:
    """The one parallel launch that a process has under way at a time."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start afresh: after a fork the lock may be held by a thread that is not there."""
        self.lock = threading.Lock()


_launch = _Launch()
fork.after_fork.append(_launch.renew)


class Kernel:
    """A compiled function, serial or parallel as the work and the process allow."""

    def __init__(self, function: Callable[..., None]) -> None:
        self.__doc__ = function.__doc__
        # Numba's cache tells functions apart by qualified name, not by options: the twin needs its own.
        twin = FunctionType(function.__code__, function.__globals__, function.__name__)
        twin.__qualname__ = f"{function.__qualname__}_parallel"
        self.serial, self.parallel = _compile(function), _compile(twin, parallel=True)

    def __call__(self, work: int, *arguments: Any) -> None:
        """Run on `arguments`; `work` is the number of operations to expect."""
        wanted = work >= _LEAST_PARALLEL_WORK and not fork.forked_from_launched
        if wanted and numba.get_num_threads() > 1 and _launch.lock.acquire(blocking=False):
            try:
                self.parallel(*arguments)
            finally:
                _launch.lock.release()
        else:
            self.serial(*arguments)


def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    options = {"fastmath": _FASTMATH, **_OPTIONS, **options}
    function.__qualname__ += f"_{digest(function.__module__)}"  # by which Numba's cache finds it again
    try:
        compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # nowhere to write a cache: an install that is read-only, and no home
        compiled = numba.njit(**options)(function)
    return compiled


def is_launched(work: int) -> bool:
    """Whether so much work is shared by threads, if there are several."""
    return work >= _LEAST_PARALLEL_WORK


def helper(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function for use inside kernels."""
    return _compile(function)


def in_order(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function that computes in the order in which it is written."""
    return _compile(function, fastmath=False)
