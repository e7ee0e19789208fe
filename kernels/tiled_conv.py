"""The `tiled` backend's convolutions: what goes round the register tiles, compiled.

See `tiled_plan` for how the work is cut up, and `tiled_tile` for the tiles. A task is a block of output rows
of one image and group: it copies what it reads into its worker's part of the workspace, and lays its tiles.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import prange

from kernels.arrays import readonly
from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_copy import copy_chunk, store_every, turn, turner
from kernels.tiled_plan import Plan, gradient_plan, plans
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import workspace

_WORTH_A_LAUNCH = 8
"""Tiles do so many operations in the time of one of the loops that `jit` has in mind."""


@helper
def copy_block(source, unit, first, geometry, phases_down, chunks, target, at):
    """The rows that outputs from row `first` on read, of all channels of one image and group, padded."""
    g = geometry[0]
    size = target.itemsize
    zero = target.dtype.type(0)
    to = target.ctypes.data + at * size
    step, pitch = g.stride_across, g.pitch * size
    for c in range(g.channels):
        plane = source.ctypes.data + (unit * g.channels + c) * g.H * g.W * size
        for i in range(len(phases_down)):
            for j in range(len(chunks)):
                for q in range(g.copied):
                    ih = (first + q + g.least) * g.stride_down + phases_down[i]
                    row = plane + ih * g.W * size
                    inside = 0 <= ih < g.H
                    for n in range(chunks.shape[1]):
                        one, two = chunks[j, n, 2], chunks[j, n, 3]
                        copy_chunk(zero, row + chunks[j, n, 0] * size, to + chunks[j, n, 1] * size,
                                   one if inside else 0, two if inside else 0, step)  # fmt: skip
                    to += pitch


@Kernel
def along_pixels(
    workers, tasks, source, weights, bias, out, geometry, phases_down, chunks, table, tiles, panels,
    addresses, work,
):  # fmt: skip
    """Correlate with vectors along the pixels; weights (filters, taps) as they are."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            lay_along_pixels(
                worker, task, source, weights, bias, out, geometry, phases_down, chunks, table, tiles, panels,
                addresses, work,
            )  # fmt: skip


