"""The machine's ceilings, measured: how fast it multiplies matrices, and how fast it copies.

No method that does all of a layer's arithmetic is faster than the larger of two times: its operations at the
first rate, its least bytes at the second (S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52, 2009).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import psutil

from kernels.forecast import TIMED_CALLS
from kernels.machine import caches
from kernels.measure import median_s, seconds_of
from kernels.registry import available_backends
from kernels.spec import Spec
from kernels.threads import active

GEMM_SIZES = (512, 1024, 2048)
GEMM_S = 1.0
"""Seconds that one size may take; a larger one is left out."""
COPY_BYTES = 64 * 2**20, 512 * 2**20
"""Least and most bytes of the array that is copied; twice the largest cache between them."""
COPY_ROWS = 1024


@dataclass(frozen=True)
class Ceiling:
    """What `threads` threads reach in `dtype`: 1e9 operations/s, and 1e9 bytes/s read and written."""

    gemm_gflops: float
    copy_gbs: float
    dtype: str
    threads: int

    def attainable_s(self, spec: Spec) -> float:
        """Seconds that any operation on `spec` takes at least, with all its arithmetic and data from memory.

        Forward, dx and dw have as many operations, and as many least bytes. A method that saves operations,
        or data that stay in the caches, may take less.
        """
        return max(self._arithmetic_s(spec), self._memory_s(spec))

    def bound(self, spec: Spec) -> str:
        """What `spec` is bound by: "arithmetic" or "memory"."""
        return "arithmetic" if self._arithmetic_s(spec) >= self._memory_s(spec) else "memory"

    def intensity(self, spec: Spec) -> float:
        """Operations for each byte that has to move."""
        return spec.flops / spec.least_bytes(self.dtype)

    @property
    def balance(self) -> float:
        """The intensity at which both bounds meet, in FLOP/byte."""
        return self.gemm_gflops / self.copy_gbs

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def _arithmetic_s(self, spec: Spec) -> float:
        return spec.flops / (self.gemm_gflops * 1e9)

    def _memory_s(self, spec: Spec) -> float:
        return spec.least_bytes(self.dtype) / (self.copy_gbs * 1e9)


def measure_ceiling(dtype: str) -> Ceiling:
    """Measure on the pinned threads, in some two seconds."""
    return Ceiling(_gemm_gflops(dtype), _copy_gbs(dtype), dtype, active())


def _gemm_gflops(dtype: str) -> float:
    """The best size's rate: the peak of small ones is overhead, of large ones memory."""
    rng = np.random.default_rng(0)
    best = 0.0
    for size in GEMM_SIZES:
        flops = 2 * size**3
        if best and flops / (best * 1e9) * TIMED_CALLS > GEMM_S:
            break
        a, b = (np.asarray(rng.standard_normal((size, size)), dtype) for _ in range(2))
        best = max(best, flops / _settled_s(partial(np.matmul, a, b, out=np.empty_like(a))) / 1e9)
    return best


def _copy_gbs(dtype: str) -> float:
    least, most = COPY_BYTES
    size = min(
        max(2 * max(caches().values(), default=0), least), most, psutil.virtual_memory().available // 8
    )
    source = np.ones((COPY_ROWS, size // COPY_ROWS // np.dtype(dtype).itemsize), dtype)
    target = np.zeros_like(source)
    copies: list[Callable[[], Any]] = [partial(np.copyto, target, source)]
    if "numba" in available_backends():
        from benchmarks.numba_copy import copy

        copies.append(partial(copy, source.nbytes, source, target))
    return 2 * source.nbytes / min(map(_settled_s, copies)) / 1e9


def _settled_s(call: Callable[[], Any]) -> float:
    """Median seconds of a call, compiled and warmed up."""
    call()
    return median_s(call, seconds_of(call)[0])
