"""The `winograd` backend's forward and dx where workers share out the filters: few tiles, or more filters.

V of a large block of tiles is made by all workers. Each then takes a panel of filters at a time, whose U and
M stay close: one position after the other is multiplied, by register tiles of `tiled_tile`.
"""

from __future__ import annotations

from numba import prange

from kernels.jit import Kernel, helper
from kernels.tiled_vectors import call_emitted
from kernels.winograd_tiles import transform_channel, transform_result


@Kernel
def correlate_filters(workers, images, source, w, bias, zeros, out, geometry, table, tiles, v, work):
    """out = source correlated with w, plus bias."""
    g = geometry[0]
    total = images * g.tiles_down * g.tiles_across
    for first in range(0, total, g.block):
        last = min(first + g.block, total)
        for worker in prange(workers):
            transform_share(worker, workers, first, last, source, geometry, v, work)
        for worker in prange(workers):
            correlate_panels(
                worker, workers, first, last, w, bias, zeros, out, geometry, table, tiles, v, work
            )


@helper
def transform_share(worker, workers, first, last, source, geometry, v, work):
    """V of the tiles from `first` to `last`, of a share of the channels."""
    g = geometry[0]
    size = work.itemsize
    scratch = work.ctypes.data + (worker * g.work + g.scratch) * size
    channels = g.groups * g.channels
    for c in range(worker * channels // workers, (worker + 1) * channels // workers):
        transform_channel(c, first, last, source, geometry, scratch, v.ctypes.data + c * g.v_row * size)


@helper
def correlate_panels(worker, workers, first, last, w, bias, zeros, out, geometry, table, tiles, v, work):
    """Outputs of the tiles from `first` to `last`, of a share of the filters."""
    g = geometry[0]
    size = work.itemsize
    u = work.ctypes.data + worker * g.work * size
    m = u + g.m * size
    panels = (g.filters + g.panel - 1) // g.panel
    jobs = g.groups * panels
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        group, k = job // panels, job % panels * g.panel
        filters = min(g.panel, g.filters - k)
        k += group * g.filters
        for c in range(0, g.channels, g.depth):
            transform_slice(k, k + filters, c, w, geometry, u + c * g.panel * size)
        multiply(filters, last - first, u, v.ctypes.data + group * g.channels * g.v_row * size, zeros,
                 geometry, table, tiles, m)  # fmt: skip
        transform_result(k, filters, first, last, bias, out, geometry, m)


@helper
def transform_slice(first, last, c0, w, geometry, to):
    """U (positions, filters, depth) of some filters and one slice of channels."""
    g = geometry[0]
    size = w.itemsize
    for c in range(c0, min(c0 + g.depth, g.channels), g.wide):
        for k in range(first, last):
            place = k // g.filters * (len(w) // g.groups) + k % g.filters * g.filter_step + c * g.channel_step
            u = to + ((k - first) * g.depth + c - c0) * size
            call_emitted(g.weights, w.ctypes.data + place * size, g.channel_step, g.channels - c, u, g.u_step,
                         0, 0, 0, 0, 0, 0, 0)  # fmt: skip


@helper
def multiply(filters, count, u, v, zeros, geometry, table, tiles, m):
    """M = U V of some filters and tiles, position by position and slice by slice."""
    g = geometry[0]
    size = zeros.itemsize
    vectors = (count + g.wide - 1) // g.wide
    blocks = (vectors + g.vectors - 1) // g.vectors
    for position in range(g.positions):
        for block in range(blocks):
            first = block * vectors // blocks
            along = (block + 1) * vectors // blocks - first
            for c in range(0, g.channels, g.depth):
                depth = min(g.depth, g.channels - c)
                of = v + (position * g.v_step + c * g.v_row + first * g.wide) * size
                start = zeros.ctypes.data if c == 0 else 0
                for k in range(0, filters, g.rows):
                    s = u + (position * g.u_step + c * g.panel + k * g.depth) * size
                    to = m + (position * g.m_step + k * g.v_row + first * g.wide) * size
                    call_emitted(tiles[min(g.rows, filters - k), along], s, g.depth, of, 0,
                              table.ctypes.data, 1, depth, to, g.v_row, 0, along * g.wide, start)  # fmt: skip
