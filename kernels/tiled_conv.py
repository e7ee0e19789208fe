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
from kernels.tiled_copy import copy_chunk, store_every
from kernels.tiled_plan import Plan, gradient_plan, plans
from kernels.tiled_tile import call_emitted, lanes
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
def along_pixels(workers, tasks, source, weights, bias, out, geometry, phases_down, chunks, table, tiles, panels,
                 addresses, work):  # fmt: skip
    """Correlate with vectors along the pixels; weights (filters, taps) as they are."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            lay_along_pixels(worker, task, source, weights, bias, out, geometry, phases_down, chunks, table, tiles,
                         panels, addresses, work)  # fmt: skip


@helper
def lay_along_pixels(worker, task, source, weights, bias, out, geometry, phases_down, chunks, table, tiles, panels,
                     addresses, work):  # fmt: skip
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
def pack(weights, filters, taps, wide, panels, packed):
    """packed = for each panel (taps, filters of it), from weights (filters, taps); zero beyond the filters."""
    for p in prange(len(panels)):
        first = panels[p, 0]
        lanes_here = (panels[p, 1] + wide - 1) // wide * wide
        for t in range(taps):
            for lane in range(lanes_here):
                k = first + lane
                packed[first * taps + t * lanes_here + lane] = weights[k * taps + t] if k < filters else 0


@Kernel
def along_filters(workers, tasks, source, packed, bias, out, geometry, phases_down, chunks, table, tiles, panels,
                  addresses, wide, work):  # fmt: skip
    """Correlate with vectors along the filters; weights `packed`, group by group."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            lay_along_filters(worker, task, source, packed, bias, out, geometry, phases_down, chunks, table, tiles,
                          panels, addresses, wide, work)  # fmt: skip


