"""The `winograd` backend's forward and dx where workers share out the filters: few tiles, or more filters.

V of a large block of tiles is made by all workers. Each then takes a panel of filters at a time, whose U and
M stay close: one position after the other is multiplied, by register tiles of `tiled_tile`.
"""

from __future__ import annotations

from numba import prange

from kernels.jit import Kernel, helper
from kernels.tiled_copy import size_of
from kernels.tiled_vectors import call_emitted
from kernels.winograd_tiles import transform_channel, transform_result, transform_slice


@Kernel
def correlate_filters(workers, images, source, w, bias, zeros, out, geometry, table, tiles, v, work):
    """out = source correlated with w, plus bias."""
    g = geometry[0]
    total = images * g.tiles_down * g.tiles_across
    for first in range(0, total, g.block):
        last = min(first + g.block, total)
        for worker in prange(workers):
            transform_share(work.dtype.type(0), worker, workers, first, last, source.ctypes.data, geometry[0],
                            v.ctypes.data, work.ctypes.data)  # fmt: skip
        for worker in prange(workers):
            correlate_panels(work.dtype.type(0), worker, workers, first, last, w.ctypes.data,
                             bias.ctypes.data, zeros.ctypes.data, out.ctypes.data, geometry[0],
                             table.ctypes.data, tiles, v.ctypes.data, work.ctypes.data)  # fmt: skip


@helper
def transform_share(zero, worker, workers, first, last, source, g, v, work):
    """V of the tiles from `first` to `last`, of a share of the channels."""
    size = size_of(zero)
    scratch = work + (worker * g.work + g.scratch) * size
    channels = g.groups * g.channels
    for c in range(worker * channels // workers, (worker + 1) * channels // workers):
        transform_channel(zero, c, first, last, source, g, scratch, v + c * g.v_row * size)


@helper
def correlate_panels(
    zero, worker, workers, first, last, w, bias, zeros, out, g, table, tiles, v, work
):  # fmt: skip
    """Outputs of the tiles from `first` to `last`, of a share of the filters."""
    size = size_of(zero)
    u = work + worker * g.work * size
    m = u + g.m * size
    panels = (g.filters + g.panel - 1) // g.panel
    jobs = g.groups * panels
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        group, k = job // panels, job % panels * g.panel
        filters = min(g.panel, g.filters - k)
        for c in range(0, g.channels, g.depth):
            of_group = w + group * g.group_step * size
            transform_slice(zero, k, k + filters, c, of_group, g, u + c * g.panel * size, g.u_step)
        multiply(zero, filters, last - first, u, v + group * g.channels * g.v_row * size, zeros, g, table,
                 tiles, m)  # fmt: skip
        transform_result(zero, group * g.filters + k, filters, first, last, bias, out, g, m)


@helper
def multiply(zero, filters, count, u, v, zeros, g, table, tiles, m):
    """M = U V of some filters and tiles, position by position and slice by slice."""
    size = size_of(zero)
    vectors = (count + g.wide - 1) // g.wide
    blocks = (vectors + g.vectors - 1) // g.vectors
    for position in range(g.positions):
        for block in range(blocks):
            first = block * vectors // blocks
            along = (block + 1) * vectors // blocks - first
            for c in range(0, g.channels, g.depth):
                depth = min(g.depth, g.channels - c)
                of = v + (position * g.v_step + c * g.v_row + first * g.wide) * size
                start = zeros if c == 0 else 0
                for k in range(0, filters, g.rows):
                    s = u + (position * g.u_step + c * g.panel + k * g.depth) * size
                    to = m + (position * g.m_step + k * g.v_row + first * g.wide) * size
                    call_emitted(tiles[min(g.rows, filters - k), along], s, g.depth, of, 0,
                                 table, 1, depth, to, g.v_row, 0, along * g.wide, start)  # fmt: skip
