"""What all ways to cut up Winograd's convolution share: weights transformed, and products summed."""

from __future__ import annotations

from numba import prange

from kernels.jit import Kernel, helper
from kernels.tiled_vectors import call_emitted

FILTERS = 16
"""Whose weights are transformed at a time: to dx, those of a channel lie side by side."""


@Kernel
def transform_weights(jobs, w, geometry, u):
    """u (positions, slices, groups * filters, depth) = the transformed weights."""
    for job in prange(jobs):
        g = geometry[0]
        first = job // g.slices * FILTERS
        filters = g.groups * g.filters
        c = job % g.slices * g.depth
        to = u.ctypes.data + (c * filters + first * g.depth) * u.itemsize
        transform_slice(first, min(first + FILTERS, filters), c, w, geometry, to)


@helper
def transform_slice(first, last, c0, w, geometry, to):
    """Those of some filters and one slice of channels."""
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
