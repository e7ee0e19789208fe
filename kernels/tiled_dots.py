"""The `tiled` backend's dw where there are few channels: vectors along the pixels of dy and of x.

    dw[k, c, tap] = sum over images and pixels p of dy[k, p] * x[c, p + tap]

A function holds sums of some filters by some taps in registers, a vector of partial sums each, and goes over
the pixels of some images: each vector of dy serves all taps, and each of x all filters. Nothing has to be
turned, which is most of the work where a first layer has a channel or three. db is summed from the same dy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper, is_launched
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import CopiedAxis, Copy, blocks_that_fit, forward_taps
from kernels.tiled_copy import copy_block, lanes_of
from kernels.tiled_dots_emit import Shape, dots, folder
from kernels.tiled_lay import spans
from kernels.tiled_plan import COPIED_VECTOR, SLACK
from kernels.tiled_record import Recorded, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, registers
from kernels.tiled_vectors import call_emitted, lanes, vector_bits
from kernels.tiled_work import whole_lines, workspace

_LOAD = 2
"""Multiplications in the time of a load: most vectors lie across lines of the cache."""
_PIECE = 3
_SUM = 8
_FOLDED = 14
"""And in the time of what is round the products of a vector of pixels, of a sum that goes to memory, and of
one whose lanes are added: fitted to some 700 calls on Zen 4, as is the cost of tiles in `tiled_dw`."""
_IMAGES = 16
_COPIED_BYTES = 64 * 1024
"""Images of a call, at most, so that sums seldom go to memory, and what their copies may take."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """dw of a layer; lengths and steps in elements."""

    copy: Copy
    groups: int
    filters: int
    """Of a group."""
    products: int
    """Weights of a filter."""
    images: int
    OH: int
    OW: int
    together: int
    """Images of a call, at most: one where there are several blocks."""
    chunks: int
    """Of the images: so many that all threads get as much."""
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image; the last one may be lower."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    sums: int
    """Of a worker, for dw and then for db; the workspace begins with those of all, one behind the other."""
    work: int
    of_worker: int
    """Where the workers' copies begin, and how large they are."""
    memory: int
    """The workspace in all."""
    folder: int
    """The address of what adds up sums."""
    table: np.ndarray
    """Where the taps of output 0 lie in the copy: intp (products,)."""
    whole: np.ndarray
    """Where whole vectors lie in dy and in the copy, and their lanes, image by image: intp (any, 3)."""
    rest: np.ndarray
    last: np.ndarray
    """The others, of a block and of the last one, which have so much for each of their pieces."""
    pieces: np.ndarray
    """First filter, first product, and the address of their function: intp (pieces, 3)."""


