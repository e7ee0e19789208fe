"""The `tiled` backend's dw: sums over pixels of x at each tap, times dy.

dy is turned so that vectors lie along filters. Each worker sums over its images; then the workers' sums are
added, and turned back. Where there are few images, workers share their channels.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels import tiled_dots
from kernels.arrays import readonly, records
from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import BLOCK_BYTES, CopiedAxis, Copy, forward_taps
from kernels.tiled_conv import copy_block
from kernels.tiled_copy import lanes_of, turn, turner
from kernels.tiled_lay import spans, split
from kernels.tiled_plan import SLACK, in_long_rows, shares
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import whole_lines, workspace, zeros

PIXELS = 128
"""Pixels that a tile should sum over before it goes back to memory."""


class Geometry(NamedTuple):
    """How images and rows are dealt out, beside the copy; all in elements."""

    groups: int
    filters: int
    """Of a group."""
    padded: int
    """Filters in whole vectors."""
    taps: int
    OH: int
    OW: int
    images: int
    """That a task sums over, so that its tiles have enough pixels."""
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image; the last one may be lower."""
    slices: int
    """Of the channels, so that few images give work to all threads."""
    once: int
    """Whether one task sees all pixels of its channels: then its sums are whole."""
    stride_down: int
    channel_step: int
    """Channels from one tile to the next."""
    row_step: int
    """From a row of a tile's numbers to the next."""
    turned: int
    """Where a thread's turned dy begins, behind its copies."""
    work: int
    """What a thread needs in all."""


