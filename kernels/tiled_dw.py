"""The `tiled` backend's dw: sums over pixels of x at each tap, times dy.

dy is turned so that vectors lie along filters. Each worker sums over its images; then the workers' sums are
added, and turned back. Where there are few images, workers share their channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import prange

from kernels import tiled_dots
from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import BLOCK_BYTES, CopiedAxis, Copy, forward_taps
from kernels.tiled_conv import copy_block
from kernels.tiled_copy import lanes_of, turn, turner
from kernels.tiled_lay import spans, split
from kernels.tiled_plan import SLACK, in_long_rows, shares
from kernels.tiled_record import Recorded, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import whole_lines, workspace, zeros

PIXELS = 128
"""Pixels that a tile should sum over before it goes back to memory."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """dw of a layer; lengths and steps in elements."""

    copy: Copy
    groups: int
    filters: int
    """Of a group."""
    padded: int
    """Filters in whole vectors."""
    taps: int
    OH: int
    OW: int
    units: int
    """Images, times groups."""
    images: int
    """That a task sums over, so that its tiles have enough pixels."""
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image; the last one may be lower."""
    slices: int
    """Of the channels, so that few images give work to all threads."""
    once: int
    """Whether one task sees all pixels of its channels: then its sums are whole."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    stride_down: int
    channel_step: int
    """Channels from one tile to the next."""
    row_step: int
    """From a row of a tile's numbers to the next."""
    turner: int
    """The address of what turns squares."""
    sums: int
    """Of a worker, with whose the workspace begins; or of all, where they are whole."""
    work: int
    turned: int
    of_worker: int
    """Where the workers' copies begin, their turned dy behind these, and how large both are."""
    memory: int
    """The workspace in all."""
    size: int
    """Bytes of a number."""
    zeros: np.ndarray
    """What whole sums begin at."""
    table: np.ndarray
    """Where the pixels' first taps lie in the copies, and which they are: intp (pixels, 2)."""
    pieces: np.ndarray
    """intp, one row a tile of a channel, or of several: its first tap, first number in the copy, first
    filter, how many of them, channels, and its address."""


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
    copy = Copy.of(down, across, channels, block, spec.OW, wide)
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
    workers = min(threads, tasks * slices)
    sums = spec.groups * channels * taps * padded
    turned = whole_lines(images * channels * copy.plane + SLACK)
    of_worker = whole_lines(turned + len(pixels) * padded + SLACK)
    work = whole_lines(sums if once else workers * sums)
    return Plan(
        copy=copy, groups=spec.groups, filters=filters, padded=padded, taps=taps, OH=spec.OH, OW=spec.OW,
        units=spec.N * spec.groups, images=images, block=block, blocks=blocks, slices=slices, once=once,
        workers=workers, tasks=tasks * slices, operations=spec.flops // WORTH_A_LAUNCH, stride_down=sh,
        channel_step=channel_step, row_step=row_step, turner=turner(dtype), sums=sums, work=work,
        turned=turned, of_worker=of_worker, memory=work + workers * of_worker,
        size=dtype.itemsize, zeros=zeros(registers(), dtype),
        table=np.column_stack([pixels, range(len(pixels))]), pieces=np.array(pieces, np.intp),
    )  # fmt: skip


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
def weight_sums(x, dy, plan, memory, dw):
    """Into the workspace: dw (workers, groups, channels, taps, padded filters), as far as each has come.

    Where a task is all there is to its channels, it fills their part of dw instead.
    """
    workers, tasks, sums, once = plan[0].workers, plan[0].tasks, plan[0].sums, plan[0].once
    for worker in prange(workers):
        if not once:
            for i in range(worker * sums, (worker + 1) * sums):
                memory[i] = 0
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_to_sums(worker, task, x.ctypes.data, dy.ctypes.data, plan, memory, dw.ctypes.data)


