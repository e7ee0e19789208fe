"""The `tiled` backend's forward and dx where an output is a sum of few products: inputs stay in registers.

    y[k, p] = bias[k] + sum over taps t of w[k, t] * x[p + t]

The inputs that a vector of outputs reads, one vector for each tap, are loaded once and serve all filters (the
input-stationary dataflow: Y. Chen, J. Emer, V. Sze, "Eyeriss", ISCA 2016). Weights are read where they lie,
for two vectors at a time where registers hold the inputs of both. One call does a block of rows: nine
products take less time than it takes to begin and end a register tile.

A vector is made of two halves, wherever they lie, so that rows of 14 or 24 pixels waste little.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import prange
from numba.core import cgutils

from kernels.jit import Kernel, helper
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_axis import CopiedAxis, Copy, Correlation, blocks_that_fit
from kernels.tiled_copy import copy_block
from kernels.tiled_plan import COPIED_VECTOR, SLACK, in_long_rows, shares
from kernels.tiled_record import Recorded
from kernels.tiled_tile import WORTH_A_LAUNCH, registers
from kernels.tiled_vectors import I64, Vectors, call_emitted, compiled, cost_of_others, i64, lanes
from kernels.tiled_work import LINE, PAGE_BYTES, whole_lines, workspace, zeros

ARGUMENTS = (
    "x", "table", "places", "whole", "halved", "w", "filters", "out", "plane", "bias", "spare", "spare2"
)  # fmt: skip
"""Of the function, all intp: addresses of the copied inputs, of the places of taps (intp), and of those of
vectors (intp, as in `Plan`), `whole` ones and then so many in halves; of the weights (filters, taps), of the
outputs, and of the bias; elements from a filter's outputs to the next one's."""
_TOGETHER = 2
"""Filters whose sums are in registers at once: each is a chain of multiplications that wait."""
_CALL = 90
_LOAD = 1
_STORE = 6
"""What a call takes, a vector or a half that is loaded, and a vector of outputs, in multiplications of
vectors, of which two start in a cycle: fitted to the times of some 600 calls on Zen 4."""
_PLACES = 8
"""Lines in a cache that are a multiple of 4096 bytes apart, as those of planes can be."""
_CHUNK = 32
_CHUNK_OF_LARGE = 12
_LARGE_BYTES = 1 << 15
"""Filters at a time, at most, and where planes are that large: fitted like those above, on Zen 5."""


@lru_cache(maxsize=64)
def sums(taps: int, single: bool, dtype: np.dtype) -> int:
    """The address of the function that sums so many products for each output, of one filter or several."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        given = dict(zip(ARGUMENTS, arguments, strict=True))
        (_OfOneFilter if single else _OfFilters)(builder, taps, dtype, given).emit()

    return compiled(f"sums_{taps}_{int(single)}_{dtype.name}", emit)


_Outputs = tuple[list[ir.Value], list[ir.Value]]
"""A vector of them: the inputs of each product, and where its pieces go."""


class _Sums(ABC):
    """Emits it: a loop over the vectors of outputs, whole ones and then those in halves."""

    def __init__(self, builder: ir.IRBuilder, taps: int, dtype: np.dtype, given: dict[str, ir.Value]) -> None:
        self.builder = builder
        self.vectors = Vectors(builder, dtype)
        self.taps = taps
        self.given = given

    def emit(self) -> None:
        builder, given, vectors = self.builder, self.given, self.vectors
        table = self.integers("table", i64(0), self.taps)
        held = self.held()
        in_all = builder.add(given["whole"], given["halved"])
        for pieces, begin, end in ((1, i64(0), given["whole"]), (2, given["whole"], in_all)):
            for number in self.some_of(begin, end, self.along()):
                found = []
                for n in number:
                    places = self.integers("places", builder.mul(n, i64(4)), 4)
                    inputs = [
                        vectors.load_pieces([vectors.at(given["x"], place, tap) for place in places[:pieces]])
                        for tap in table
                    ]
                    found.append((inputs, places[2 : 2 + pieces]))
                self.outputs(found, held)

    @abstractmethod
    def along(self) -> int:
        """Vectors of outputs at a time."""

    @abstractmethod
    def held(self) -> list[ir.Value]:
        """What stays in registers through all vectors."""

    @abstractmethod
    def outputs(self, vectors: list[_Outputs], held: list[ir.Value]) -> None:
        """Some vectors of outputs, of all filters."""

    def some_of(self, begin: ir.Value, end: ir.Value, together: int) -> Iterator[list[ir.Value]]:
        """Loops over numbers, so many at a time and then each of the rest."""
        builder = self.builder
        for count in sorted({together, 1}, reverse=True):
            last = builder.sub(end, builder.srem(builder.sub(end, begin), i64(count)))
            with cgutils.for_range_slice(builder, begin, last, i64(count)) as (n, _):
                yield [builder.add(n, i64(i)) for i in range(count)]
            begin = last

    def store(self, value: ir.Value, filter_: ir.Value, targets: list[ir.Value]) -> None:
        vectors = self.vectors
        plane = vectors.at(self.given["out"], self.builder.mul(filter_, self.given["plane"]))
        vectors.store_pieces(value, [vectors.at(plane, target) for target in targets])

    def spread(self, address: ir.Value, element: ir.Value) -> ir.Value:
        """A number in memory, in every lane."""
        place = self.vectors.pointer(self.vectors.at(address, element), self.vectors.real)
        return self.vectors.spread(self.builder.load(place))

    def integers(self, name: str, begin: ir.Value, count: int) -> list[ir.Value]:
        table = self.builder.inttoptr(self.given[name], I64.as_pointer())
        places = [self.builder.gep(table, [self.builder.add(begin, i64(i))]) for i in range(count)]
        return [self.builder.load(place) for place in places]