class Plan(NamedTuple):
    """dw of a layer, as the compiled loops take it."""

    copy: np.ndarray
    geometry: np.ndarray
    chunks: np.ndarray
    table: np.ndarray
    """Where the pixels' first taps lie in the copies, and which they are: intp (pixels, 2)."""
    pieces: np.ndarray
    """intp, one row a tile of a channel, or of several: its first tap, first number in the copy, first
    filter, how many of them, channels, and its address."""
    once: bool
    """As in the geometry."""
    tasks: int
    sums: int
    work: int
    """Elements of one worker's."""


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> Plan:
    """How to compute dw."""
    spec = in_long_rows(spec, lanes(dtype))
    wide = lanes(dtype)
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    (sh, sw), taps = spec.stride, spec.R * spec.S
    padded = -(-filters // wide) * wide
    down, across = (CopiedAxis.of([forward_taps(axis)], False) for axis in (spec.rows, spec.cols))
    pitch = across.positions(spec.OW)
    row_bytes = (channels * pitch * sh + spec.OW * padded) * dtype.itemsize
    fit = max(1, 2 * BLOCK_BYTES // row_bytes - spec.rows.reach // sh)
    block = -(-spec.OH // -(-spec.OH // fit))
    blocks = -(-spec.OH // block)
    copy = Copy.of(down, across, channels, block, spec.OW)
    images = 1
    if block == spec.OH and spec.groups == 1:
        images = max(1, min(PIXELS // (block * spec.OW), -(-spec.N // threads), fit // block))
    pixels = [
        image * channels * copy.plane + oh * sh * pitch + ow * sw
        for image in range(images)
        for oh in range(block)
        for ow in range(spec.OW)
    ]
    pieces, channel_step, row_step = _pieces(spec, dtype, padded // wide, channels, copy)
    tasks = -(-spec.N * spec.groups // images) * blocks
    slices = min(shares(tasks, threads), -(-channels // channel_step))
    once = tasks == spec.groups
    turned = whole_lines(images * channels * copy.plane + SLACK)
    geometry = Geometry(
        spec.groups, filters, padded, taps, spec.OH, spec.OW, images, block, blocks, slices,
        once, sh, channel_step, row_step, turned,
        whole_lines(turned + len(pixels) * padded + SLACK),
    )  # fmt: skip
    return Plan(
        records([copy]),
        records([geometry]),
        readonly(across.chunks(pitch, wide)),
        readonly(np.array(list(zip(pixels, range(len(pixels)), strict=True)), np.intp)),
        readonly(np.array(pieces, np.intp)),
        once,
        tasks * slices,
        spec.groups * channels * taps * padded,
        geometry.work,
    )


Pieces = list[tuple[int, int, int, int, int, int]]


def _pieces(
    spec: ConvSpec, dtype: np.dtype, vectors: int, channels: int, copy: Copy
) -> tuple[Pieces, int, int]:
    """The tiles: whole rows of taps where they are side by side, else channels, or single taps.

    And the channels from one to the next, and what is from a row of their numbers to the next.
    """
    (dh, dw), most = spec.dilation, registers()
    wide = lanes(dtype)
    together = split(vectors, 3 if most > 12 else 2)
    first_vectors = np.cumsum([0, *together[:-1]])
    pieces: Pieces = []
    if spec.R * spec.S == 1:
        step = min(channels, 8 if most > 12 else 4)
        for count, vector in zip(together, first_vectors, strict=True):
            for rows in {step, channels % step} - {0}:
                address = tile(Shape(rows, 1, 1, count), dtype)
                pieces.append((0, 0, int(vector) * wide, count * wide, rows, address))
        return pieces, step, copy.plane
    width = spec.S if dw == 1 else 1
    for count, vector in zip(together, first_vectors, strict=True):
        for at, cols in spans(spec.S, min(width, max(1, most // count))):
            height = max(1, most // (count * cols)) if cols == spec.S else 1
            for row, rows in spans(spec.R, min(height, spec.R)):
                number = row * dh * copy.pitch + at * dw
                address = tile(Shape(rows, cols, 1, count), dtype)
                pieces.append((row * spec.S + at, number, int(vector) * wide, count * wide, 1, address))
    return pieces, 1, dh * copy.pitch


@Kernel
def weight_sums(
    workers, tasks, x, dy, copy, geometry, phases_down, chunks, table, turner, pieces, of_worker, zeros, sums,
    work, dw,
):  # fmt: skip
    """sums (workers, groups, channels, taps, padded filters): dw, as far as each worker has come.

    Where a task is all there is to its channels, it fills their part of dw instead.
    """
    once = geometry[0].once
    for worker in prange(workers):
        first = worker * of_worker
        if not once:
            for i in range(first, first + of_worker):
                sums[i] = 0
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_to_sums(
                worker, task, x, dy, copy, geometry, phases_down, chunks, table, turner, pieces,
                zeros.ctypes.data if once else 0, sums.ctypes.data + first * sums.itemsize, work, dw,
            )  # fmt: skip


@helper
def add_to_sums(
    worker, task, x, dy, copy, geometry, phases_down, chunks, table, turner, pieces, start, sums, work, dw
):
    """One task of it; `sums`: the address of the worker's; `start`: that of zeros, or 0 to add to sums."""
    g, c = geometry[0], copy[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    plane = g.OH * g.OW
    units = len(x) // (c.channels * c.H * c.W)
    piece, block, share = task % g.slices, task // g.slices % g.blocks, task // (g.slices * g.blocks)
    begin = share * g.images
    end = min(begin + g.images, units)
    first = block * g.block
    steps = (c.channels + g.channel_step - 1) // g.channel_step
    least = piece * steps // g.slices * g.channel_step
    most = min(c.channels, (piece + 1) * steps // g.slices * g.channel_step)
    pixels = min(g.block, g.OH - first) * g.OW
    copied = work.ctypes.data + worker * g.work * size
    turned = copied + g.turned * size
    for unit in range(begin, end):
        image = unit - begin
        copy_block(zero, x.ctypes.data + (unit * c.channels + least) * c.H * c.W * size, most - least,
                   first * g.stride_down, copy, phases_down, chunks,
                   copied + (image * c.channels + least) * c.channel * size)  # fmt: skip
        rows = dy.ctypes.data + (unit * g.filters * plane + first * g.OW) * size
        turn(zero, turner, rows, g.filters, plane, pixels, turned + image * pixels * g.padded * size,
             g.padded, 1)  # fmt: skip
    pixels *= end - begin
    group = begin % g.groups
    sums += group * c.channels * g.taps * g.padded * size
    for channel in range(least, most, g.channel_step):
        for i in range(len(pieces)):
            if g.channel_step > 1 and pieces[i, 4] != min(g.channel_step, c.channels - channel):
                continue
            lane = pieces[i, 2]
            there = (channel * g.taps + pieces[i, 0]) * g.padded + lane
            call_emitted(pieces[i, 5], copied + (channel * c.plane + pieces[i, 1]) * size, g.row_step,
                         turned + lane * size, 0, table.ctypes.data, g.padded, pixels,
                         sums + there * size, g.padded, 0, pieces[i, 3], start)  # fmt: skip
    if start:
        rest = c.channels * g.taps
        turn(zero, turner, sums + least * g.taps * g.padded * size, (most - least) * g.taps, g.padded,
             g.filters, dw.ctypes.data + (group * g.filters * rest + least * g.taps) * size, rest,
             0)  # fmt: skip


@Kernel
def gather_sums(sums, of_worker, copy, geometry, turner, dw):
    """dw (groups, filters, channels, taps) = the workers' sums, added up and turned."""
    g = geometry[0]
    size = dw.itemsize
    zero = dw.dtype.type(0)
    wide = lanes_of(zero)
    rest = copy[0].channels * g.taps
    blocks = (rest + wide - 1) // wide
    for job in prange(g.groups * blocks):
        group, i = job // blocks, job % blocks * wide
        rows = min(wide, rest - i)
        first = (group * rest + i) * g.padded
        for begin in range(of_worker, len(sums), of_worker):
            for n in range(first, first + rows * g.padded):
                sums[n] += sums[begin + n]
        turn(zero, turner, sums.ctypes.data + first * size, rows, g.padded, g.filters,
             dw.ctypes.data + (group * g.filters * rest + i) * size, rest, 0)  # fmt: skip


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from x and dy."""
    if tiled_dots.pays(spec, lanes(x.dtype)):
        tiled_dots.conv_dw(spec, dy, x, dw)
        return
    found = plan(spec, x.dtype, active())
    workers = min(active(), found.tasks)
    sums = workspace("sums", workers * found.sums, x.dtype)
    turns = turner(x.dtype)
    weight_sums(
        spec.flops // WORTH_A_LAUNCH, workers, found.tasks, x.reshape(-1), dy.reshape(-1), found.copy,
        found.geometry, _ONE_PHASE, found.chunks, found.table, turns, found.pieces,
        0 if found.once else found.sums, zeros(registers(), x.dtype), sums,
        workspace("work", workers * found.work, x.dtype), dw.reshape(-1),
    )  # fmt: skip
    if not found.once:
        gather_sums(sums.size, sums, found.sums, found.copy, found.geometry, turns, dw.reshape(-1))


_ONE_PHASE = readonly(np.zeros(1, np.intp))
