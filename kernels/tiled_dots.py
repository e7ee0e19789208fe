"""The `tiled` backend's dw where there are few channels: vectors along the pixels of dy and of x.

    dw[k, c, tap] = sum over images and pixels p of dy[k, p] * x[c, p + tap]

A function holds sums of some filters by some taps in registers, a vector of partial sums each, and goes over
the rows of a block: each vector of dy serves all taps, and each of x all filters. Nothing has to be turned,
which is most of the work where a first layer has a channel or three.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils

from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import CopiedAxis, Copy, blocks_that_fit, forward_taps
from kernels.tiled_copy import copy_block, lanes_of
from kernels.tiled_lay import spans
from kernels.tiled_plan import SLACK
from kernels.tiled_record import Recorded, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, registers
from kernels.tiled_vectors import I64, Vectors, call_emitted, compiled, i64, lanes
from kernels.tiled_work import whole_lines, workspace

ARGUMENTS = (
    "dy", "dy_step", "dy_row", "x", "x_row", "table", "rows", "width", "sums", "sums_step", "spare", "spare2"
)  # fmt: skip
"""Of the function, all intp: addresses of the first filter's first pixel, of what tap 0 at place 0 reads
there, of the places of taps (intp), and of the sums (filters, sums_step, lanes); steps in elements, from a
filter to the next and from a row to the next; rows, and pixels of each."""
_TAPS = 6
"""Of a function, at most: about as many as filters, since each vector serves all of the others."""
_TURNING = 20
"""Multiplications of vectors in the time that turning one vector of dy takes, as measured."""
_LOADS = 1.5
"""Time of a multiplication here, over that in a register tile: vectors of x lie across lines of the cache."""
_TAIL = 2
"""Time of a row's last vector, which is masked, over that of a whole one."""


@lru_cache(maxsize=256)
def dots(filters: int, taps: int, dtype: np.dtype) -> int:
    """The address of the function that adds to sums of so many filters by so many taps."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        given = dict(zip(ARGUMENTS, arguments, strict=True))
        _Dots(builder, filters, taps, dtype, given).emit()

    return compiled(f"dots_{filters}_{taps}_{dtype.name}", emit)


class _Dots:
    """Emits it."""

    def __init__(
        self, builder: ir.IRBuilder, filters: int, taps: int, dtype: np.dtype, given: dict[str, ir.Value]
    ) -> None:
        self.builder = builder
        self.vectors = Vectors(builder, dtype)
        self.filters, self.taps = filters, taps
        self.given = given

    def emit(self) -> None:
        builder, given, wide = self.builder, self.given, self.vectors.wide
        table = builder.inttoptr(given["table"], I64.as_pointer())
        places = [builder.load(builder.gep(table, [i64(t)])) for t in range(self.taps)]
        step = builder.mul(given["sums_step"], i64(wide))
        targets = [
            self.vectors.at(given["sums"], builder.mul(step, i64(f)), i64(t * wide))
            for f, t in product(range(self.filters), range(self.taps))
        ]
        sums = [cgutils.alloca_once_value(builder, self.vectors.load(target)) for target in targets]
        whole = builder.sdiv(given["width"], i64(wide))
        with cgutils.for_range(builder, given["rows"]) as rows:
            with cgutils.for_range(builder, whole) as loop:
                self.add(sums, places, rows.index, builder.mul(loop.index, i64(wide)), None)
            first = builder.mul(whole, i64(wide))
            left = builder.sub(given["width"], first)
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                self.add(sums, places, rows.index, first, self.vectors.below(left))
        for place, target in zip(sums, targets, strict=True):
            self.vectors.store(builder.load(place), target)

    def add(self, sums, places, row, first, mask) -> None:
        """The products of one vector of pixels, from `first` on in a row."""
        builder, given = self.builder, self.given
        down = builder.add(builder.mul(given["dy_row"], row), first)
        gradients = [
            self.vectors.load(self.vectors.at(given["dy"], builder.mul(given["dy_step"], i64(f)), down), mask)
            for f in range(self.filters)
        ]
        down = builder.add(builder.mul(given["x_row"], row), first)
        for t in range(self.taps):
            inputs = self.vectors.load(self.vectors.at(given["x"], places[t], down), mask)
            for f in range(self.filters):
                place = sums[f * self.taps + t]
                builder.store(self.vectors.fma(gradients[f], inputs, builder.load(place)), place)


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """dw of a layer; lengths and steps in elements."""

    copy: Copy
    groups: int
    filters: int
    """Of a group."""
    taps: int
    OH: int
    OW: int
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image; the last one may be lower."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    sums: int
    """Of a worker; the workspace begins with those of all, one behind the other."""
    work: int
    of_worker: int
    """Where the workers' copies begin, and how large they are."""
    memory: int
    """The workspace in all."""
    table: np.ndarray
    """Where the taps of output 0 lie in a channel's copy: intp (taps,)."""
    pieces: np.ndarray
    """First filter, how many, first tap, and the address of their function: intp (pieces, 4)."""


