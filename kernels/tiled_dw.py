"""The `tiled` backend's dw: sums over pixels of x at each tap, times dy.

dy is turned so that vectors lie along filters. A tile's numbers are the taps of a channel, on a padded copy
of x, or, on small planes, some channels at one tap: then x is read where it lies, without what falls on
padding.

Where there is one tap and all pixels are read, dw is a product of matrices, dy times x: see `tiled_matrix`.

Each worker sums over its images; then the workers' sums are added, and turned back. Where there are few
images, workers share their channels. db is summed from the turned dy, too: reading dy once more takes up to a
quarter of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels import tiled_dots, tiled_matrix
from kernels.arrays import records
from kernels.jit import Kernel, helper, is_launched
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import BLOCK_BYTES, CopiedAxis, Copy, forward_taps
from kernels.tiled_copy import copy_block, lanes_of, turn, turner
from kernels.tiled_lay import spans
from kernels.tiled_plan import SLACK, in_long_rows, shares
from kernels.tiled_record import Recorded, entries, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, lanes, multiplications_a_cycle
from kernels.tiled_work import whole_lines, workspace, zeros

PIXELS = 256
"""Pixels that a tile should sum over before it goes back to memory."""
_MOST_PIXELS = 400
"""Of a plane that tiles read where it lies: their tables, one for each tap, are to stay in the cache, too."""
_STRETCH = 256
"""Pixels whose sum for db is made by itself, as sums of shorter sums are rounded less."""
_TURNED = 12
_SETTING_OUT = 7000
"""What turning a vector of dy takes, and what tiles take at the least, in multiplications of vectors: see
`tiled_dots`."""
_AS_DOTS = 0.6
"""Of a product's cost, what dots may cost instead: fitted to some 1,000 calls on Zen 4."""
_LEAST_FULL = 0.7
"""Share of such a tile's numbers that channels must fill."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """dw of a layer; lengths and steps in elements."""

    copy: Copy
    copied: int
    """Whether tiles read x from a copy; else they read it where it lies, as none reads padding."""
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
    """That tiles sum over at once, so that they have enough pixels."""
    of_task: int
    """Images of a task."""
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
    plane: int
    row_step: int
    """From a channel to the next, where tiles read, and from a row of a tile's numbers to the next."""
    sums_step: int
    """From the sums of a number to those of the next."""
    turner: int
    """The address of what turns squares."""
    sums: int
    """Of a worker, with whose the workspace begins; or of all, where they are whole."""
    work: int
    turned: int
    of_worker: int
    """Where the workers' copies begin, their turned dy behind these, and how large both are."""
    db: int
    """Where the workers' sums for db begin: (workers, groups, padded)."""
    memory: int
    """The workspace in all."""
    size: int
    """Bytes of a number."""
    zeros: np.ndarray
    """What whole sums begin at."""
    table: np.ndarray
    """What tiles read for pixels, image by image, and which pixels these are: intp (any, 2)."""
    pieces: np.ndarray
    """`Piece`, as records."""
    one: np.ndarray
    """The number that dy is multiplied with for db."""
    stretch: np.ndarray
    """What the tiles for db read: intp (_STRETCH, 2)."""
    panels: np.ndarray
    """First filter, how many, and the address of the tile for db: intp (any, 3)."""


class Piece(NamedTuple):
    """A tile of a channel, or of several."""

    tap: int
    """The first one."""
    number: int
    """Where it lies, beyond what the table says."""
    filter: int
    filters: int
    """The first one, and how many."""
    channels: int
    address: int
    first: int
    pixels: int
    """Its pixels in the table, and of an image."""


PIECE = np.dtype([(name, np.intp) for name in Piece._fields])