@helper
def add_to_sums(worker, task, x, dy, plan, memory, dw):
    """One task of it; `x`, `dy` and `dw` by their addresses."""
    p = plan[0]
    c = p.copy
    size = memory.itemsize
    zero = memory.dtype.type(0)
    plane = p.OH * p.OW
    piece, block, share = task % p.slices, task // p.slices % p.blocks, task // (p.slices * p.blocks)
    begin = share * p.images
    end = min(begin + p.images, p.units)
    first = block * p.block
    steps = (c.channels + p.channel_step - 1) // p.channel_step
    least = piece * steps // p.slices * p.channel_step
    most = min(c.channels, (piece + 1) * steps // p.slices * p.channel_step)
    pixels = min(p.block, p.OH - first) * p.OW
    copied = memory.ctypes.data + (p.work + worker * p.of_worker) * size
    turned = copied + p.turned * size
    for unit in range(begin, end):
        image = unit - begin
        target = copied + (image * c.channels + least) * c.channel * size
        copy_block(zero, x + (unit * c.channels + least) * c.H * c.W * size, most - least,
                   first * p.stride_down, c, target)  # fmt: skip
        rows = dy + (unit * p.filters * plane + first * p.OW) * size
        turn(zero, p.turner, rows, p.filters, plane, pixels, turned + image * pixels * p.padded * size,
             p.padded, 1)  # fmt: skip
    group = begin % p.groups
    channels = (0 if p.once else worker * p.sums) + group * c.channels * p.taps * p.padded
    sums = memory.ctypes.data + channels * size
    multiply(p, copied, turned, least, most, pixels * (end - begin), sums)
    if p.once:
        rest = c.channels * p.taps
        turn(zero, p.turner, sums + least * p.taps * p.padded * size, (most - least) * p.taps, p.padded,
             p.filters, dw + (group * p.filters * rest + least * p.taps) * size, rest, 0)  # fmt: skip


@helper
def multiply(p, copied, turned, least, most, pixels, sums):
    """The sums of channels `least` to `most` over so many pixels; addresses."""
    c, pieces = p.copy, matrix(p.pieces)
    size = p.size
    for channel in range(least, most, p.channel_step):
        for i in range(len(pieces)):
            if p.channel_step > 1 and pieces[i, 4] != min(p.channel_step, c.channels - channel):
                continue
            lane = pieces[i, 2]
            there = (channel * p.taps + pieces[i, 0]) * p.padded + lane
            call_emitted(pieces[i, 5], copied + (channel * c.plane + pieces[i, 1]) * size, p.row_step,
                         turned + lane * size, 0, p.table.address, p.padded, pixels,
                         sums + there * size, p.padded, 0, pieces[i, 3],
                         p.zeros.address if p.once else 0)  # fmt: skip


@Kernel
def gather_sums(plan, memory, dw):
    """dw (groups, filters, channels, taps) = the workers' sums, added up and turned."""
    squares = plan[0].groups * blocks_of(plan, dw.dtype.type(0))
    for square in prange(squares):
        gather_square(square, plan, memory, dw)


@helper
def blocks_of(plan, zero):
    """Whole vectors that a filter's weights come to, or one more."""
    wide = lanes_of(zero)
    return (plan[0].copy.channels * plan[0].taps + wide - 1) // wide


@helper
def gather_square(square, plan, memory, dw):
    """A vector's width of weights of one group's filters."""
    p = plan[0]
    size = dw.itemsize
    zero = dw.dtype.type(0)
    rest, wide, blocks = p.copy.channels * p.taps, lanes_of(zero), blocks_of(plan, zero)
    group, i = square // blocks, square % blocks * wide
    rows = min(wide, rest - i)
    first = (group * rest + i) * p.padded
    for begin in range(p.sums, p.workers * p.sums, p.sums):
        for n in range(first, first + rows * p.padded):
            memory[n] += memory[begin + n]
    turn(zero, p.turner, memory.ctypes.data + first * size, rows, p.padded, p.filters,
         dw.ctypes.data + (group * p.filters * rest + i) * size, rest, 0)  # fmt: skip


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from x and dy."""
    if tiled_dots.pays(spec, lanes(x.dtype)):
        tiled_dots.conv_dw(spec, dy, x, dw)
        return
    found = plan(spec, x.dtype, active())
    memory = workspace("work", found.memory, x.dtype)
    weight_sums(found.operations, x, dy, found.record, memory, dw)
    if not found.once:
        gather_sums(found.workers * found.sums, found.record, memory, dw)
