"""The `winograd` backend's dw: a sum over tiles of products of what is transformed, transformed back.

As y = A^T [(G g G^T) * (B^T d B)] A for each tile, the gradient of the weights g is

    dw = G^T [sum over tiles of (A dy A^T) * (B^T d B)] G

with as many multiplications as forward. Each worker computes a part of the filters and of the channels for
all tiles, so that it has its own sums dU (positions, filters, channels). Vectors lie along channels: what the
data are transformed to is turned, block by block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.arrays import readonly, records
from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_copy import turn, turner
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import workspace, zeros
from kernels.winograd_conv import transform_plane
from kernels.winograd_plan import apart, tile_for
from kernels.winograd_transforms import data_transform, gradient_transform, weight_gradient_transform

BLOCK = 64
"""Tiles that are transformed and multiplied at a time."""
STRETCH = 32 * BLOCK
"""Tiles whose products are summed by themselves: one sum over all of many tiles would be rounded more."""


class Geometry(NamedTuple):
    """Where the compiled loops find things; all in elements. They take it as a record, by a pointer."""

    groups: int
    channels: int
    filters: int
    """Of a group."""
    H: int
    W: int
    top: int
    left: int
    OH: int
    OW: int
    outputs: int
    """Of a tile, along an axis."""
    positions: int
    tiles_down: int
    tiles_across: int
    rows: int
    panels: int
    filter_parts: int
    """Filters that are multiplied at a time, how many such panels there are, and among how many workers."""
    wide: int
    along: int
    channel_parts: int
    """Numbers in a vector, vectors of channels that are multiplied at a time, workers that share them."""
    c_row: int
    """Channels, filled up to whole vectors."""
    turned_row: int
    """From a tile to the next in the turned transforms: an odd number of vectors, for the caches."""
    du_step: int
    v_step: int
    e_step: int
    turned_step: int
    """From a position to the next: in dU, the transforms of some channels, those of dy, the turned ones."""
    pitch: int
    e: int
    turned: int
    scratch: int
    work: int
    """Where the parts of a worker's workspace begin, and its size."""
    taps: int
    """Weights of a filter and channel."""
    data: int
    gradient: int
    back: int
    turner: int
    """Addresses of the transforms."""