class _Tiles(NamedTuple):
    """Those of a task, and how they read x; as in `Plan`."""

    pieces: list[Piece]
    table: np.ndarray
    channel_step: int
    plane: int
    row_step: int
    sums_step: int


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> Plan:
    """How to compute dw."""
    spec = in_long_rows(spec, lanes(dtype))
    wide = lanes(dtype)
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    sh, taps = spec.stride[0], spec.R * spec.S
    padded = -(-filters // wide) * wide
    down, across = (CopiedAxis.of([forward_taps(axis)], False) for axis in (spec.rows, spec.cols))
    row_bytes = (channels * across.positions(spec.OW) * sh + spec.OW * padded) * dtype.itemsize
    fit = max(1, 2 * BLOCK_BYTES // row_bytes - spec.rows.reach // sh)
    block = -(-spec.OH // -(-spec.OH // fit))
    blocks = -(-spec.OH // block)
    copy = Copy.of(down, across, channels, block, spec.OW, wide)
    images = 1
    if block == spec.OH and spec.groups == 1:
        images = max(1, min(PIXELS // (block * spec.OW), -(-spec.N // threads), fit // block))
    copied = block < spec.OH or not _inside_pays(spec)
    if copied:
        tiles = _tiles_on_a_copy(spec, dtype, padded, copy, images, block)
    else:
        tiles = _tiles_inside(spec, dtype, padded, images)
    steps, sums = -(-channels // tiles.channel_step), spec.groups * channels * taps * padded
    of_task = images
    if spec.groups == 1 and blocks == 1 and steps >= threads and spec.N * block * spec.OW * padded < 2 * sums:
        of_task = spec.N  # all threads turn all of dy: less than to clear sums of their own, and add these up
    tasks = -(-spec.N * spec.groups // of_task) * blocks
    slices = min(shares(tasks, threads), steps)
    once = tasks == spec.groups
    workers = min(threads, tasks * slices)
    turned = whole_lines(images * channels * copy.plane + SLACK) if copied else 0
    of_worker = whole_lines(turned + images * block * spec.OW * padded + SLACK)
    work = whole_lines(sums if once else workers * sums)
    db = work + workers * of_worker
    panels = [
        (first, vectors * wide, tile(Shape(1, 1, 1, vectors), dtype))
        for first, vectors in _panels(padded, dtype)
    ]
    return Plan(
        copy=copy, copied=copied, groups=spec.groups, filters=filters, padded=padded, taps=taps, OH=spec.OH,
        OW=spec.OW, units=spec.N * spec.groups, images=images, of_task=of_task, block=block, blocks=blocks,
        slices=slices, once=once, workers=workers, tasks=tasks * slices,
        operations=spec.flops // WORTH_A_LAUNCH,
        stride_down=sh, channel_step=tiles.channel_step, plane=tiles.plane, row_step=tiles.row_step,
        sums_step=tiles.sums_step, turner=turner(dtype, asks=True), sums=sums, work=work, turned=turned,
        of_worker=of_worker, db=db, memory=db + workers * spec.groups * padded, size=dtype.itemsize,
        zeros=zeros(registers(), dtype), table=tiles.table, pieces=records(tiles.pieces),
        one=np.ones(1, dtype), stretch=np.column_stack([np.zeros(_STRETCH, np.intp), np.arange(_STRETCH)]),
        panels=np.array(panels, np.intp),
    )  # fmt: skip


def _tiles_on_a_copy(
    spec: ConvSpec, dtype: np.dtype, padded: int, copy: Copy, images: int, block: int
) -> _Tiles:
    """Whole rows of taps where they are side by side, else single ones; channels, where there is one tap."""
    (sh, sw), (dh, dw) = spec.stride, spec.dilation
    places = np.arange(images)[:, None, None] * copy.channels * copy.plane
    places = places + np.arange(block)[:, None] * sh * copy.pitch + np.arange(spec.OW) * sw
    table = np.column_stack([places.ravel(), np.arange(places.size)])
    pixels = block * spec.OW
    if spec.R * spec.S == 1:
        pieces, step = _pieces_of_channels([(0, 0, pixels)], dtype, padded, copy.channels)
        return _Tiles(pieces, table, step, copy.plane, copy.plane, padded)
    most = registers()
    width = spec.S if dw == 1 else 1
    pieces = []
    for first, vectors in _panels(padded, dtype):
        for at, cols in spans(spec.S, min(width, max(1, most // vectors))):
            height = max(1, most // (vectors * cols)) if cols == spec.S else 1
            for row, rows in spans(spec.R, min(height, spec.R)):
                number = row * dh * copy.pitch + at * dw
                address = tile(Shape(rows, cols, 1, vectors), dtype)
                filters = vectors * lanes(dtype)
                pieces.append(Piece(row * spec.S + at, number, first, filters, 1, address, 0, pixels))
    return _Tiles(pieces, table, 1, copy.plane, dh * copy.pitch, padded)


def _inside_pays(spec: ConvSpec) -> bool:
    """Whether tiles of several channels, that read x where it lies, beat those of a channel's taps on a copy.

    They leave out taps in the padding. The bounds are measured, on some 800 layers.
    """
    channels, step = spec.C // spec.groups, _channels_of_a_tile()
    full = channels / (-(-channels // step) * step)
    return spec.OH * spec.OW <= _MOST_PIXELS and full >= _LEAST_FULL


def _tiles_inside(spec: ConvSpec, dtype: np.dtype, padded: int, images: int) -> _Tiles:
    """Of several channels, one for each tap, over the pixels whose tap lies inside of whole planes."""
    plane, pixels = spec.H * spec.W, spec.OH * spec.OW
    image = np.arange(images)[:, None] * (spec.C // spec.groups * plane, pixels)
    rows_of_taps, cols_of_taps = (
        [
            np.column_stack([axis.taps()[:, tap], range(axis.out)])[axis.valid()[:, tap]]
            for tap in range(axis.kernel)
        ]
        for axis in (spec.rows, spec.cols)
    )
    tables, taps, first = [], [], 0
    for tap, (rows, cols) in enumerate(product(rows_of_taps, cols_of_taps)):
        inside = (rows[:, None] * (spec.W, spec.OW) + cols).reshape(-1, 2)
        tables.append((image[:, None] + inside).reshape(-1, 2))
        taps.append((tap, first, len(inside)))
        first += len(tables[-1])
    pieces, step = _pieces_of_channels(taps, dtype, padded, spec.C // spec.groups)
    return _Tiles(pieces, np.concatenate(tables), step, plane, plane, spec.R * spec.S * padded)


def _pieces_of_channels(
    taps: list[tuple[int, int, int]], dtype: np.dtype, padded: int, channels: int
) -> tuple[list[Piece], int]:
    """Tiles of several channels for each tap, its first pixel, and those of an image; and the channels."""
    step = min(channels, _channels_of_a_tile())
    wide = lanes(dtype)
    return [
        Piece(tap, 0, filter, vectors * wide, count, tile(Shape(count, 1, 1, vectors), dtype), first, pixels)
        for filter, vectors in _panels(padded, dtype)
        for tap, first, pixels in taps
        for count in sorted({step, channels % step} - {0})
    ], step


def _channels_of_a_tile() -> int:
    return 8 if registers() > 12 else 4


def _panels(padded: int, dtype: np.dtype) -> Iterator[tuple[int, int]]:
    """The first filter, and the vectors, of each tile."""
    wide = lanes(dtype)
    for first, vectors in spans(padded // wide, 3 if registers() > 12 else 2):
        yield first * wide, vectors


@Kernel
def weight_sums(x, dy, plan, memory, dw, with_db):
    """Into the workspace: dw (workers, groups, channels, taps, padded filters), as far as each has come.

    Where a task is all there is to its channels, it fills their part of dw instead. With db, its sums too.
    """
    workers, tasks, sums, once = plan[0].workers, plan[0].tasks, plan[0].sums, plan[0].once
    db, of_db = plan[0].db, plan[0].groups * plan[0].padded
    for worker in prange(workers):
        if with_db:
            for i in range(db + worker * of_db, db + (worker + 1) * of_db):
                memory[i] = 0
        if not once:
            for i in range(worker * sums, (worker + 1) * sums):
                memory[i] = 0
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_to_sums(worker, task, x.ctypes.data, dy.ctypes.data, plan, memory, dw.ctypes.data, with_db)


@helper
def add_to_sums(worker, task, x, dy, plan, memory, dw, with_db):
    """One task of it; `x`, `dy` and `dw` by their addresses."""
    p = plan[0]
    c = p.copy
    size = memory.itemsize
    zero = memory.dtype.type(0)
    plane = p.OH * p.OW
    piece, block, share = task % p.slices, task // p.slices % p.blocks, task // (p.slices * p.blocks)
    first, group = block * p.block, share * p.of_task % p.groups
    steps = (c.channels + p.channel_step - 1) // p.channel_step
    least = piece * steps // p.slices * p.channel_step
    most = min(c.channels, (piece + 1) * steps // p.slices * p.channel_step)
    pixels = min(p.block, p.OH - first) * p.OW
    there = memory.ctypes.data + (p.work + worker * p.of_worker) * size
    turned = there + p.turned * size
    channels = (0 if p.once else worker * p.sums) + group * c.channels * p.taps * p.padded
    sums = memory.ctypes.data + channels * size
    start = p.zeros.address if p.once else 0
    for begin in range(share * p.of_task, min((share + 1) * p.of_task, p.units), p.images):
        images = min(p.images, p.units - begin)
        for image in range(images):
            unit = begin + image
            if p.copied:
                target = there + (image * c.channels + least) * c.channel * size
                copy_block(zero, x + (unit * c.channels + least) * c.H * c.W * size, most - least,
                           first * p.stride_down, c, target)  # fmt: skip
            rows = dy + (unit * p.filters * plane + first * p.OW) * size
            turn(zero, p.turner, rows, p.filters, plane, pixels, turned + image * pixels * p.padded * size,
                 p.padded, 1, p.filters * plane)  # fmt: skip
        read = there if p.copied else x + begin * c.channels * p.plane * size
        multiply(p, read, turned, least, most, pixels, images, sums, start)
        if with_db and least == 0:
            to = p.db + (worker * p.groups + group) * p.padded
            add_gradients(p, turned, pixels * images, memory.ctypes.data + to * size)
        start = 0
    if p.once:
        rest = c.channels * p.taps
        turn(zero, p.turner, sums + least * p.taps * p.padded * size, (most - least) * p.taps, p.padded,
             p.filters, dw + (group * p.filters * rest + least * p.taps) * size, rest, 0, 0)  # fmt: skip


@helper
def add_gradients(p, turned, count, sums):
    """The sums of so many pixels of the turned dy; addresses."""
    panels = matrix(p.panels)
    for i in range(len(panels)):
        for begin in range(0, count, _STRETCH):
            first = (begin * p.padded + panels[i, 0]) * p.size
            call_emitted(panels[i, 2], p.one.address, 0, turned + first, 0, p.stretch.address, p.padded,
                         min(_STRETCH, count - begin), sums + panels[i, 0] * p.size, 0, 0,
                         panels[i, 1], 0)  # fmt: skip


@helper
def multiply(p, read, turned, least, most, pixels, images, sums, start):
    """The sums of channels `least` to `most` over so many pixels, at most, of so many images; addresses.

    They begin at what `start` says, or at what they are where it is 0.
    """
    c, pieces = p.copy, entries(p.pieces, PIECE)
    size = p.size
    for channel in range(least, most, p.channel_step):
        for piece in pieces:
            if p.channel_step > 1 and piece.channels != min(p.channel_step, c.channels - channel):
                continue
            to = (channel * p.taps + piece.tap) * p.padded + piece.filter
            call_emitted(piece.address, read + (channel * p.plane + piece.number) * size, p.row_step,
                         turned + piece.filter * size, 0, p.table.address + piece.first * 16, p.padded,
                         min(piece.pixels, pixels) * images, sums + to * size, p.sums_step, 0,
                         piece.filters, start)  # fmt: skip


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
         dw.ctypes.data + (group * p.filters * rest + i) * size, rest, 0, 0)  # fmt: skip


@lru_cache(maxsize=1024)
def dots_pay(spec: ConvSpec, dtype: np.dtype, threads: int) -> bool:
    """Whether they cost less than tiles."""
    products, filters = spec.C // spec.groups * spec.R * spec.S, spec.K // spec.groups
    vectors = spec.N * spec.groups * spec.OH * spec.OW * -(-filters // lanes(dtype))
    share = threads if is_launched(spec.flops // WORTH_A_LAUNCH) else 1
    tiles = vectors / share * (products + multiplications_a_cycle() * _TURNED) + _SETTING_OUT
    return tiled_dots.Cut.of(spec, dtype, threads, True).cost < tiles


@lru_cache(maxsize=1024)
def matrix_plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> tiled_matrix.Plan | None:
    """How dw is a product of matrices, unless it is none, or dots cost less."""
    cut = tiled_matrix.Cut.of_dw(spec, dtype, threads)
    if cut is None or tiled_dots.Cut.of(spec, dtype, threads, True).cost < _AS_DOTS * cut.cost:
        return None
    return tiled_matrix.plan(cut)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from x and dy."""
    asked = spec, x.dtype, active()
    if (found := matrix_plan(*asked)) is not None:
        tiled_matrix.conv_dw_db(found, dy, x, dw, np.empty(0, x.dtype))
    elif dots_pay(*asked):
        tiled_dots.conv_dw(spec, dy, x, dw)
    else:
        _sum_weights(spec, dy, x, dw)


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw and db."""
    asked = spec, x.dtype, active()
    if (found := matrix_plan(*asked)) is not None:
        tiled_matrix.conv_dw_db(found, dy, x, dw, db)
        return
    if dots_pay(*asked):
        tiled_dots.conv_dw_db(spec, dy, x, dw, db)
        return
    memory, tiles = _sum_weights(spec, dy, x, dw, with_db=True)
    sums = memory[tiles.db : tiles.memory].reshape(tiles.workers, tiles.groups, tiles.padded)
    np.add.reduce(sums[:, :, : tiles.filters], axis=0, out=db.reshape(tiles.groups, tiles.filters))


def _sum_weights(
    spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, with_db: bool = False
) -> tuple[np.ndarray, Plan]:
    """dw; returns the workspace, which holds the workers' sums for db if they are wanted, and the plan."""
    found = plan(spec, x.dtype, active())
    memory = workspace("work", found.memory, x.dtype)
    weight_sums(found.operations, x, dy, found.record, memory, dw, with_db)
    if not found.once:
        gather_sums(found.workers * found.sums, found.record, memory, dw)
    return memory, found