class _OfFilters(_Sums):
    """Inputs stay in registers while filters go by."""

    def along(self) -> int:
        return 2 if 2 * (self.taps + _TOGETHER) + 1 <= registers() else 1

    def held(self) -> list[ir.Value]:
        return []

    def outputs(self, vectors: list[_Outputs], held: list[ir.Value]) -> None:
        for filters in self.some_of(i64(0), self.given["filters"], _TOGETHER):
            self.of_some(vectors, filters)

    def of_some(self, outputs: list[_Outputs], filters: list[ir.Value]) -> None:
        given, vectors = self.given, self.vectors
        weights = [vectors.at(given["w"], self.builder.mul(k, i64(self.taps))) for k in filters]
        sums = [[self.spread(given["bias"], k)] * len(outputs) for k in filters]
        for t in range(self.taps):
            for place, values in zip(weights, sums, strict=True):
                number = self.spread(place, i64(t))
                values[:] = [
                    vectors.fma(number, inputs[t], value)
                    for (inputs, _), value in zip(outputs, values, strict=True)
                ]
        for k, values in zip(filters, sums, strict=True):
            for (_, targets), value in zip(outputs, values, strict=True):
                self.store(value, k, targets)


class _OfOneFilter(_Sums):
    """Weights stay in registers; each multiplication reads its inputs."""

    def along(self) -> int:
        return 1

    def held(self) -> list[ir.Value]:
        bias = self.spread(self.given["bias"], i64(0))
        return [bias, *(self.spread(self.given["w"], i64(t)) for t in range(self.taps))]

    def outputs(self, vectors: list[_Outputs], held: list[ir.Value]) -> None:
        for inputs, targets in vectors:
            value, *weights = held
            for weight, vector in zip(weights, inputs, strict=True):
                value = self.vectors.fma(weight, vector, value)
            self.store(value, i64(0), targets)


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """A correlation of few products; lengths and steps in elements."""

    copy: Copy
    groups: int
    filters: int
    """Of a group."""
    products: int
    """Of an output."""
    out_height: int
    out_width: int
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image; the last one may begin before its neighbour ends."""
    chunk: int
    """Filters whose outputs are written side by side."""
    apart_down: int
    """Output rows in the copy, in rows of it."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    of_worker: int
    """Elements of a worker's part of the workspace."""
    address: int
    """Of the compiled function."""
    whole: int
    """How many vectors are not made of halves; they come first."""
    places: np.ndarray
    """Where a vector's two halves come from in the copy, and where they go to: intp (vectors, 4)."""
    table: np.ndarray
    """Where the taps of output 0 lie in the copy: intp (products,)."""