def pays(spec: ConvSpec, wide: int) -> bool:
    """Whether this takes fewer operations than register tiles, for which dy is turned."""
    sums = spec.C // spec.groups * spec.R * spec.S
    filters = spec.K // spec.groups
    tiles = spec.OW * -(-filters // wide) * (sums + _TURNING)
    whole, rest = divmod(spec.OW, wide)
    return (whole + _TAIL * bool(rest)) * filters * _LOADS * sums < tiles


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> Plan:
    """How to compute dw."""
    channels, filters, taps = spec.C // spec.groups, spec.K // spec.groups, spec.R * spec.S
    rows, cols = forward_taps(spec.rows), forward_taps(spec.cols)
    down, across = CopiedAxis.of([rows], True), CopiedAxis.of([cols], True)
    fitting = blocks_that_fit(down, across, channels, spec.OH, spec.OW, dtype)
    blocks = max(fitting, min(spec.OH, -(-threads // (spec.N * spec.groups))))
    block = -(-spec.OH // blocks)
    wide = lanes(dtype)
    copy = Copy.of(down, across, channels, block, spec.OW, wide)
    tasks = spec.N * spec.groups * -(-spec.OH // block)
    workers = min(threads, tasks)
    sums = spec.K * channels * taps * wide
    work, of_worker = whole_lines(workers * sums), whole_lines(copy.channel * channels + SLACK)
    pieces = [
        (k, count, tap, dots(count, span, dtype))
        for tap, span in spans(taps, _TAPS)
        for k, count in spans(filters, registers() // span)
    ]
    return Plan(
        copy=copy, groups=spec.groups, filters=filters, taps=taps, OH=spec.OH, OW=spec.OW, block=block,
        blocks=-(-spec.OH // block), workers=workers, tasks=tasks, operations=spec.flops // WORTH_A_LAUNCH,
        sums=sums, work=work, of_worker=of_worker, memory=work + workers * of_worker,
        table=np.array(copy.places(down, across, rows, cols), np.intp), pieces=np.array(pieces, np.intp),
    )  # fmt: skip


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
    """One task of it: a block of rows of one image and group; `x` and `dy` by their addresses."""
    p = plan[0]
    c, pieces = p.copy, matrix(p.pieces)
    zero = memory.dtype.type(0)
    size, wide = memory.itemsize, lanes_of(zero)
    plane, of_filter = p.OH * p.OW, c.channels * p.taps
    unit, first = task // p.blocks, task % p.blocks * p.block
    copied = memory.ctypes.data + (p.work + worker * p.of_worker) * size
    copy_block(zero, x + unit * c.channels * c.H * c.W * size, c.channels, first, c, copied)
    gradient = dy + (unit * p.filters * plane + first * p.OW) * size
    sums = memory.ctypes.data + (worker * p.sums + unit % p.groups * p.filters * of_filter * wide) * size
    for i in range(len(pieces)):
        k, tap = pieces[i, 0], pieces[i, 2]
        for channel in range(c.channels):
            there = k * of_filter + channel * p.taps + tap
            call_emitted(pieces[i, 3], gradient + k * plane * size, plane, p.OW,
                         copied + channel * c.channel * size, c.pitch, p.table.address + tap * 8,
                         min(p.block, p.OH - first), p.OW, sums + there * wide * size, of_filter,
                         0, 0)  # fmt: skip


@Kernel
def add_partial_sums(plan, memory, dw):
    """dw = the workers' sums, added up."""
    workers, sums = plan[0].workers, plan[0].sums
    flat = dw.reshape(-1)
    wide = sums // len(flat)
    for i in prange(len(flat)):
        total = dw.dtype.type(0)
        for begin in range(i * wide, workers * sums, sums):
            for lane in range(begin, begin + wide):
                total += memory[lane]
        flat[i] = total


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from x and dy."""
    found = plan(spec, x.dtype, active())
    memory = workspace("work", found.memory, x.dtype)
    sum_products(found.operations, x, dy, found.record, memory)
    add_partial_sums(found.workers * found.sums, found.record, memory, dw)
