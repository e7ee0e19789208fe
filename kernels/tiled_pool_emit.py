"""What the `tiled` backend's pooling emits: a function for a plane, which loops over its rows and vectors.

A row of outputs is made a vector at a time, with the taps of a row of a window unrolled. What they share is
loaded once: with a stride of 2, two vectors side by side hold two taps of each window, at the lanes of even
and of odd number; so it is with every stride. Loads and stores are masked only where a row begins or ends.

The gradient of means is gathered: each vector of dx is what the windows that cover it send there, so that dx
is written once, in order, and nothing needs to be zero before. That of maxima is scattered, each dy to its
index: a plane stays in the cache meanwhile, and comparing all indices with all taps takes longer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_vectors import I64, Vectors, compiled, i64

Mean = Literal["scaled", "divided"]
"""How a sum becomes a mean: times a factor where that is as exact, or over a divisor."""
Values = list[ir.Value]


@dataclass(frozen=True)
class Taps:
    """How a row's taps lie: tap t of window j is input `stride * (j + first + group) + phase`.

    `places`: (group, phase) of each, groups from 0 on. `first` is no part of this: it only shifts addresses.
    """

    stride: int
    places: tuple[tuple[int, int], ...]

    @property
    def groups(self) -> int:
        return 1 + max(group for group, _ in self.places)

    @property
    def name(self) -> str:
        return "_".join(
            map(str, [self.stride, *(group * self.stride + phase for group, phase in self.places)])
        )


WINDOWS = (
    "x", "y", "indices", "rows", "OH", "columns", "vectors", "lanes", "W", "row_step", "OW", "left",
)  # fmt: skip
"""Of the function for a plane of windows, all intp. `x`: the address of group 0 of the first output, in row
0, which may lie outside; `y`, `indices`: those of the plane; `rows`: of int64 (OH, 3), each row's first tap
row that is inside, how many are, and the rows' part of the divisor; `columns`: of int64 (vectors, 1 + masks),
whether a vector is whole, else its masks, of the vectors of x for each group and of the outputs; `lanes`: of
a number for each output of a row, the int32 column of its first tap inside, or the factor, or the columns'
part of the divisor; `row_step`: elements from one row of taps to the next; `left`: the first output's group
0."""
MEANS_DX = (
    "dy", "dx", "spare", "rows", "H", "columns", "vectors", "factor", "W", "row_step", "OW", "spare2",
)  # fmt: skip
"""Of the function for a plane of the gradient of means, all intp. `dy`: the address of group 0 of the first
inputs, in row 0, which may lie outside; `dx`: that of the plane; `rows`: of int64 (H, 2), the first row of
windows that covers a row, and how many do; `columns`: of int64 (vectors, 1 + masks), whether a vector is
whole, else its masks, of dy for each group and of the vectors of dx; `factor`: of the factor or divisor;
`row_step`: elements from one of these rows of windows to the next."""
SCATTER = (
    "dy", "dx", "indices", "inputs", "outputs", "strays",
    "spare", "spare2", "spare3", "spare4", "spare5", "spare6",
)  # fmt: skip
"""Of the function for a plane of the gradient of maxima, all intp: the addresses of the plane's `dy`, `dx`
and `indices`; how many `inputs` and `outputs` it has; where to store a 1, int64, if an index is none of an
input."""


@lru_cache(maxsize=256)
def maxima(taps: Taps, indices: bool, dtype: np.dtype) -> int:
    """The address of the function for a plane of maxima: each window's first, or its last NaN."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        kind = _MaximaAndIndices if indices else _Maxima
        kind(builder, dtype, taps, dict(zip(WINDOWS, arguments, strict=True))).emit()

    return compiled(f"max_{taps.name}_{int(indices)}_{dtype.name}", emit)


@lru_cache(maxsize=256)
def means(taps: Taps, mean: Mean, dtype: np.dtype) -> int:
    """The address of the function for a plane of means."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _Means(builder, dtype, taps, dict(zip(WINDOWS, arguments, strict=True)), mean=mean).emit()

    return compiled(f"mean_{taps.name}_{mean}_{dtype.name}", emit)


@lru_cache(maxsize=256)
def means_dx(taps: Taps, mean: Mean, dtype: np.dtype) -> int:
    """The address of the function for a plane of the gradient of means that all have one divisor."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _MeansDx(builder, dtype, taps, dict(zip(MEANS_DX, arguments, strict=True)), mean=mean).emit()

    return compiled(f"mean_dx_{taps.name}_{mean}_{dtype.name}", emit)


