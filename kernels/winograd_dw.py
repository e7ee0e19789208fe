"""The `winograd` backend's dw: a sum over tiles of products of what is transformed, transformed back.

As y = A^T [(G g G^T) * (B^T d B)] A for each tile, the gradient of the weights g is

    dw = G^T [sum over tiles of (A dy A^T) * (B^T d B)] G

with as many multiplications as forward. Vectors lie along channels, and filters: x and dy are turned, a few
tiles of a row at a time, so that each pixel is a vector. See `winograd_dw_plan` for how the work is cut up.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_copy import clear, size_of
from kernels.tiled_tile import WORTH_A_LAUNCH
from kernels.tiled_vectors import call_emitted
from kernels.tiled_work import workspace, zeros
from kernels.winograd_dw_plan import DEPTH, plan
from kernels.winograd_tiles import piece_at, turn_rows


@Kernel
def sum_products(workers, images, x, dy, zeros, geometry, sides, table, tiles, work, v, e, du, further, dw):
    """dw (groups * filters, channels, taps); and each worker's sums of dy, for db.

    `further` holds the sums of each stretch but the first, one after the other; it is as large as du, or not
    needed.
    """
    g = geometry[0]
    filters = sides[1].channels
    total = images * g.tiles_down * g.tiles_across
    for k in range(0, filters, g.panel):
        beyond = min(k + g.panel, filters)
        for first in range(0, total, g.block):
            last = min(first + g.block, total)
            sums = du if first < g.stretch else further
            start = zeros.ctypes.data if first % g.stretch == 0 else 0
            for worker in prange(workers):
                transform_share(work.dtype.type(0), worker, workers, k, beyond, first, last, x.ctypes.data,
                                dy.ctypes.data, geometry, sides, work.ctypes.data, v.ctypes.data,
                                e.ctypes.data)  # fmt: skip
            for worker in prange(workers):
                multiply_share(work.dtype.type(0), worker, workers, beyond - k, last - first, start, geometry,
                               sides, table.ctypes.data, tiles, v.ctypes.data, e.ctypes.data,
                               sums.ctypes.data)  # fmt: skip
            if first >= g.stretch and (last % g.stretch == 0 or last == total):
                for worker in prange(workers):
                    add_share(worker, workers, geometry, further, du)
        for worker in prange(workers):
            transform_back(work.dtype.type(0), worker, workers, k, beyond, geometry, sides, du.ctypes.data,
                           dw.ctypes.data)  # fmt: skip


@helper
def share(worker, workers, begin, end, unit):
    """One worker's part of what lies between two numbers, in whole units: where it begins, and ends."""
    units = (end - begin + unit - 1) // unit
    return (
        begin + worker * units // workers * unit,
        min(begin + (worker + 1) * units // workers * unit, end),
    )


@helper
def transform_share(
    zero, worker, workers, k, beyond, first, last, x, dy, geometry, sides, work, v, e
):  # fmt: skip
    """V and E of one worker's part of the tiles, or where these are few, of the channels and filters.

    V is there already if it is not the first filter, k, with which these begin.
    """
    g, data, gradient = geometry[0], sides[0], sides[1]
    size = size_of(zero)
    scratch = work + worker * g.work * size
    sums = scratch + g.sums * size
    v -= first * data.row * size
    e -= (first * gradient.row + k) * size
    if first == 0 and k == 0:
        clear(zero, sums, g.wide * g.groups * g.k_row)
    c, end = 0, data.channels if k == 0 else 0
    if last - first >= workers * g.wide:
        first, last = share(worker, workers, first, last, 1)
    else:
        c, end = share(worker, workers, c, end, g.wide)
        k, beyond = share(worker, workers, k, beyond, g.wide)
    for group in range(g.groups):
        transform_tiles(zero, data, g, group, c, end, first, last, x, scratch,
                        v + group * g.positions * data.step * size, sums)  # fmt: skip
        transform_tiles(zero, gradient, g, group, k, beyond, first, last, dy, scratch,
                        e + group * g.positions * gradient.step * size, sums)  # fmt: skip


@helper
def transform_tiles(zero, side, g, group, begin, end, first, last, source, scratch, to, sums):
    """The transforms of tiles `first` to `last`, of some channels: (positions, tiles, channels)."""
    size = size_of(zero)
    plane = side.H * side.W
    at = first
    while at < last:
        image, down, across, count = piece_at(at, last, g.tiles_down, g.tiles_across)
        count = min(count, side.piece)
        row, col = down * side.step_down - side.top, across * side.step_across - side.left
        cols = count * side.step_across + side.beyond
        above, below = max(0, -row), min(side.rows, side.seen_down - row)
        before, behind = max(0, -col), min(cols, side.seen_across - col)
        if above > 0 or below < side.rows or before > 0 or behind < cols:
            clear(zero, scratch, side.rows * side.pitch)
        for c in range(begin, end, g.wide):
            channel = (image * g.groups + group) * side.channels + c
            turn_rows(zero, g.turner, source + (channel * plane + row * side.W + col + before) * size,
                      min(g.wide, end - c), plane, side.W, above, below, behind - before,
                      scratch + before * g.wide * size, side.pitch, g.wide * plane)  # fmt: skip
            # For db, a vector for each of some rows of tiles: one sum over all of many would be rounded more.
            slot = (at // g.tiles_across % g.wide * g.groups + group) * g.k_row + c
            call_emitted(side.transform, scratch, side.pitch, count, to + (at * side.row + c) * size,
                         side.row, side.step, sums + slot * size, 0, 0, 0, 0, 0)  # fmt: skip
        at += count


@helper
def multiply_share(
    zero, worker, workers, filters, count, start, geometry, sides, table, tiles, v, e, du
):  # fmt: skip
    """dU += products of so many tiles, of one worker's part of the positions; or dU = them, from `start`."""
    g, along, others = geometry[0], sides[0], sides[1]
    numbers = filters
    if g.along_filters:
        along, others, v, e = others, along, e, v
        numbers = others.channels
    size = size_of(zero)
    strip = g.vectors * g.wide
    strips = (g.du_row + strip - 1) // strip
    jobs = g.groups * g.positions * strips
    begin_job, end_job = share(worker, workers, 0, jobs, 1)
    for job in range(begin_job, end_job):
        position, c = job // strips, job % strips * strip
        vectors = min(g.vectors, (g.du_row - c) // g.wide)
        for first in range(0, count, DEPTH):
            depth = min(DEPTH, count - first)
            vector = v + (position * along.step + first * along.row + c) * size
            number = e + (position * others.step + first * others.row) * size
            begin = start if first == 0 else 0
            for n in range(0, numbers, g.rows):
                to = du + (position * g.du_step + n * g.du_row + c) * size
                call_emitted(tiles[min(g.rows, numbers - n), vectors], number + n * size, 0, vector, 0, table,
                             1, depth, to, g.du_row, 0, vectors * g.wide, begin)  # fmt: skip


@helper
def add_share(worker, workers, geometry, further, du):
    """du += further, one worker's part."""
    g = geometry[0]
    begin, end = share(worker, workers, 0, g.groups * g.positions * g.du_step, g.wide)
    for i in range(begin, end):
        du[i] += further[i]


@helper
def transform_back(zero, worker, workers, k, beyond, geometry, sides, du, dw):
    """dw of some filters, one worker's part, from dU."""
    g, channels, filters = geometry[0], sides[0].channels, beyond - k
    size = size_of(zero)
    lanes, lane_step, numbers, number_step = channels, g.taps, filters, channels * g.taps
    if g.along_filters:
        lanes, lane_step, numbers, number_step = numbers, number_step, lanes, lane_step
    begin, end = share(worker, workers, 0, g.groups * numbers, 1)
    for job in range(begin, end):
        group, n = job // numbers, job % numbers
        sums = du + (group * g.positions * g.du_step + n * g.du_row) * size
        weights = dw + ((group * sides[1].channels + k) * channels * g.taps + n * number_step) * size
        for lane in range(0, lanes, g.wide):
            call_emitted(g.back, sums + lane * size, g.du_step, weights + lane * lane_step * size,
                         lane_step, lanes - lane, 0, 0, 0, 0, 0, 0, 0)  # fmt: skip


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw, from sums over all tiles, and db."""
    workers = active()
    found = plan(spec, x.dtype)
    g = found.geometry
    matrices = g.groups * g.positions
    tiles = len(x) * g.tiles_down * g.tiles_across
    work = workspace("work", workers * g.work, x.dtype)
    v = workspace("transformed data", matrices * found.data.step, x.dtype)
    e = workspace("transformed gradients", matrices * found.gradient.step, x.dtype)
    du = workspace("transformed weights", matrices * g.du_step, x.dtype)
    further = workspace("sums of stretches", matrices * g.du_step if tiles > g.stretch else 0, x.dtype)
    sum_products(
        spec.flops // WORTH_A_LAUNCH, workers, len(x), x.reshape(-1), dy.reshape(-1), zeros(g.rows, x.dtype),
        found.record, found.sides, found.table, found.tiles, work, v, e, du, further, dw.reshape(-1),
    )  # fmt: skip
    sums = work[: workers * g.work].reshape(workers, g.work)[:, g.sums :].reshape(-1, g.groups, g.k_row)
    db[:] = np.add.reduce(sums, axis=0)[:, : found.gradient.channels].reshape(-1)
