"""The `winograd` backend's forward and dx: the loops around transforms and products, compiled.

See `winograd_plan` for how the work is cut up, and `winograd_transforms` for the method. Here workers share
out the tiles, or images; in `winograd_filters` the filters.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_copy import size_of
from kernels.tiled_tile import WORTH_A_LAUNCH
from kernels.tiled_work import room, workspace, zeros
from kernels.winograd_filters import correlate_filters
from kernels.winograd_images import correlate_bands
from kernels.winograd_plan import Plan, plan, weights_size
from kernels.winograd_tiles import (
    PIECE,
    cut_vector,
    lay_results,
    place_of_channel,
    size_of_weights,
    transform_channel,
    transform_filters,
)

_INTEGERS = np.dtype(np.intp)


@Kernel
def transform_weights(jobs, w, geometry, u):
    """u (slices, groups * filters, ...) = the transformed weights, in the order in which they are read."""
    for job in prange(jobs):
        g = geometry[0]
        size = w.itemsize
        panels = (g.filters + g.rows - 1) // g.rows
        group, first = job // panels, job % panels * g.rows
        filters = min(g.rows, g.filters - first)
        of_group = w.ctypes.data + group * g.group_step * size
        for begin in range(0, g.channels, g.together):
            end = min(begin + g.together, g.channels)
            place = size_of_weights(g.groups * g.filters, 0, begin, g)
            place += size_of_weights(group * g.filters + first, begin, end, g)
            panel = u.ctypes.data + place * size
            transform_filters(w.dtype.type(0), first, filters, begin, end, of_group, g, panel)


@Kernel
def correlate_tiles(workers, images, source, u, bias, zeros, out, geometry, results, pieces, work):
    """out = source correlated with transformed weights u, plus bias. Workers share out tiles, or images.

    u: the weights as they are where each worker transforms them for itself.
    """
    for worker in prange(workers):
        zero, g = work.dtype.type(0), geometry[0]
        if g.band:
            correlate_bands(zero, worker, workers, images, source.ctypes.data, u.ctypes.data,
                            bias.ctypes.data, out.ctypes.data, g, results, work.ctypes.data)  # fmt: skip
        else:
            correlate_share(zero, worker, workers, images, source.ctypes.data, u.ctypes.data,
                            bias.ctypes.data, zeros.ctypes.data, out.ctypes.data, g, results, pieces[worker],
                            work.ctypes.data)  # fmt: skip


@helper
def correlate_share(
    zero, worker, workers, images, source, u, bias, zeros, out, g, results, pieces, work
):  # fmt: skip
    """One worker's share of the tiles. Arrays by their addresses, but for small ones."""
    size = size_of(zero)
    v = work + worker * g.work * size
    scratch = v + g.scratch * size
    total = images * g.tiles_down * g.tiles_across
    begin, end = worker * total // workers, (worker + 1) * total // workers
    vectors = (end - begin + g.wide - 1) // g.wide
    blocks = (vectors + g.vectors - 1) // g.vectors
    for block in range(blocks):
        first = begin + block * vectors // blocks * g.wide
        last = min(begin + (block + 1) * vectors // blocks * g.wide, end)
        for at in range(first, last, g.wide):
            cut_vector(at, min(at + g.wide, last), g, pieces[(at - first) // g.wide])
        for group in range(g.groups):
            for c in range(0, g.channels, g.together):
                beyond = min(c + g.together, g.channels)
                for i in range(c, beyond):
                    transform_channel(zero, group * g.channels + i, first, last, source, g, scratch,
                                      v + place_of_channel(i - c, g) * size)  # fmt: skip
                place = size_of_weights(g.groups * g.filters, 0, c, g)
                place += size_of_weights(group * g.filters, c, beyond, g)
                lay_results(zero, group * g.filters, (group + 1) * g.filters, c, beyond, last - first,
                            u + place * size, v, bias if c == 0 else zeros, out, g, results,
                            pieces)  # fmt: skip


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    found = plan(spec, "forward", x.dtype, active())
    _correlate(found, spec.flops, x, w, zeros(spec.K, x.dtype) if b is None else b, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy, padded, correlated with w turned by 180 degrees, filters and channels exchanged.

    At a stride, so are phases of dx. What no window touches is zero, not only nearly.
    """
    found = plan(spec, "dx", dy.dtype, active())
    _correlate(found, spec.flops, dy, w, zeros(spec.C, dy.dtype), dx)
    dx[:, :, spec.rows.touched :] = 0
    dx[:, :, :, spec.cols.touched :] = 0


def _correlate(
    plan: Plan, flops: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    g = plan.geometry
    workers, images = active(), len(source)
    source, w, y = source.reshape(-1), w.reshape(-1), out.reshape(-1)
    work = workspace("work", workers * g.work, w.dtype)
    cost = flops // WORTH_A_LAUNCH
    start = zeros(len(bias), w.dtype)
    if plan.by_filters:
        v = workspace("transformed data", g.block // (g.along * g.wide) * g.v_tile, w.dtype)
        pieces = room("pieces", (g.block // g.wide, g.wide + 1, PIECE), _INTEGERS)
        correlate_filters(
            cost, workers, images, source, w, bias, start, y, plan.record, plan.results, pieces, v, work
        )
    else:
        u = w
        if not g.own:
            u = workspace("transformed weights", weights_size(g, g.groups * g.filters, g.channels), w.dtype)
            transform_weights(w.size * g.positions, g.groups * -(-g.filters // g.rows), w, plan.record, u)
        pieces = room("pieces", (workers, g.vectors, g.wide + 1, PIECE), _INTEGERS)
        correlate_tiles(
            cost, workers, images, source, u, bias, start, y, plan.record, plan.results, pieces, work
        )