@helper
def lay_along_pixels(
    worker, task, source, weights, bias, out, geometry, phases_down, chunks, table, tiles, panels,
    addresses, work,
):  # fmt: skip
    """One task of it."""
    g = geometry[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    plane = g.out_height * g.out_width
    direct = g.step_down == 1 and g.step_across == 1
    unit = task // g.blocks
    first = min(task % g.blocks * g.block, g.OH - g.block)
    base = worker * g.work
    copy_block(source, unit, first, geometry, phases_down, chunks, work, base)
    copy = work.ctypes.data + base * size
    scratch = base + g.scratch
    for i in range(len(tiles)):
        row, col, valid = tiles[i, 0], tiles[i, 1], tiles[i, 2]
        address = addresses[tiles[i, 3], 0]
        v = copy + (row * g.pitch + col) * size
        for p in range(len(panels)):
            k = unit % g.groups * g.filters + panels[p, 0]
            s = weights.ctypes.data + k * len(table) * size
            start = bias.ctypes.data + k * size
            to = (unit * g.filters + panels[p, 0]) * plane
            if direct:
                to += (first + row) * g.out_width + col
                call_emitted(address, s, len(table), v, g.pitch, table.ctypes.data, 1, len(table),
                          out.ctypes.data + to * size, plane, g.out_width, valid, start)  # fmt: skip
            else:
                down = g.tile_rows
                step = down * valid
                call_emitted(address, s, len(table), v, g.pitch, table.ctypes.data, 1, len(table),
                          work.ctypes.data + scratch * size, step, valid, valid, start)  # fmt: skip
                for n in range(panels[p, 1]):
                    for d in range(down):
                        there = (
                            to + n * plane + (g.first_down + (first + row + d) * g.step_down) * g.out_width
                        )
                        there += g.first_across + col * g.step_across
                        store_every(zero, work.ctypes.data + (scratch + n * step + d * valid) * size,
                                    out.ctypes.data + there * size, g.step_across, valid)  # fmt: skip


@Kernel
def arrange(w, places, filter_step, groups, filters, arranged):
    """arranged (groups * filters, taps) = w, of each filter the taps at `places`."""
    taps = len(places)
    for f in prange(groups * filters):
        first = f // filters * (len(w) // groups) + f % filters * filter_step
        for t in range(taps):
            arranged[f * taps + t] = w[first + places[t]]


@Kernel
def pack(w, places, filter_step, groups, filters, wide, panels, packed):
    """packed = for each group and panel (taps, filters of it), from w; zero beyond the filters."""
    taps = len(places)
    for job in prange(groups * len(panels)):
        group, p = job // len(panels), job % len(panels)
        first = panels[p, 0]
        lanes_here = (panels[p, 1] + wide - 1) // wide * wide
        to = group * (len(packed) // groups) + first * taps
        begin = group * (len(w) // groups) + first * filter_step
        there = min(lanes_here, filters - first)
        for t in range(taps):
            for lane in range(there):
                packed[to + t * lanes_here + lane] = w[begin + places[t] + lane * filter_step]
            for lane in range(there, lanes_here):
                packed[to + t * lanes_here + lane] = 0


@Kernel
def along_filters(
    workers, tasks, source, packed, bias, out, geometry, phases_down, chunks, table, tiles, panels,
    addresses, wide, work,
):  # fmt: skip
    """Correlate with vectors along the filters; weights `packed`, group by group."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            lay_along_filters(
                worker, task, source, packed, bias, out, geometry, phases_down, chunks, table, tiles, panels,
                addresses, wide, work,
            )  # fmt: skip


@helper
def lay_along_filters(
    worker, task, source, packed, bias, out, geometry, phases_down, chunks, table, tiles, panels,
    addresses, wide, work,
):  # fmt: skip
    """One task of it."""
    g = geometry[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    plane = g.out_height * g.out_width
    of_group = len(packed) // g.groups
    unit = task // g.blocks
    first = min(task % g.blocks * g.block, g.OH - g.block)
    base = worker * g.work
    copy_block(source, unit, first, geometry, phases_down, chunks, work, base)
    copy = work.ctypes.data + base * size
    scratch = base + g.scratch
    direct = g.step_down == 1 and g.step_across == 1
    pixels = g.tile_rows * g.tile_cols
    for p in range(len(panels)):
        k, count = panels[p, 0], panels[p, 1]
        address = addresses[0, panels[p, 2]]
        wide_panel = (count + wide - 1) // wide * wide
        filters = unit % g.groups * g.filters + k
        v = packed.ctypes.data + (unit % g.groups * of_group + k * len(table)) * size
        start = bias.ctypes.data + filters * size
        for i in range(len(tiles)):
            row, col = tiles[i, 0], tiles[i, 1]
            s = copy + (row * g.pitch + col) * size
            to = (unit * g.filters + k) * plane
            if direct:
                to += (first + row) * g.out_width + col
                call_emitted(address, s, g.pitch, v, 0, table.ctypes.data, wide_panel, len(table),
                          out.ctypes.data + to * size, plane, 0, count, start)  # fmt: skip
            else:
                call_emitted(address, s, g.pitch, v, 0, table.ctypes.data, wide_panel, len(table),
                          work.ctypes.data + scratch * size, pixels, 0, count, start)  # fmt: skip
                for n in range(count):
                    for r in range(g.tile_rows):
                        there = (
                            to + n * plane + (g.first_down + (first + row + r) * g.step_down) * g.out_width
                        )
                        there += g.first_across + col * g.step_across
                        store_every(zero, work.ctypes.data + (scratch + n * pixels + r * g.tile_cols) * size,
                                    out.ctypes.data + there * size, g.step_across, g.tile_cols)  # fmt: skip


@Kernel
def weight_sums(
    workers, tasks, x, dy, geometry, phases_down, chunks, table, images, turner, pieces, channel_step,
    row_step, padded, sums, work,
):  # fmt: skip
    """sums (workers, groups, channels, taps, padded filters): dw, as far as each worker has come."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_to_sums(
                worker, task, x, dy, geometry, phases_down, chunks, table, images, turner, pieces,
                channel_step, row_step, padded, sums, work,
            )  # fmt: skip


@helper
def add_to_sums(
    worker, task, x, dy, geometry, phases_down, chunks, table, images, turner, pieces, channel_step, row_step,
    padded, sums, work,
):  # fmt: skip
    """One task of it."""
    g = geometry[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    taps = g.tile_rows * g.tile_cols
    plane = g.OH * g.out_width
    of_worker = g.groups * g.channels * taps * padded
    units = len(x) // (g.channels * g.H * g.W)
    begin = task // g.blocks * images
    end = min(begin + images, units)
    first = task % g.blocks * g.block
    pixels = min(g.block, g.OH - first) * g.out_width
    base = worker * g.work
    turned = base + g.scratch
    for unit in range(begin, end):
        copy_block(x, unit, first * g.step_down, geometry, phases_down, chunks, work,
                   base + (unit - begin) * g.channels * g.channel)  # fmt: skip
        to = work.ctypes.data + (turned + (unit - begin) * pixels * padded) * size
        rows = dy.ctypes.data + (unit * g.filters * plane + first * g.out_width) * size
        turn(zero, turner, rows, g.filters, plane, pixels, to, padded)
    pixels *= end - begin
    copy = work.ctypes.data + base * size
    to = worker * of_worker + begin % g.groups * g.channels * taps * padded
    for c in range(0, g.channels, channel_step):
        for i in range(len(pieces)):
            if channel_step > 1 and pieces[i, 4] != min(channel_step, g.channels - c):
                continue
            lane = pieces[i, 2]
            there = to + (c * taps + pieces[i, 0]) * padded + lane
            call_emitted(pieces[i, 5], copy + (c * g.plane + pieces[i, 1]) * size, row_step,
                         work.ctypes.data + (turned + lane) * size, 0, table.ctypes.data, padded, pixels,
                         sums.ctypes.data + there * size, padded, 0, pieces[i, 3], 0)  # fmt: skip


@Kernel
def gather_sums(sums, of_worker, filters, rest, padded, wide, dw):
    """dw (groups * filters, rest) = the workers' sums (workers, groups, rest, padded), added up."""
    groups = len(dw) // (rest * filters)
    blocks = padded // wide  # so many filters at a time that their rows stay in the cache
    for job in prange(groups * blocks):
        group, k = job // blocks, job % blocks * wide
        for i in range(rest):
            first = (group * rest + i) * padded + k
            to = (group * filters + k) * rest + i
            for lane in range(min(wide, filters - k)):
                total = sums[first + lane]
                for begin in range(of_worker, len(sums), of_worker):
                    total += sums[begin + first + lane]
                dw[to + lane * rest] = total


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    bias = _zeros(spec.K, x.dtype) if b is None else b
    (plan,) = plans(spec, "forward", x.dtype, active())
    _correlate(plan, spec.flops, x, w, bias, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx, phase by phase; pixels that no window reads get zero."""
    found = plans(spec, "dx", dy.dtype, active())
    if sum(plan.rows.out * plan.cols.out for plan in found) < spec.H * spec.W:
        dx.fill(0)
    for plan in found:
        _correlate(plan, spec.flops // len(found), dy, w, _zeros(spec.C, dy.dtype), dx)


def _correlate(
    plan: Plan, flops: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    g = plan.geometry
    workers = active()
    work = workspace("work", workers * g.work, source.dtype)
    taps = len(plan.table)
    call = flops // _WORTH_A_LAUNCH, workers, len(source) * g.groups * g.blocks, source.reshape(-1)
    tables = (
        plan.record, plan.phases_down, plan.chunks, plan.table, plan.tiles, plan.panels, plan.addresses
    )  # fmt: skip
    weights = w.reshape(-1)
    if not plan.across_filters:
        if not plan.in_order:
            arranged = workspace("weights", g.groups * g.filters * taps, w.dtype)
            arrange(w.size, weights, plan.weights, plan.filter_step, g.groups, g.filters, arranged)
            weights = arranged
        along_pixels(*call, weights, bias, out.reshape(-1), *tables, work)
        return
    wide = lanes(w.dtype)
    packed = workspace("weights", g.groups * -(-g.filters // wide) * wide * taps, w.dtype)
    pack(w.size, weights, plan.weights, plan.filter_step, g.groups, g.filters, wide, plan.panels, packed)
    along_filters(*call, packed, _padded(bias, wide), out.reshape(-1), *tables, wide, work)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw: each worker sums over its images, then the sums are added."""
    plan = gradient_plan(spec, x.dtype, active())
    g = plan.geometry
    workers = active()
    rest = g.channels * spec.R * spec.S
    of_worker = g.groups * rest * plan.padded_filters
    sums = workspace("sums", workers * of_worker, x.dtype)
    sums.fill(0)
    work = workspace("work", workers * g.work, x.dtype)
    tasks = -(-spec.N * g.groups // plan.images) * g.blocks
    weight_sums(
        spec.flops // _WORTH_A_LAUNCH, workers, tasks, x.reshape(-1), dy.reshape(-1), plan.record,
        _FIRST_PHASE, plan.chunks, plan.table, plan.images, turner(x.dtype), plan.pieces, plan.step,
        plan.row_step, plan.padded_filters, sums, work,
    )  # fmt: skip
    wide = lanes(x.dtype)
    gather_sums(sums.size, sums, of_worker, g.filters, rest, plan.padded_filters, wide, dw.reshape(-1))


_FIRST_PHASE = readonly(np.zeros(1, np.intp))


def _padded(bias: np.ndarray, wide: int) -> np.ndarray:
    """The bias with zeros behind it: a tile reads whole vectors of it."""
    padded = np.zeros(len(bias) + 4 * wide, bias.dtype)
    padded[: len(bias)] = bias
    return padded


@lru_cache(maxsize=64)
def _zeros(count: int, dtype: np.dtype) -> np.ndarray:
    return readonly(np.zeros(count, dtype))
