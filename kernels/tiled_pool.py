"""The `tiled` backend's pooling: plane by plane, by functions that are emitted."""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels import numba_pool
from kernels.arrays import check_positions, readonly
from kernels.jit import Kernel, helper, in_order
from kernels.spec import PoolSpec
from kernels.tiled_pool_emit import maxima_dx
from kernels.tiled_pool_plan import Plan, forward, means_backward, one_divisor, shares
from kernels.tiled_vectors import call_emitted
from kernels.tiled_work import workspace

_MOST_TAPS = 63
"""Of windows that are computed here: the taps of a row are unrolled."""
_MOST_STRIDE = 8
"""Between columns: as many vectors are loaded, or stored, side by side."""
_SCATTERED = 16
"""Operations, in the sense of `Kernel`, in the time that it takes to add a dy at its index."""
_NO_INDICES = np.empty((0, 0, 0, 0), np.int64)


@Kernel
def over_planes(x, y, indices, plan):
    """Every plane of y, and of indices unless empty, from x."""
    planes = y.size // plan[0].y_size
    for plane in prange(planes):
        one_plane(plane, x.ctypes.data, y.ctypes.data, indices.ctypes.data, x.itemsize, plan)


@helper
def one_plane(plane, x, y, indices, size, plan):
    """One of them; arrays by their addresses."""
    p = plan[0]
    call_emitted(
        p.address, x + (plane * p.x_size + p.begin) * size, y + plane * p.y_size * size,
        indices + plane * p.y_size * 8, p.rows.address, p.rows.rows, p.columns.address, p.columns.rows,
        p.numbers.address, p.width, p.row_step, p.outputs, p.left,
    )  # fmt: skip


@Kernel
def scatter_over_planes(dy, y_size, indices, dx, x_size, strays, address):
    """Every plane of dx; strays[0] = 1 if an index is none of an input."""
    size = dy.itemsize
    for plane in prange(dx.size // x_size):
        call_emitted(
            address, dy.ctypes.data + plane * y_size * size, dx.ctypes.data + plane * x_size * size,
            indices.ctypes.data + plane * y_size * 8, x_size, y_size, strays.ctypes.data, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip


@in_order
def quotient(number, count):
    """Not the number times the inverse, which would be rounded twice."""
    return number / count


@Kernel
def means_of_planes(x, y):
    """y (planes,) = the mean of each plane of x (planes, pixels)."""
    for plane in prange(len(y)):
        total = x.dtype.type(0)
        for pixel in range(x.shape[1]):
            total += x[plane, pixel]
        y[plane] = quotient(total, x.shape[1])


@Kernel
def spread_over_planes(dy, dx):
    """Each number in a plane of dx (planes, pixels) = its share of dy (planes,)."""
    for plane in prange(len(dy)):
        share = dx.dtype.type(quotient(dy[plane], dx.shape[1]))
        for pixel in range(dx.shape[1]):
            dx[plane, pixel] = share


def _is_global(spec: PoolSpec) -> bool:
    """Whether the one window is the plane: a call for each plane would take ten times as long."""
    return (spec.R, spec.S) == (spec.H, spec.W) and not spec.padded


def _fits(spec: PoolSpec) -> bool:
    """Whether windows are computed here; positions are held in 32 bits."""
    return (
        spec.R * spec.S <= _MOST_TAPS
        and (spec.OW == 1 or spec.stride[1] <= _MOST_STRIDE)
        and spec.H * spec.W < 2**31
    )


def _run(plan: Plan, x: np.ndarray, y: np.ndarray, indices: np.ndarray = _NO_INDICES) -> None:
    """y, and indices unless empty, by a plan."""
    over_planes(plan.work, x, y, indices, plan.record)


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
    if _is_global(spec):
        means_of_planes(x.size, x.reshape(y.size, -1), y.reshape(-1))
    elif _fits(spec):
        _run(forward(spec, x.dtype, False), x, y)
    else:
        numba_pool.avg_pool_forward(spec, x, y)


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy goes to the x that won its window. Raises ValueError for an index outside of the plane."""
    strays = np.zeros(1, np.int64)
    work = _SCATTERED * dy.size + dx.size
    scatter_over_planes(
        work, dy, spec.OH * spec.OW, indices, dx, spec.H * spec.W, strays, maxima_dx(dy.dtype)
    )
    if strays[0]:
        check_positions(indices, spec)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Each x takes a share of the dy of all windows that it is in."""
    if _is_global(spec):
        spread_over_planes(dx.size, dy.reshape(-1), dx.reshape(dy.size, -1))
        return
    if not _fits(spec):
        numba_pool.avg_pool_dx(spec, dy, dx)
        return
    if not one_divisor(spec):
        parts = workspace("shares", dy.size, dy.dtype)[: dy.size].reshape(dy.shape)
        _run(shares(spec, dy.dtype), dy, parts)
        dy = readonly(parts)
    _run(means_backward(spec, dy.dtype), dy, dx)
