"""The `tiled` backend's pooling: plane by plane, by functions that are emitted for a row's taps."""

from __future__ import annotations

from math import prod

import numba
import numpy as np
from numba import prange

from kernels import numba_pool
from kernels.arrays import check_positions, readonly
from kernels.jit import Kernel
from kernels.spec import PoolSpec
from kernels.tiled_pool_plan import Plan, forward, maxima_backward, means_backward, one_divisor, shares
from kernels.tiled_vectors import call_emitted
from kernels.tiled_work import workspace

_MOST_TAPS = 63
"""Of windows that are computed here: the taps of a row are unrolled."""
_MOST_STRIDE = 8
"""Between columns: as many vectors are loaded, or stored, side by side."""
_NO_INDICES = np.empty((0, 0, 0, 0), np.int64)


@Kernel
def over_planes(x, begin, x_size, y, y_size, indices, address, geometry):
    """Every plane of y, and of indices unless empty, from x, in which planes have x_size numbers."""
    size = x.itemsize
    rows, height, columns, vectors, numbers, W, row_step, OW, left = geometry
    for plane in prange(y.size // y_size):
        call_emitted(
            address, x.ctypes.data + (plane * x_size + begin) * size, y.ctypes.data + plane * y_size * size,
            indices.ctypes.data + plane * y_size * 8, rows, height, columns, vectors, numbers, W, row_step,
            OW, left,
        )  # fmt: skip


@Kernel
def max_dx_over_planes(dy, y_size, indices, dx, x_size, parts, memory, matched, address, geometry):
    """Every plane of dx; matched[0] = how many indices are those of a tap of their window.

    Each of the parts has its own memory, of so many int32.
    """
    size = dy.itemsize
    rows, height, columns, vectors, _, W, row_step, OW, margin = geometry
    planes = dx.size // x_size
    total = 0
    for part in prange(parts):
        own = np.full(memory, -1, np.int32)
        count = own[:2].view(np.int64)
        for plane in range(part * planes // parts, (part + 1) * planes // parts):
            call_emitted(
                address, dy.ctypes.data + plane * y_size * size, dx.ctypes.data + plane * x_size * size,
                indices.ctypes.data + plane * y_size * 8, rows, height, columns, vectors, own.ctypes.data, W,
                row_step, OW, margin,
            )  # fmt: skip
            total += count[0]
    matched[0] = total


def _fits(spec: PoolSpec) -> bool:
    """Whether windows are computed here; positions are held in 32 bits."""
    return (
        spec.R * spec.S <= _MOST_TAPS
        and (spec.OW == 1 or spec.stride[1] <= _MOST_STRIDE)
        and spec.H * spec.W < 2**31
    )


def _run(plan: Plan, x: np.ndarray, y: np.ndarray, indices: np.ndarray = _NO_INDICES) -> None:
    """y, and indices unless empty, by a plan."""
    sizes = prod(x.shape[2:]), prod(y.shape[2:])
    over_planes(plan.work, x, plan.begin, sizes[0], y, sizes[1], indices, plan.address, plan.geometry)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """The first maximum of each window, or its last NaN."""
    if not _fits(spec):
        numba_pool.max_pool_forward(spec, x, y, indices)
    elif indices is None:
        _run(forward(spec, x.dtype, False), x, y)
    else:
        _run(forward(spec, x.dtype, True), x, y, indices)


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The sum of each window, over its number of taps."""
    if _fits(spec):
        _run(forward(spec, x.dtype, False), x, y)
    else:
        numba_pool.avg_pool_forward(spec, x, y)


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each x takes the dy of all windows that it won; where an index is of no tap, numba's loops do it all.

    Raises ValueError for an index outside of the plane, which is of no tap either. Windows wider than a row
    could not tell one of its inputs from one of the next row's.
    """
    if _fits(spec) and spec.cols.reach <= spec.W:
        plan = maxima_backward(spec, dy.dtype)
        matched = np.empty(1, np.int64)
        max_dx_over_planes(
            plan.work, dy, spec.OH * spec.OW, indices, dx, spec.H * spec.W, numba.get_num_threads(),
            plan.memory, matched, plan.address, plan.geometry,
        )  # fmt: skip
        if matched[0] == dy.size:
            return
    check_positions(indices, spec)
    numba_pool.max_pool_dx(spec, dy, indices, dx)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Each x takes a share of the dy of all windows that it is in."""
    if not _fits(spec):
        numba_pool.avg_pool_dx(spec, dy, dx)
        return
    if not one_divisor(spec):
        parts = workspace("shares", dy.size, dy.dtype).reshape(dy.shape)
        _run(shares(spec, dy.dtype), dy, parts)
        dy = readonly(parts)
    _run(means_backward(spec, dy.dtype), dy, dx)
