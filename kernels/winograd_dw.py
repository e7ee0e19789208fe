"""The `winograd` backend's dw: a sum over tiles of products of what is transformed, transformed back.

As y = A^T [(G g G^T) * (B^T d B)] A for each tile, the gradient of the weights g is

    dw = G^T [sum over tiles of (A dy A^T) * (B^T d B)] G

with as many multiplications as forward. Vectors lie along channels: what the data are transformed to is
turned, block by block. See `winograd_dw_plan` for how the work is cut up.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_copy import turn
from kernels.tiled_tile import WORTH_A_LAUNCH
from kernels.tiled_vectors import call_emitted
from kernels.tiled_work import workspace, zeros
from kernels.winograd_dw_plan import BLOCK, STRETCH, plan
from kernels.winograd_tiles import transform_channel, transform_plane


@Kernel
def sum_products(workers, images, x, dy, zeros, geometry, table, tiles, work, du, further):
    """du (tile_parts, positions, groups * filters, c_row) = the sums over all tiles of a part.

    `further` holds those of each stretch but the first, one after the other; it is as large, or not needed.
    """
    for worker in prange(workers):
        sum_part(worker, images, x, dy, zeros, geometry, table, tiles, work, du, further)


@helper
def sum_part(worker, images, x, dy, zeros, geometry, table, tiles, work, du, further):
    """Those of one worker's part of the tiles, or of the filters and channels."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    e, turned = base + g.e * size, base + g.own * size
    clear_sums(worker, geometry, work)
    blocks = (images * g.tiles_down * g.tiles_across + BLOCK - 1) // BLOCK
    part, rest = worker % g.tile_parts, worker // g.tile_parts
    begin = part * blocks // g.tile_parts * BLOCK
    end = min((part + 1) * blocks // g.tile_parts * BLOCK, images * g.tiles_down * g.tiles_across)
    filter_part, channel_part = rest % g.filter_parts, rest // g.filter_parts
    panels = (g.filters + g.rows - 1) // g.rows
    k = filter_part * panels // g.filter_parts * g.rows
    filters = min((filter_part + 1) * panels // g.filter_parts * g.rows, g.filters) - k
    vectors = g.c_row // g.wide
    first_channel = channel_part * vectors // g.channel_parts * g.wide
    last_channel = (channel_part + 1) * vectors // g.channel_parts * g.wide
    for group in range(g.groups):
        filter = group * g.filters + k
        to = part * g.positions * g.du_step + filter * g.c_row
        for first in range(begin, end, BLOCK):
            last = min(first + BLOCK, end)
            transform_channels(group, first_channel, last_channel, first, last, x, geometry, base, turned)
            transform_gradients(filter, filters, first, last, dy, geometry, base, e)
            sums = du if first - begin < STRETCH else further
            start = zeros.ctypes.data if (first - begin) % STRETCH == 0 else 0
            add_products(filters, first_channel, last_channel, last - first, start, geometry, table, tiles,
                         e, turned, sums.ctypes.data + to * size, size)  # fmt: skip
            if first - begin >= STRETCH and ((last - begin) % STRETCH == 0 or last == end):
                add_sums(filters, first_channel, last_channel, geometry, further[to:], du[to:])


@Kernel
def sum_by_filters(workers, images, x, dy, zeros, geometry, table, tiles, work, turned, dw):
    """dw (groups * filters, channels, taps), panel by panel."""
    for worker in prange(workers):
        turn_share(worker, workers, images, x, geometry, work, turned)
    for worker in prange(workers):
        sum_panels(worker, workers, images, dy, zeros, geometry, table, tiles, work, turned, dw)


@helper
def turn_share(worker, workers, images, x, geometry, work, turned):
    """The transforms of the data of all tiles, of a share of the channels."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    total = images * g.tiles_down * g.tiles_across
    vectors = g.c_row // g.wide
    first_channel, last_channel = (
        worker * vectors // workers * g.wide,
        (worker + 1) * vectors // workers * g.wide,
    )
    for group in range(g.groups):
        for first in range(0, total, BLOCK):
            to = turned.ctypes.data + (group * total + first) * g.turned_row * size
            last = min(first + BLOCK, total)
            transform_channels(group, first_channel, last_channel, first, last, x, geometry, base, to)


@helper
def sum_panels(worker, workers, images, dy, zeros, geometry, table, tiles, work, turned, dw):
    """dw of a share of the filters."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    e, du = base + g.e * size, base + g.own * size
    clear_sums(worker, geometry, work)
    total = images * g.tiles_down * g.tiles_across
    panels = (g.filters + g.panel - 1) // g.panel
    jobs = g.groups * panels
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        group, k = job // panels, job % panels * g.panel
        filters = min(g.panel, g.filters - k)
        filter = group * g.filters + k
        transform_gradients(filter, filters, 0, total, dy, geometry, base, e)
        v = turned.ctypes.data + group * total * g.turned_row * size
        add_products(filters, 0, g.c_row, total, zeros.ctypes.data, geometry, table, tiles, e, v, du, size)
        for i in range(filters):
            transform_filter_back(filter + i, du + i * g.c_row * size, geometry, dw)


@helper
def transform_channels(group, first_channel, last_channel, first, last, x, geometry, base, to):
    """The transforms of the data of tiles `first` to `last`, turned: (positions, tiles, channels)."""
    g = geometry[0]
    size = x.itemsize
    zero = x.dtype.type(0)
    for c in range(first_channel, last_channel, g.wide):
        count = min(g.wide, g.channels - c)
        for i in range(count):
            transform_channel(zero, group * g.channels + c + i, first, last, x.ctypes.data, g,
                              base + g.scratch * size, base + i * BLOCK * size)  # fmt: skip
        for position in range(g.positions):
            turn(zero, g.turner, base + position * g.v_step * size, count, BLOCK, last - first,
                 to + (position * g.turned_step + c) * size, g.turned_row, 1)  # fmt: skip


@helper
def clear_sums(worker, geometry, work):
    """Those that a worker has for db."""
    g = geometry[0]
    work[worker * g.work + g.db : worker * g.work + g.db + g.groups * g.filters * g.wide] = 0


@helper
def transform_gradients(first_filter, filters, first, last, dy, geometry, base, e):
    """The transforms of dy of tiles `first` to `last`: (positions, filters, tiles). Their sums are for db."""
    g = geometry[0]
    size = dy.itemsize
    plane = g.OH * g.OW * size
    for k in range(filters):
        transform_plane(g.gradient, dy.ctypes.data + (first_filter + k) * plane,
                        g.groups * g.filters * plane, g.OH, g.OW, 0, 0, first, last,
                        g.tiles_down, g.tiles_across, g.outputs_down, g.outputs_across,
                        base + g.scratch * size, g.pitch, e + k * g.e_row * size, g.e_step,
                        base + (g.db + (first_filter + k) * g.wide) * size, size)  # fmt: skip


@helper
def add_products(
    filters, first_channel, last_channel, count, start, geometry, table, tiles, e, turned, du, size
):  # fmt: skip
    """du += those of so many tiles; or du = them, where `start` is the address of zeros."""
    g = geometry[0]
    strip = g.along * g.wide
    for position in range(g.positions):
        for c in range(first_channel, last_channel, strip):
            vectors = min(g.along, (last_channel - c) // g.wide)
            for first in range(0, count, BLOCK):
                v = turned + (position * g.turned_step + first * g.turned_row + c) * size
                for k in range(0, filters, g.rows):
                    s = e + (position * g.e_step + k * g.e_row + first) * size
                    to = du + (position * g.du_step + k * g.c_row + c) * size
                    call_emitted(tiles[min(g.rows, filters - k), vectors], s, g.e_row, v, 0,
                              table.ctypes.data, 1, min(BLOCK, count - first), to, g.c_row,
                              0, vectors * g.wide, start if first == 0 else 0)  # fmt: skip


@helper
def add_sums(filters, first_channel, last_channel, geometry, some, du):
    """du += some, in some filters and channels."""
    g = geometry[0]
    for position in range(g.positions):
        for k in range(filters):
            row = position * g.du_step + k * g.c_row
            for c in range(row + first_channel, row + last_channel):
                du[c] += some[c]


@Kernel
def transform_back(filters, du, geometry, dw):
    """dw (groups * filters, channels, taps), from du."""
    for k in prange(filters):
        g = geometry[0]
        sums = du[k * g.c_row :]
        for part in range(1, g.tile_parts):
            add_sums(1, 0, g.c_row, geometry, sums[part * g.positions * g.du_step :], sums)
        transform_filter_back(k, sums.ctypes.data, geometry, dw)


@helper
def transform_filter_back(k, du, geometry, dw):
    """One filter's."""
    g = geometry[0]
    size = dw.itemsize
    for c in range(0, g.channels, g.wide):
        call_emitted(g.back, du + c * size, g.du_step,
                  dw.ctypes.data + (k * g.channels + c) * g.taps * size, g.channels - c,
                  0, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw, from sums over all tiles, and db."""
    workers = active()
    found = plan(spec, x.dtype, workers)
    g = found.geometry
    x, dy, to = x.reshape(-1), dy.reshape(-1), dw.reshape(-1)
    start = zeros(g.rows, x.dtype)
    work = workspace("work", workers * g.work, x.dtype)
    cost = spec.flops // WORTH_A_LAUNCH
    if found.by_filters:
        turned = workspace("transformed data", g.positions * g.turned_step, x.dtype)
        sum_by_filters(
            cost, workers, spec.N, x, dy, start, found.record, found.table, found.tiles, work, turned, to
        )
        summing = workers
    else:
        tiles = -(-spec.N * g.tiles_down * g.tiles_across // g.tile_parts)
        sums = g.tile_parts * g.positions * g.du_step
        du = workspace("transformed weights", sums, x.dtype)
        further = workspace("sums of stretches", sums if tiles > STRETCH - BLOCK else 0, x.dtype)
        sum_products(
            cost, workers, spec.N, x, dy, start, found.record, found.table, found.tiles, work, du, further
        )
        transform_back(dw.size * g.positions, spec.K, du, found.record, to)
        summing = g.tile_parts * g.filter_parts  # the others have the same filters' other channels
    parts = work[: workers * g.work].reshape(workers, g.work)[:summing, g.db : g.db + spec.K * g.wide]
    np.add.reduce(parts.reshape(summing, spec.K, g.wide), axis=(0, 2), out=db)
