"""The `tiled` backend's db: sums of planes, a vector of partial sums at a time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils

from kernels.jit import Kernel
from kernels.spec import ConvSpec
from kernels.tiled_vectors import Vectors, call_emitted, compiled, i64, lanes
from kernels.tiled_work import workspace

_NUMBERS = 4
"""Added by vectors, memory permitting, in the time of an operation of the loops that `jit` has in mind."""


@lru_cache(maxsize=4)
def plane_sums(dtype: np.dtype) -> int:
    """The address of what sums planes, as many partial sums as a vector has lanes.

    Its arguments: the address of the first plane, planes, bytes from one to the next, elements of each, the
    address of the partial sums, and seven that are not used.
    """

    def emit(builder: ir.IRBuilder, source, planes, step, count, sums, *_: ir.Value) -> None:
        vectors = Vectors(builder, dtype)
        wide = i64(vectors.wide)
        total = cgutils.alloca_once_value(builder, ir.Constant(vectors.vector, None))
        with cgutils.for_range(builder, planes) as plane:
            first = builder.add(source, builder.mul(plane.index, step))
            with cgutils.for_range_slice(builder, i64(0), count, wide) as (at, _):
                loaded = vectors.load(vectors.at(first, at), vectors.below(builder.sub(count, at)))
                builder.store(builder.fadd(builder.load(total), loaded), total)
        vectors.store(builder.load(total), sums)

    return compiled(f"planes_{dtype.name}", emit)


@Kernel
def sum_filters(dy, N, K, plane, address, wide, partial, db):
    """db[k] = the sum of dy (N, K, plane); `partial` (K, wide)."""
    size = dy.itemsize
    for k in prange(K):
        call_emitted(address, dy.ctypes.data + k * plane * size, N, K * plane * size, plane,
                     partial.ctypes.data + k * wide * size, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip
        total = dy.dtype.type(0)
        for lane in range(k * wide, (k + 1) * wide):
            total += partial[lane]
        db[k] = total


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    wide = lanes(dy.dtype)
    sum_filters(
        dy.size // _NUMBERS, dy, spec.N, spec.K, spec.OH * spec.OW, plane_sums(dy.dtype), wide,
        workspace("partial sums", spec.K * wide, dy.dtype), db,
    )  # fmt: skip
