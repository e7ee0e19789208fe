"""The `winograd` backend's forward and dx where workers share out the filters: few tiles, or large weights.

V of a large block of tiles and some channels is made by all workers. Each then takes a few filters at a time,
whose U stays close, and meets all tiles with them, a few vectors at a time.
"""

from __future__ import annotations

from numba import prange

from kernels.jit import Kernel, helper
from kernels.tiled_copy import size_of
from kernels.winograd_tiles import (
    cut_vector,
    lay_results,
    place_of_channel,
    transform_channel,
    transform_filters,
)


@Kernel
def correlate_filters(workers, images, source, w, bias, zeros, out, geometry, results, pieces, v, work):
    """out = source correlated with w, plus bias."""
    g = geometry[0]
    total = images * g.tiles_down * g.tiles_across
    for first in range(0, total, g.block):
        last = min(first + g.block, total)
        for begin in range(0, g.channels, g.together):
            end = min(begin + g.together, g.channels)
            start = bias if begin == 0 else zeros
            for worker in prange(workers):
                transform_share(work.dtype.type(0), worker, workers, first, last, begin, end,
                                source.ctypes.data, geometry[0], pieces, v.ctypes.data,
                                work.ctypes.data)  # fmt: skip
            for worker in prange(workers):
                correlate_panels(work.dtype.type(0), worker, workers, last - first, begin, end,
                                 w.ctypes.data, start.ctypes.data, out.ctypes.data, geometry[0], results,
                                 pieces, v.ctypes.data, work.ctypes.data)  # fmt: skip


@helper
def transform_share(zero, worker, workers, first, last, begin, end, source, g, pieces, v, work):
    """V of the tiles from `first` to `last`, of a share of the slices of some channels; and where some go."""
    size = size_of(zero)
    scratch = work + (worker * g.work + g.scratch) * size
    vectors = (last - first + g.wide - 1) // g.wide
    for n in range(worker * vectors // workers, (worker + 1) * vectors // workers):
        at = first + n * g.wide
        cut_vector(at, min(at + g.wide, last), g, pieces[n])
    together = g.along * g.wide
    slices = (end - begin + g.depth - 1) // g.depth
    jobs = g.groups * slices
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        group, c0 = job // slices, begin + job % slices * g.depth
        of_group = v + group * g.positions * g.v_step * size
        for at in range(first, last, together):
            of_tiles = of_group + (at - first) // together * g.v_tile * size
            for c in range(c0, min(c0 + g.depth, end)):
                transform_channel(zero, group * g.channels + c, at, min(at + together, last), source, g,
                                  scratch, of_tiles + place_of_channel(c - begin, g) * size)  # fmt: skip


@helper
def correlate_panels(zero, worker, workers, tiles, begin, end, w, bias, out, g, results, pieces, v, u):
    """Outputs of the block's tiles, of a share of the filters, from some channels; or adds to them."""
    size = size_of(zero)
    u += worker * g.work * size
    together = g.along * g.wide
    panels = (g.filters + g.rows - 1) // g.rows
    jobs = g.groups * panels
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        group, first = job // panels, job % panels * g.rows
        filters = min(g.rows, g.filters - first)
        filter = group * g.filters + first
        transform_filters(zero, first, filters, begin, end, w + group * g.group_step * size, g, u)
        data = v + group * g.positions * g.v_step * size
        for at in range(0, tiles, together):
            lay_results(zero, filter, filter + filters, begin, end, min(together, tiles - at), u,
                        data + at // together * g.v_tile * size, bias, out, g, results,
                        pieces[at // g.wide :])  # fmt: skip