class Cut(NamedTuple):
    """How such a correlation is cut up, as `threads` share it."""

    spec: ConvSpec
    """In long rows."""
    asked: Correlation
    dtype: np.dtype
    threads: int
    products: int
    down_axis: CopiedAxis
    across_axis: CopiedAxis
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image."""
    copy: Copy
    """Of a block."""
    whole: int
    places: np.ndarray
    """As in `Plan`."""

    @classmethod
    def of(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut | None:
        """None where registers do not hold the inputs, rows no half, or weights lie in another order."""
        wide = lanes(dtype)
        spec = in_long_rows(spec, wide)
        asked = Correlation.of(spec, op)
        (rows, cols), *others = asked.parts
        products = asked.channels * len(rows.taps) * len(cols.taps)
        in_order = not others and rows.step == cols.step == 1 and asked.per_filter == products
        if not in_order or products + _TOGETHER + 1 > registers() + 4 or cols.out < wide // 2:
            return None
        down_axis, across_axis = CopiedAxis.of([rows], True), CopiedAxis.of([cols], True)
        fitting = blocks_that_fit(down_axis, across_axis, asked.channels, rows.out, cols.out, dtype)
        blocks = min(rows.out, fitting * shares(spec.N * spec.groups * fitting, threads))
        block = -(-rows.out // blocks)
        copy = Copy.of(down_axis, across_axis, asked.channels, block, cols.out, wide)
        whole, places = _places(block, cols.out, copy.pitch * down_axis.apart, wide)
        return cls(
            spec, asked, dtype, threads, products, down_axis, across_axis, block, -(-rows.out // block), copy,
            whole, places,
        )  # fmt: skip

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self.spec.N * self.spec.groups * self.blocks

    @property
    def chunk(self) -> int:
        """Filters whose outputs are written side by side: their lines have places in the cache at once."""
        plane = math.prod(self.asked.plane) * self.dtype.itemsize
        places = _PLACES * PAGE_BYTES // max(LINE, math.gcd(plane, PAGE_BYTES))
        return min(places, _CHUNK_OF_LARGE if plane > _LARGE_BYTES else _CHUNK)

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors."""
        copy, filters = self.copy, self.asked.filters
        chunks = -(-filters // self.chunk)
        pieces = 2 * len(self.places) - self.whole
        sums = len(self.places) * filters
        copied = copy.channels * len(copy.phases) * copy.rows * len(copy.chunks)
        beside = _STORE * sums + chunks * (_CALL + _LOAD * pieces * self.products) + COPIED_VECTOR * copied
        task = sums * self.products + beside * cost_of_others() / 2
        return -(-self.tasks // self.threads) * task


def plan(cut: Cut) -> Plan:
    """Forward, or dx."""
    spec, asked, copy = cut.spec, cut.asked, cut.copy
    ((rows, cols),) = asked.parts
    taps = copy.places(cut.down_axis, cut.across_axis, rows, cols)
    of_worker = whole_lines(copy.channel * asked.channels + SLACK)
    return Plan(
        copy=copy, groups=spec.groups, filters=asked.filters, products=cut.products,
        out_height=rows.out, out_width=cols.out, block=cut.block, blocks=cut.blocks, chunk=cut.chunk,
        apart_down=cut.down_axis.apart, workers=cut.threads, tasks=cut.tasks,
        operations=spec.flops // WORTH_A_LAUNCH, of_worker=of_worker,
        address=sums(cut.products, asked.filters == 1, cut.dtype), whole=cut.whole, places=cut.places,
        table=np.array([c * copy.channel + tap for c in range(asked.channels) for tap in taps], np.intp),
    )  # fmt: skip


def _places(rows: int, width: int, row_step: int, wide: int) -> tuple[int, np.ndarray]:
    """How many vectors are whole, and `Plan.places` of a block; a row's last half may begin earlier."""
    half = wide // 2
    firsts = [(row, col) for row in range(rows) for col in range(0, width - wide + 1, wide)]
    rest = range(width // wide * wide, width, half)
    halves = [(row, min(col, width - half)) for row in range(rows) for col in rest]
    halves += halves[-1:] * (len(halves) % 2)
    pairs = [((row, col), (row, col + half)) for row, col in firsts]
    pairs += zip(halves[::2], halves[1::2], strict=True)
    places = [[row * step + col for step in (row_step, width) for row, col in pair] for pair in pairs]
    return len(firsts), np.array(places, np.intp)


@Kernel
def correlate_few(source, w, bias, out, plan, memory):
    """out = source correlated with w, plus bias."""
    workers, tasks = plan[0].workers, plan[0].tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            sum_block(worker, task, source.ctypes.data, w.ctypes.data, bias.ctypes.data, out.ctypes.data,
                      plan, memory)  # fmt: skip


@helper
def sum_block(worker, task, source, w, bias, out, plan, memory):
    """One task of it: a block of rows of one image and group; arrays by their addresses."""
    p = plan[0]
    c = p.copy
    size = memory.itemsize
    unit = task // p.blocks
    first = min(task % p.blocks * p.block, p.out_height - p.block)
    k, plane = unit % p.groups * p.filters, p.out_height * p.out_width
    copied = memory.ctypes.data + worker * p.of_worker * size
    copy_block(memory.dtype.type(0), source + unit * c.channels * c.H * c.W * size, c.channels,
               first * p.apart_down, c, copied)  # fmt: skip
    to = out + (unit * p.filters * plane + first * p.out_width) * size
    halved = p.places.rows - p.whole
    for n in range(0, p.filters, p.chunk):
        call_emitted(p.address, copied, p.table.address, p.places.address, p.whole, halved,
                     w + (k + n) * p.products * size, min(p.chunk, p.filters - n),
                     to + n * plane * size, plane, bias + (k + n) * size, 0, 0)  # fmt: skip


def correlate(plan: Plan, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out = source correlated with w, plus bias, if it is not empty."""
    memory = workspace("work", plan.workers * plan.of_worker, source.dtype)
    if not len(bias):
        bias = zeros(plan.groups * plan.filters, source.dtype)
    correlate_few(plan.operations, source, w, bias, out, plan.record, memory)