@lru_cache(maxsize=4)
def maxima_dx(dtype: np.dtype) -> int:
    """The address of the function for a plane of the gradient of maxima: each dy is added at its index."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        given = dict(zip(SCATTER, arguments, strict=True))
        real = Vectors(builder, dtype).real
        dy, dx = (builder.inttoptr(given[name], real.as_pointer()) for name in ("dy", "dx"))
        indices, strays = (builder.inttoptr(given[name], I64.as_pointer()) for name in ("indices", "strays"))
        size = builder.mul(given["inputs"], i64(dtype.itemsize))
        cgutils.memset(builder, builder.bitcast(dx, cgutils.voidptr_t), size, 0)
        with cgutils.for_range(builder, given["outputs"]) as loop:
            index = builder.load(builder.gep(indices, [loop.index]))
            inside = builder.icmp_unsigned("<", index, given["inputs"])
            with builder.if_else(inside, likely=True) as (then, otherwise):
                with then:
                    place = builder.gep(dx, [index])
                    gradient = builder.load(builder.gep(dy, [loop.index]))
                    builder.store(builder.fadd(builder.load(place), gradient), place)
                with otherwise:
                    builder.store(i64(1), strays)

    return compiled(f"max_dx_{dtype.name}", emit)


class _Plane(ABC):
    """Emits loops over the rows of a plane and the vectors of a row; what a vector is, subclasses say."""

    height: str
    """The argument that counts the rows."""
    numbers_of_row: int
    """How many numbers the table of rows has for each."""

    def __init__(
        self, builder: ir.IRBuilder, dtype: np.dtype, taps: Taps, given: dict[str, ir.Value]
    ) -> None:
        self.builder = builder
        self.row = Vectors(builder, dtype)
        self.taps = taps
        self.given = given

    def emit(self) -> None:
        """All vectors of all rows, each with the masks that it needs."""
        builder, given = self.builder, self.given
        masks = self.masks()
        with cgutils.for_range(builder, given[self.height]) as rows:
            of_row = self.entries("rows", rows.index, self.numbers_of_row)
            with cgutils.for_range(builder, given["vectors"]) as vectors:
                first = self.times(vectors.index, self.row.wide)
                whole, *bits = self.entries("columns", vectors.index, 1 + masks)
                with builder.if_else(builder.trunc(whole, ir.IntType(1))) as (then, otherwise):
                    with then:
                        self.vector(rows.index, of_row, first, [None] * masks)
                    with otherwise:
                        self.vector(rows.index, of_row, first, list(map(self.row.mask, bits)))

    @abstractmethod
    def masks(self) -> int:
        """How many masks a vector needs that is not whole."""

    @abstractmethod
    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        """Row `number`, from output (dx: group of inputs) `first` on; without a mask where that is None."""

    def entries(self, name: str, line: ir.Value, count: int) -> Values:
        """A line of `count` int64 of a table."""
        table = self.builder.inttoptr(self.given[name], I64.as_pointer())
        begin = self.times(line, count)
        return [self.builder.load(self.builder.gep(table, [self.plus(begin, i)])) for i in range(count)]

    def fold(self, count: ir.Value, start: Values, step: Callable[..., Values]) -> Values:
        """What `step(i, *values)` makes of the values, i below `count`, the first of which are `start`."""
        places = [cgutils.alloca_once_value(self.builder, value) for value in start]
        with cgutils.for_range(self.builder, count) as loop:
            found = step(loop.index, *map(self.builder.load, places))
            for place, value in zip(places, found, strict=True):
                self.builder.store(value, place)
        return list(map(self.builder.load, places))

    def times(self, number: ir.Value, factor: int) -> ir.Value:
        return self.builder.mul(number, i64(factor))

    def plus(self, *numbers: ir.Value | int) -> ir.Value:
        total, *others = (i64(n) if isinstance(n, int) else n for n in numbers)
        for number in others:
            total = self.builder.add(total, number)
        return total

    def place(self, name: str, *elements: ir.Value | int, size: int | None = None) -> ir.Value:
        """The address of an element of an array, of numbers unless another size is given."""
        return self.plus(self.given[name], self.times(self.plus(*elements), size or self.row.size))

    def rows_of(self, name: str, count: ir.Value) -> ir.Value:
        """Elements in `count` times as many as an argument says."""
        return self.builder.mul(count, self.given[name])

    def columns(self, begin: ir.Value | int) -> ir.Value:
        """`begin` and every stride-th number from there on, as int32."""
        row, stride = self.row, self.taps.stride
        every = ir.Constant(row.narrow, [stride * lane for lane in range(row.wide)])
        return self.builder.add(every, row.spread_narrow(begin))

    def mean(self, total: ir.Value, kind: Mean, by: ir.Value) -> ir.Value:
        return self.builder.fmul(total, by) if kind == "scaled" else self.builder.fdiv(total, by)


class _Windows(_Plane):
    """Emits the forward pass."""

    height = "OH"
    numbers_of_row = 3

    def masks(self) -> int:
        return self.taps.groups * self.taps.stride + 1

    def inputs(self, begin: ir.Value, masks: list[Any], others: float) -> Values:
        """The values of each tap in a row, from element `begin` on; `others` in the padding."""
        row, stride = self.row, self.taps.stride
        groups = [
            [
                row.load(
                    self.place("x", begin, group * stride + i * row.wide), masks[group * stride + i], others
                )
                for i in range(stride)
            ]
            for group in range(self.taps.groups)
        ]
        hands = list(map(row.dealt, groups))
        return [hands[group][phase] for group, phase in self.taps.places]


class _Maxima(_Windows):
    """Emits maxima, NaN where a window has one: whether it has is found for two taps at a time."""

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder = self.row, self.builder
        column = self.times(first, self.taps.stride)
        best = ir.Constant(row.vector, [float("-inf")] * row.wide)
        none = ir.Constant(ir.VectorType(ir.IntType(1), row.wide), None)

        def step(r: ir.Value, best: ir.Value, bad: ir.Value) -> Values:
            begin = self.plus(self.rows_of("W", of_row[0]), self.rows_of("row_step", r), column)
            values = self.inputs(begin, masks, float("-inf"))
            for value in values:
                best = builder.select(builder.fcmp_ordered(">", value, best), value, best)
            for i in range(0, len(values), 2):
                bad = builder.or_(
                    bad, builder.fcmp_unordered("uno", values[i], values[min(i + 1, len(values) - 1)])
                )
            return [best, bad]

        best, bad = self.fold(of_row[1], [best, none], step)
        found = builder.select(bad, ir.Constant(row.vector, [float("nan")] * row.wide), best)
        output = self.plus(self.rows_of("OW", number), first)
        row.store(found, self.place("y", output), masks[-1])


class _MaximaAndIndices(_Windows):
    """Emits maxima and where they are: the first of each window, or its last NaN."""

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder, given = self.row, self.builder, self.given
        begin = self.rows_of("W", of_row[0])
        column = self.times(first, self.taps.stride)
        here = self.columns(self.plus(begin, column, given["left"]))
        best = ir.Constant(row.vector, [float("-inf")] * row.wide)
        # Minus infinity wins nowhere: where all is, the first tap inside is the one.
        inside = row.load_narrow(self.place("lanes", first, size=4))
        where = builder.add(inside, row.spread_narrow(begin))

        def step(r: ir.Value, best: ir.Value, where: ir.Value) -> Values:
            down = self.rows_of("row_step", r)
            values = self.inputs(self.plus(begin, down, column), masks, float("-inf"))
            for value, (group, phase) in zip(values, self.taps.places, strict=True):
                loses = builder.and_(
                    builder.fcmp_ordered("ord", value, value), builder.fcmp_unordered("<=", value, best)
                )
                offset = self.plus(down, group * self.taps.stride + phase)
                where = builder.select(loses, where, builder.add(here, row.spread_narrow(offset)))
                best = builder.select(loses, best, value)
            return [best, where]

        best, where = self.fold(of_row[1], [best, where], step)
        output = self.plus(self.rows_of("OW", number), first)
        row.store(best, self.place("y", output), masks[-1])
        row.store(builder.sext(where, row.indices), self.place("indices", output, size=8), masks[-1])


class _Means(_Windows):
    """Emits means: the sum of each window, over its divisor."""

    def __init__(self, *arguments: Any, mean: Mean) -> None:
        super().__init__(*arguments)
        self.kind = mean

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder = self.row, self.builder
        column = self.times(first, self.taps.stride)

        def step(r: ir.Value, total: ir.Value) -> Values:
            begin = self.plus(self.rows_of("W", of_row[0]), self.rows_of("row_step", r), column)
            for value in self.inputs(begin, masks, 0.0):
                total = builder.fadd(total, value)
            return [total]

        (total,) = self.fold(of_row[1], [ir.Constant(row.vector, None)], step)
        by = row.load(self.place("lanes", first))
        if self.kind == "divided":
            by = builder.fmul(by, row.spread(builder.sitofp(of_row[2], row.real)))
        output = self.plus(self.rows_of("OW", number), first)
        row.store(self.mean(total, self.kind, by), self.place("y", output), masks[-1])


class _MeansDx(_Plane):
    """Emits the gradient of means: each input takes a share of the dy of all windows that cover it.

    There is a sum for each phase of the inputs; then their numbers alternate.
    """

    height = "H"
    numbers_of_row = 2

    def __init__(self, *arguments: Any, mean: Mean) -> None:
        super().__init__(*arguments)
        self.kind = mean

    def masks(self) -> int:
        return self.taps.groups + self.taps.stride

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder, stride = self.row, self.builder, self.taps.stride

        def step(r: ir.Value, *sums: ir.Value) -> Values:
            found = list(sums)
            begin = self.plus(self.rows_of("OW", of_row[0]), self.rows_of("row_step", r), first)
            for group in range(self.taps.groups):
                gradient = row.load(self.place("dy", begin, -group), masks[group])
                for phase in self.served(group):
                    found[phase] = builder.fadd(found[phase], gradient)
            return found

        sums = self.fold(of_row[1], [ir.Constant(row.vector, None)] * stride, step)
        by = row.spread(builder.load(builder.inttoptr(self.given["factor"], row.real.as_pointer())))
        shares = row.alternating([self.mean(total, self.kind, by) for total in sums])
        begin = self.plus(self.rows_of("W", number), self.times(first, stride))
        for i, (share, mask) in enumerate(zip(shares, masks[-stride:], strict=True)):
            row.store(share, self.place("dx", begin, i * row.wide), mask)

    def served(self, group: int) -> list[int]:
        """The phases that a group has taps of."""
        return [phase for other, phase in self.taps.places if other == group]