class Cut(NamedTuple):
    """How dw is cut up, as `threads` share it."""

    spec: ConvSpec
    dtype: np.dtype
    filters: int
    products: int
    """Of a group, and of a filter."""
    block: int
    """Output rows."""
    copy: Copy
    """Of a block."""
    table: list[int]
    """Where the taps of output 0 lie in it."""
    together: int
    chunks: int
    tasks: int
    workers: int
    """As in `Plan`."""
    spans: list[tuple[int, int]]
    of_filters: list[tuple[int, int]]
    """Products and filters that a function is for: the first one, and how many."""

    @classmethod
    def of(cls, spec: ConvSpec, dtype: np.dtype, threads: int, with_db: bool) -> Cut:
        """Of dw, and of db with it."""
        threads = threads if is_launched(spec.flops // WORTH_A_LAUNCH) else 1
        channels, filters = spec.C // spec.groups, spec.K // spec.groups
        rows, cols = forward_taps(spec.rows), forward_taps(spec.cols)
        down, across = CopiedAxis.of([rows], True), CopiedAxis.of([cols], True)
        fitting = blocks_that_fit(down, across, channels, spec.OH, spec.OW, dtype)
        block = -(-spec.OH // max(fitting, min(spec.OH, -(-threads // (spec.N * spec.groups)))))
        blocks = -(-spec.OH // block)
        copy = Copy.of(down, across, channels, block, spec.OW, lanes(dtype))
        copied = copy.channel * channels * dtype.itemsize
        together = max(1, min(_IMAGES, _COPIED_BYTES // copied)) if blocks == 1 else 1
        chunks = min(spec.N, threads * -(-spec.N // (threads * together)))
        tasks = spec.groups * chunks * blocks
        taps = copy.places(down, across, rows, cols)
        table = [channel * copy.channel + tap for channel in range(channels) for tap in taps]
        products, of_filters = _spans(filters, len(table), with_db, _pieces(spec.OW, lanes(dtype)))
        return cls(
            spec, dtype, filters, len(table), block, copy, table, together, chunks, tasks,
            min(threads, tasks), products, of_filters,
        )  # fmt: skip

    @property
    def blocks(self) -> int:
        """Of an image."""
        return -(-self.spec.OH // self.block)

    @property
    def cost(self) -> float:
        """The time of a thread for its share, and for adding up, in multiplications of vectors."""
        spec, copy, wide = self.spec, self.copy, lanes(self.dtype)
        whole, rest = divmod(spec.OW, wide)
        vectors = spec.OH * (whole + bool(rest) / max(1, _pieces(spec.OW, wide)))
        copied = self.blocks * copy.channels * len(copy.phases) * copy.rows * len(copy.chunks)
        image = vectors * _cost(self.of_filters, self.spans) + copied * COPIED_VECTOR / 2
        tasks = -(-self.tasks // self.workers)
        sums = self.filters * (self.products + 1)
        folded = _FOLDED * sums * spec.groups * (self.workers + 1)
        return tasks * (spec.N / (self.chunks * self.blocks) * image + _SUM * sums) + folded


def _spans(
    filters: int, products: int, with_db: bool, pieces: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """How products and filters are shared out to functions so that they cost least.

    Their sums stay in registers, and there are some left for gradients of each filter, for inputs, and for
    the masks of a vector's pieces, where masks have no registers of their own.
    """
    most = registers() + 2 - (pieces if vector_bits() < 512 else 0)
    return min(
        (
            (list(spans(products, span)), list(spans(filters, most // (span + with_db + 1))))
            for span in range(1, products + 1)
            if span + with_db + 1 <= most
        ),
        key=lambda cut: _cost(*reversed(cut)),
    )


def _cost(of_filters: list[tuple[int, int]], of_products: list[tuple[int, int]]) -> float:
    """What a vector of pixels takes, in multiplications."""
    return sum(
        max(filters * products, _LOAD * (filters + products)) + _PIECE
        for _, filters in of_filters
        for _, products in of_products
    )


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype, threads: int, with_db: bool) -> Plan:
    """How to compute dw, and db with it."""
    cut = Cut.of(spec, dtype, threads, with_db)
    copy, block, blocks, together, wide = cut.copy, cut.block, cut.blocks, cut.together, lanes(dtype)
    copied = copy.channel * copy.channels
    sums = spec.K * (cut.products + 1) * wide
    work, of_worker = whole_lines(cut.workers * sums), whole_lines(together * copied + SLACK)
    whole, rest, last = (
        _of_images(table, together, spec.K * spec.OH * spec.OW, copied)
        for table in (
            _whole(block, spec.OW, copy.pitch, wide),
            _rest(block, spec.OW, copy.pitch, wide),
            _rest(spec.OH - (blocks - 1) * block, spec.OW, copy.pitch, wide),
        )
    )
    pieces = [
        (k, first, dots(Shape(filters, products, with_db and first == 0, _pieces(spec.OW, wide)), dtype))
        for first, products in cut.spans
        for k, filters in cut.of_filters
    ]
    return Plan(
        copy=copy, groups=spec.groups, filters=cut.filters, products=cut.products, images=spec.N,
        OH=spec.OH, OW=spec.OW, together=together, chunks=cut.chunks, block=block, blocks=blocks,
        workers=cut.workers, tasks=cut.tasks, operations=spec.flops // WORTH_A_LAUNCH, sums=sums, work=work,
        of_worker=of_worker, memory=work + cut.workers * of_worker, folder=folder(dtype),
        table=np.array(cut.table, np.intp), whole=whole, rest=rest, last=last,
        pieces=np.array(pieces, np.intp),
    )  # fmt: skip


def _pieces(width: int, wide: int) -> int:
    """Of a vector that takes what whole ones leave of a row: two if it has room for that of two rows."""
    rest = width % wide
    return 1 + (rest <= wide // 2) if rest else 0


def _whole(rows: int, width: int, pitch: int, wide: int) -> np.ndarray:
    """`Plan.whole`, of an image."""
    table = [
        (row * width + col, row * pitch + col, (1 << wide) - 1)
        for row in range(rows)
        for col in range(0, width - wide + 1, wide)
    ]
    return np.array(table, np.intp).reshape(-1, 3)


def _rest(rows: int, width: int, pitch: int, wide: int) -> np.ndarray:
    """`Plan.rest`, of an image. What stands for a row that is missing has no lanes."""
    pieces, first = _pieces(width, wide), width // wide * wide
    table = []
    for row in range(0, rows, pieces or rows):
        for i in range(pieces):
            # A vector's lanes begin half a vector before a second piece.
            there, column = min(row + i, rows - 1), first - i * (wide // 2)
            lanes = ((1 << width - first) - 1) << i * (wide // 2) if row + i < rows else 0
            table.append((there * width + column, there * pitch + column, lanes))
    return np.array(table, np.intp).reshape(-1, 3 * max(1, pieces))


def _of_images(table: np.ndarray, images: int, dy_step: int, x_step: int) -> np.ndarray:
    """The table of an image, for several one behind the other."""
    steps = np.resize(np.array((dy_step, x_step, 0)), table.shape[1])
    return (table + np.arange(images)[:, None, None] * steps).reshape(-1, table.shape[1])


@Kernel
def sum_products(x, dy, plan, memory):
    """Into the workspace: partial sums of dw (workers, filters, channels * taps, lanes), of their tasks."""
    workers, tasks, sums = plan[0].workers, plan[0].tasks, plan[0].sums
    for worker in prange(workers):
        for i in range(worker * sums, (worker + 1) * sums):
            memory[i] = 0
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_products(worker, task, x.ctypes.data, dy.ctypes.data, plan, memory)


@helper
def add_products(worker, task, x, dy, plan, memory):
    """One task of it: a block of rows of some images and a group; `x` and `dy` by their addresses."""
    p = plan[0]
    c, pieces = p.copy, matrix(p.pieces)
    zero = memory.dtype.type(0)
    size, wide = memory.itemsize, lanes_of(zero)
    plane = p.OH * p.OW
    block, chunk, group = task % p.blocks, task // p.blocks % p.chunks, task // (p.blocks * p.chunks)
    first, row = chunk * p.images // p.chunks, block * p.block
    images = (chunk + 1) * p.images // p.chunks - first
    copied = memory.ctypes.data + (p.work + worker * p.of_worker) * size
    for i in range(images):
        unit = (first + i) * p.groups + group
        copy_block(zero, x + unit * c.channels * c.H * c.W * size, c.channels, row, c,
                   copied + i * c.channels * c.channel * size)  # fmt: skip
    gradient = dy + ((first * p.groups + group) * p.filters * plane + row * p.OW) * size
    wholes = images * min(p.block, p.OH - row) * (p.OW // wide)
    if block < p.blocks - 1:
        rest, rests = p.rest.address, images * (p.rest.rows // p.together)
    else:
        rest, rests = p.last.address, images * (p.last.rows // p.together)
    sums = memory.ctypes.data + worker * p.sums * size
    db = sums + p.groups * p.filters * p.products * wide * size
    for i in range(len(pieces)):
        k, product = pieces[i, 0], pieces[i, 1]
        filter = group * p.filters + k
        call_emitted(pieces[i, 2], gradient + k * plane * size, plane, copied, p.table.address + product * 8,
                     p.whole.address, wholes, rest, rests,
                     sums + (filter * p.products + product) * wide * size, p.products,
                     db + filter * wide * size, 0)  # fmt: skip


@helper
def add_partial_sums(plan, memory, dw, db):
    """dw, and db if it is not empty, = the workers' sums, added up."""
    p = plan[0]
    sums = memory.ctypes.data
    call_emitted(p.folder, sums, p.sums, p.workers, dw.size, dw.ctypes.data, 0, 0, 0, 0, 0, 0, 0)
    sums += dw.size * lanes_of(dw.dtype.type(0)) * dw.itemsize
    call_emitted(p.folder, sums, p.sums, p.workers, db.size, db.ctypes.data, 0, 0, 0, 0, 0, 0, 0)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from x and dy."""
    _sum(spec, dy, x, dw, np.empty(0, dw.dtype))


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw, and db with it: reading dy once more takes up to a quarter of the time."""
    _sum(spec, dy, x, dw, db)


def _sum(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    found = plan(spec, x.dtype, active(), db.size > 0)
    memory = workspace("work", found.memory, x.dtype)
    sum_products(found.operations, x, dy, found.record, memory)
    add_partial_sums(found.record, memory, dw, db)