@helper
def lay_along_filters(worker, task, source, packed, bias, out, geometry, phases_down, chunks, table, tiles, panels,
                      addresses, wide, work):  # fmt: skip
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
def weight_sums(workers, tasks, x, dy, geometry, phases_down, chunks, table, pieces, channel_step, row_step, padded, sums,
                work):  # fmt: skip
    """sums (threads, groups, channels, taps, padded filters): dw, as far as each thread has come."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_to_sums(worker, task, x, dy, geometry, phases_down, chunks, table, pieces, channel_step, row_step,
                    padded, sums, work)  # fmt: skip


@helper
def add_to_sums(worker, task, x, dy, geometry, phases_down, chunks, table, pieces, channel_step, row_step, padded,
                sums, work):  # fmt: skip
    g = geometry[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    taps = g.tile_rows * g.tile_cols
    plane = g.OH * g.out_width
    of_thread = g.groups * g.channels * taps * padded
    unit = task // g.blocks
    first = task % g.blocks * g.block
    rows = min(g.block, g.OH - first)
    base = worker * g.work
    copy_block(x, unit, first * g.step_down, geometry, phases_down, chunks, work, base)
    copy = work.ctypes.data + base * size
    turned = base + g.scratch
    for k in range(g.filters):
        store_every(zero, dy.ctypes.data + ((unit * g.filters + k) * plane + first * g.out_width) * size,
                    work.ctypes.data + (turned + k) * size, padded, rows * g.out_width)  # fmt: skip
    to = worker * of_thread + unit % g.groups * g.channels * taps * padded
    for c in range(0, g.channels, channel_step):
        for i in range(len(pieces)):
            if channel_step > 1 and pieces[i, 4] != min(channel_step, g.channels - c):
                continue
            lane = pieces[i, 2]
            there = to + (c * taps + pieces[i, 0]) * padded + lane
            call_emitted(pieces[i, 5], copy + (c * g.plane + pieces[i, 1]) * size, row_step,
                      work.ctypes.data + (turned + lane) * size, 0, table.ctypes.data, padded, rows * g.out_width,
                      sums.ctypes.data + there * size, padded, 0, pieces[i, 3], 0)  # fmt: skip


@Kernel
def gather_sums(sums, of_thread, filters, rest, padded, dw):
    """dw (groups * filters, rest) = the threads' sums (threads, groups, rest, padded), added up."""
    for k in prange(len(dw) // rest):
        first = k // filters * rest * padded + k % filters
        for i in range(rest):
            total = sums[first + i * padded]
            for begin in range(of_thread, len(sums), of_thread):
                total += sums[begin + first + i * padded]
            dw[k * rest + i] = total


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    bias = _zeros(spec.K, x.dtype) if b is None else b
    for plan in plans(spec, "forward", x.dtype, active()):
        _correlate(plan, spec.flops, x, w.reshape(-1), bias, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx, phase by phase; pixels that no window reads get zero."""
    found = plans(spec, "dx", dy.dtype, active())
    if sum(plan.rows.out * plan.cols.out for plan in found) < spec.H * spec.W:
        dx.fill(0)
    filters = spec.K // spec.groups
    grouped = w.reshape(spec.groups, filters, *w.shape[1:]).transpose(0, 2, 1, 3, 4)
    for plan in found:
        weights = grouped[:, :, :, plan.rows.taps][..., plan.cols.taps].reshape(-1)
        _correlate(plan, spec.flops // len(found), dy, weights, _zeros(spec.C, dy.dtype), dx)


def _correlate(
    plan: Plan, flops: int, source: np.ndarray, weights: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    g = plan.geometry
    tables = (
        plan.record,
        plan.phases_down,
        plan.chunks,
        plan.table,
        plan.tiles,
        plan.panels,
        plan.addresses,
    )
    effort = flops // _WORTH_A_LAUNCH
    tasks = len(source) * g.groups * g.blocks
    workers = active()
    work = workspace("work", workers * g.work, source.dtype)
    if not plan.across_filters:
        along_pixels(
            effort, workers, tasks, source.reshape(-1), weights, bias, out.reshape(-1), *tables, work
        )
        return
    wide, taps = lanes(source.dtype), len(plan.table)
    of_group = -(-g.filters // wide) * wide * taps
    packed = workspace("packed", g.groups * of_group, source.dtype)
    for group in range(g.groups):
        part = weights[group * g.filters * taps : (group + 1) * g.filters * taps]
        pack(
            part.size,
            part,
            g.filters,
            taps,
            wide,
            plan.panels,
            packed[group * of_group : (group + 1) * of_group],
        )
    bias = _padded(bias, wide)
    along_filters(
        effort, workers, tasks, source.reshape(-1), packed, bias, out.reshape(-1), *tables, wide, work
    )


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw: each thread sums over its images, then the sums are added."""
    plan = gradient_plan(spec, x.dtype, active())
    g = plan.geometry
    rest = g.channels * spec.R * spec.S
    of_thread = g.groups * rest * plan.padded_filters
    sums = workspace("sums", active() * of_thread, x.dtype)
    sums.fill(0)
    work = workspace("work", active() * g.work, x.dtype)
    weight_sums(
        spec.flops // _WORTH_A_LAUNCH, active(), spec.N * g.groups * g.blocks, x.reshape(-1), dy.reshape(-1), plan.record, _FIRST_PHASE, plan.chunks,
        plan.table, plan.pieces, plan.step, plan.row_step, plan.padded_filters, sums, work,
    )  # fmt: skip
    gather_sums(dw.size, sums, of_thread, g.filters, rest, plan.padded_filters, dw.reshape(-1))


_FIRST_PHASE = readonly(np.zeros(1, np.intp))


def _padded(bias: np.ndarray, wide: int) -> np.ndarray:
    """The bias with zeros behind it: a tile reads whole vectors of it."""
    padded = np.zeros(len(bias) + 4 * wide, bias.dtype)
    padded[: len(bias)] = bias
    return padded


@lru_cache(maxsize=64)
def _zeros(count: int, dtype: np.dtype) -> np.ndarray:
    return readonly(np.zeros(count, dtype))