class Plan(NamedTuple):
    """dw of one layer, as the compiled loops take it."""

    geometry: Geometry
    record: np.ndarray
    table: np.ndarray
    """Where tiles lie in both transforms, one of them turned: intp (BLOCK, 2)."""
    tiles: np.ndarray
    """intp (rows + 1, along + 1): the address of the register tile for so many filters and vectors."""


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> Plan:
    """How to compute dw."""
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    shape = tile_for(spec.OH, spec.OW, spec.R, spec.S)
    outputs, positions = shape.outputs, shape.positions
    down, across = -(-spec.OH // outputs), -(-spec.OW // outputs)
    wide = lanes(dtype)
    along = min(4 if registers() > 12 else 2, -(-channels // wide))
    rows = min(registers() // 12 * 12 // along, 12, filters)
    c_row = -(-channels // wide) * wide
    turned_row = (c_row // wide | 1) * wide
    filter_parts = _filter_parts(channels, filters, along * wide, threads)
    pitch = shape.pitch(across, wide)
    v_step, e_step, turned_step = (
        apart(count, dtype) for count in (wide * BLOCK, filters * BLOCK, turned_row * BLOCK)
    )
    e = positions * v_step
    turned = e + positions * e_step
    scratch = turned + positions * turned_step
    geometry = Geometry(
        groups=spec.groups, channels=channels, filters=filters, H=spec.H, W=spec.W, top=spec.rows.before,
        left=spec.cols.before, OH=spec.OH, OW=spec.OW, outputs=outputs, positions=positions, tiles_down=down,
        tiles_across=across, rows=rows, panels=-(-filters // rows), filter_parts=filter_parts, wide=wide,
        along=along, channel_parts=threads // filter_parts, c_row=c_row, turned_row=turned_row,
        du_step=apart(spec.groups * filters * c_row, dtype), v_step=v_step, e_step=e_step,
        turned_step=turned_step, pitch=pitch, e=e, turned=turned, scratch=scratch,
        work=scratch + shape.height * pitch, taps=spec.R * spec.S,
        data=data_transform(shape, dtype), gradient=gradient_transform(shape, dtype),
        back=weight_gradient_transform(shape, dtype), turner=turner(dtype),
    )  # fmt: skip
    addresses = np.zeros((rows + 1, along + 1), np.intp)
    for numbers in {rows, filters % rows} - {0}:
        for vectors in range(1, along + 1):
            addresses[numbers, vectors] = tile(Shape(numbers, 1, 1, vectors), dtype)
    table = np.outer(np.arange(BLOCK), [1, turned_row])
    return Plan(geometry, records([geometry]), readonly(table), readonly(addresses))


def _filter_parts(channels: int, filters: int, strip: int, threads: int) -> int:
    """Among how many workers filters are shared out; the rest of `threads` is for channels.

    Workers with other filters of the same channels transform the same data, and the other way round: the
    fewer the better. But no part of the channels should be narrower than a register tile.
    """
    divisors = (n for n in range(1, threads + 1) if threads % n == 0)
    allowed = [n for n in divisors if n == threads or channels * n >= strip * threads]
    return min(allowed, key=lambda n: channels * n + filters * (threads // n))


@Kernel
def sum_products(workers, images, x, dy, zeros, geometry, table, tiles, work, du, further):
    """du (positions, groups * filters, c_row) = the sums over all tiles.

    `further` holds those of each stretch but the first, one after the other; it is as large, or not needed.
    """
    for worker in prange(workers):
        sum_part(worker, images, x, dy, zeros, geometry, table, tiles, work, du, further)


@helper
def sum_part(worker, images, x, dy, zeros, geometry, table, tiles, work, du, further):
    """Those of one worker's part of the filters and channels."""
    g = geometry[0]
    filter_part, channel_part = worker % g.filter_parts, worker // g.filter_parts
    first_filter = filter_part * g.panels // g.filter_parts * g.rows
    last_filter = min((filter_part + 1) * g.panels // g.filter_parts * g.rows, g.filters)
    vectors = g.c_row // g.wide
    first_channel = channel_part * vectors // g.channel_parts * g.wide
    last_channel = (channel_part + 1) * vectors // g.channel_parts * g.wide
    total = images * g.tiles_down * g.tiles_across
    for group in range(g.groups):
        for first in range(0, total, BLOCK):
            last = min(first + BLOCK, total)
            transform_channels(worker, group, first_channel, last_channel, first, last, x, geometry, work)
            transform_gradients(worker, group, first_filter, last_filter, first, last, dy, geometry, work)
            add_products(worker, group, first_filter, last_filter, first_channel, last_channel, first, last,
                         zeros, geometry, table, tiles, work, du if first < STRETCH else further)  # fmt: skip
            if first >= STRETCH and (last % STRETCH == 0 or last == total):
                add_stretch(
                    group, first_filter, last_filter, first_channel, last_channel, geometry, du, further
                )


@helper
def transform_channels(worker, group, first_channel, last_channel, first, last, x, geometry, work):
    """The transforms of the data of tiles `first` to `last`, turned: (positions, tiles, channels)."""
    g = geometry[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    base = work.ctypes.data + worker * g.work * size
    plane = g.H * g.W * size
    for c in range(first_channel, last_channel, g.wide):
        count = min(g.wide, g.channels - c)
        for i in range(count):
            transform_plane(g.data, x.ctypes.data + (group * g.channels + c + i) * plane,
                            g.groups * g.channels * plane, g.H, g.W, g.top, g.left, first, last,
                            g.tiles_down, g.tiles_across, g.outputs, base + g.scratch * size, g.pitch,
                            base + i * BLOCK * size, g.v_step, size)  # fmt: skip
        for position in range(g.positions):
            turn(zero, g.turner, base + position * g.v_step * size, count, BLOCK, last - first,
                 base + (g.turned + position * g.turned_step + c) * size, g.turned_row, 1)  # fmt: skip


@helper
def transform_gradients(worker, group, first_filter, last_filter, first, last, dy, geometry, work):
    """The transforms of dy of tiles `first` to `last`: (positions, filters, tiles)."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    plane = g.OH * g.OW * size
    for k in range(first_filter, last_filter):
        transform_plane(g.gradient, dy.ctypes.data + (group * g.filters + k) * plane,
                        g.groups * g.filters * plane, g.OH, g.OW, 0, 0, first, last,
                        g.tiles_down, g.tiles_across, g.outputs, base + g.scratch * size, g.pitch,
                        base + (g.e + k * BLOCK) * size, g.e_step, size)  # fmt: skip


@helper
def add_products(
    worker, group, first_filter, last_filter, first_channel, last_channel, first, last, zeros, geometry,
    table, tiles, work, du,
):  # fmt: skip
    """du += those of a block of tiles; the first block of a stretch begins them."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    start = zeros.ctypes.data if first % STRETCH == 0 else 0
    strip = g.along * g.wide
    for position in range(g.positions):
        for c in range(first_channel, last_channel, strip):
            vectors = min(g.along, (last_channel - c) // g.wide)
            v = base + (g.turned + position * g.turned_step + c) * size
            for k in range(first_filter, last_filter, g.rows):
                s = base + (g.e + position * g.e_step + k * BLOCK) * size
                to = du.ctypes.data + (position * g.du_step + (group * g.filters + k) * g.c_row + c) * size
                call_emitted(tiles[min(g.rows, last_filter - k), vectors], s, BLOCK, v, 0, table.ctypes.data,
                          1, last - first, to, g.c_row, 0, vectors * g.wide, start)  # fmt: skip


@helper
def add_stretch(group, first_filter, last_filter, first_channel, last_channel, geometry, du, further):
    """du += the sums of a stretch, in a worker's part of the filters and channels."""
    g = geometry[0]
    for position in range(g.positions):
        for k in range(first_filter, last_filter):
            row = position * g.du_step + (group * g.filters + k) * g.c_row
            for c in range(row + first_channel, row + last_channel):
                du[c] += further[c]


@Kernel
def transform_back(filters, du, geometry, dw):
    """dw (groups * filters, channels, taps), from du."""
    for k in prange(filters):
        transform_filter_back(k, du, geometry, dw)


@helper
def transform_filter_back(k, du, geometry, dw):
    """One filter's."""
    g = geometry[0]
    size = du.itemsize
    for c in range(0, g.channels, g.wide):
        call_emitted(g.back, du.ctypes.data + (k * g.c_row + c) * size, g.du_step,
                  dw.ctypes.data + (k * g.channels + c) * g.taps * size, g.channels - c,
                  0, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from sums over all tiles."""
    found = plan(spec, x.dtype, active())
    g = found.geometry
    workers = active()
    work = workspace("work", workers * g.work, x.dtype)
    tiles = spec.N * g.tiles_down * g.tiles_across
    du = workspace("transformed weights", g.positions * g.du_step, x.dtype)
    further = workspace("sums of stretches", g.positions * g.du_step if tiles > STRETCH else 0, x.dtype)
    sum_products(
        spec.flops // WORTH_A_LAUNCH, workers, spec.N, x.reshape(-1), dy.reshape(-1), zeros(g.rows, x.dtype),
        found.record, found.table, found.tiles, work, du, further,
    )  # fmt: skip
    transform_back(dw.size * g.positions, spec.K, du, found.record, dw.reshape(-1))
