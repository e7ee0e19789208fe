"""The `tiled` backend's db: sums of planes, a vector of partial sums at a time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils

from kernels.jit import Kernel
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_vectors import Vectors, call_emitted, compiled, i64, lanes
from kernels.tiled_work import workspace

_NUMBERS = 4
"""Added by vectors, memory permitting, in the time of an operation of the loops that `jit` has in mind."""


@lru_cache(maxsize=4)
def plane_sums(dtype: np.dtype) -> int:
    """The address of what adds the sums of planes side by side to partial sums, a vector of these for each.

    Its arguments: the address of the first plane, planes, elements of each, the address of the partial sums,
    and eight that are not used. Sums of planes are rounded less than one sum over all images would be.
    """

    def emit(builder: ir.IRBuilder, source, planes, count, sums, *_: ir.Value) -> None:
        vectors = Vectors(builder, dtype)
        wide = i64(vectors.wide)
        total = cgutils.alloca_once(builder, vectors.vector)
        with cgutils.for_range(builder, planes) as plane:
            first = vectors.at(source, builder.mul(plane.index, count))
            builder.store(ir.Constant(vectors.vector, None), total)
            with cgutils.for_range_slice(builder, i64(0), count, wide) as (at, _):
                loaded = vectors.load(vectors.at(first, at), vectors.below(builder.sub(count, at)))
                builder.store(builder.fadd(builder.load(total), loaded), total)
            place = vectors.at(sums, builder.mul(plane.index, wide))
            vectors.store(builder.fadd(vectors.load(place), builder.load(total)), place)

    return compiled(f"planes_{dtype.name}", emit)


@Kernel
def sum_filters(workers, dy, N, K, plane, address, wide, partial, db):
    """db[k] = the sum of dy (N, K, plane); `partial` (K, wide)."""
    size = dy.itemsize
    for worker in prange(workers):
        first, last = worker * K // workers, (worker + 1) * K // workers
        partial[first * wide : last * wide] = 0
        for n in range(N):
            call_emitted(address, dy.ctypes.data + (n * K + first) * plane * size, last - first, plane,
                         partial.ctypes.data + first * wide * size, 0, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip
        for k in range(first, last):
            total = dy.dtype.type(0)
            for lane in range(k * wide, (k + 1) * wide):
                total += partial[lane]
            db[k] = total


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    wide = lanes(dy.dtype)
    sum_filters(
        dy.size // _NUMBERS, active(), dy, spec.N, spec.K, spec.OH * spec.OW, plane_sums(dy.dtype), wide,
        workspace("partial sums", spec.K * wide, dy.dtype), db,
    )  # fmt: skip
