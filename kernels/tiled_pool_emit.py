"""What the `tiled` backend's pooling emits: a function for a plane, which loops over its rows and vectors.

A row of outputs is made a vector at a time, with the taps of a row of a window unrolled. What they share is
loaded once: with a stride of 2, two vectors side by side hold two taps of each window, at the lanes of even
and of odd number; so it is with every stride. Loads and stores are masked only where a row begins or ends.

The gradient is gathered, not scattered: each vector of dx is what the windows that cover it send there, so
that dx is written once, in order, and nothing needs to be zero before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_vectors import I64, Vectors, compiled

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
inputs, in row 0, which may lie outside; `dx`: that of the plane; `rows`: of int64 (H, 4), the first row of
windows that covers a row, how many do, and as much of those that none before has needed; `columns`: of int64
(vectors, 1 + masks), whether a vector is whole, else its masks, of dy for each group and of the vectors of
dx; `factor`: of the factor or divisor; `row_step`: elements from one of these rows of windows to the next."""
MAXIMA_DX = (
    "dy", "dx", "indices", "rows", "H", "columns", "vectors", "memory", "W", "row_step", "OW", "margin",
)  # fmt: skip
"""Of the function for a plane of the gradient of maxima, all intp: as above, but `dy`, `dx` and `indices` are
the addresses of the plane's own; `row_step` counts rows. `memory`: of an int64, where it stores how many
indices are those of a tap of their window; and, `RINGS` bytes further on, of rings of rows: of indices as
int32 and of dy. All begins as -1. `margin`: elements in each row of a ring before those of dy."""
RINGS = 64


@lru_cache(maxsize=256)
def maxima(taps: Taps, indices: bool, dtype: np.dtype) -> int:
    """The address of the function for a plane of maxima: each window's first, or its last NaN."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _Maxima(builder, dtype, taps, dict(zip(WINDOWS, arguments, strict=True)), indices=indices).emit()

    return compiled(f"max_{taps.name}_{int(indices)}_{dtype.name}", emit)


@lru_cache(maxsize=256)
def means(taps: Taps, mean: Mean, dtype: np.dtype) -> int:
    """The address of the function for a plane of means."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _Means(builder, dtype, taps, dict(zip(WINDOWS, arguments, strict=True)), mean=mean).emit()

    return compiled(f"mean_{taps.name}_{mean}_{dtype.name}", emit)


@lru_cache(maxsize=256)
def maxima_dx(taps: Taps, ring: int, dtype: np.dtype) -> int:
    """The address of the function for a plane of the gradient of maxima; `ring`: rows, a power of two."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _MaximaDx(builder, dtype, taps, dict(zip(MAXIMA_DX, arguments, strict=True)), ring=ring).emit()

    return compiled(f"max_dx_{taps.name}_{ring}_{dtype.name}", emit)


@lru_cache(maxsize=256)
def means_dx(taps: Taps, mean: Mean, dtype: np.dtype) -> int:
    """The address of the function for a plane of the gradient of means that all have one divisor."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _MeansDx(builder, dtype, taps, dict(zip(MEANS_DX, arguments, strict=True)), mean=mean).emit()

    return compiled(f"mean_dx_{taps.name}_{mean}_{dtype.name}", emit)


class _Plane:
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
            self.prepare(of_row)
            with cgutils.for_range(builder, given["vectors"]) as vectors:
                first = self.times(vectors.index, self.row.wide)
                whole, *bits = self.entries("columns", vectors.index, 1 + masks)
                with builder.if_else(builder.trunc(whole, ir.IntType(1))) as (then, otherwise):
                    with then:
                        self.vector(rows.index, of_row, first, [None] * masks)
                    with otherwise:
                        self.vector(rows.index, of_row, first, list(map(self.row.mask, bits)))

    def prepare(self, of_row: Values) -> None:
        """What a row needs before its vectors."""

    def masks(self) -> int:
        """How many masks a vector needs that is not whole."""
        raise NotImplementedError

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        """Row `number`, from output (dx: group of inputs) `first` on; without a mask where that is None."""
        raise NotImplementedError

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
        return self.builder.mul(number, ir.Constant(I64, factor))

    def plus(self, *numbers: ir.Value | int) -> ir.Value:
        total, *others = (ir.Constant(I64, n) if isinstance(n, int) else n for n in numbers)
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
        return [row.every(groups[group], phase) for group, phase in self.taps.places]


class _Maxima(_Windows):
    """Emits maxima: the first of each window, or its last NaN."""

    def __init__(self, *arguments: Any, indices: bool) -> None:
        super().__init__(*arguments)
        self.with_indices = indices

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder, given = self.row, self.builder, self.given
        begin = self.rows_of("W", of_row[0])
        column = self.times(first, self.taps.stride)
        start = [ir.Constant(row.vector, [float("-inf")] * row.wide)]
        here = self.columns(self.plus(begin, column, given["left"]))
        if self.with_indices:  # minus infinity wins nowhere: where all is, the first tap inside is the one
            inside = row.load_narrow(self.place("lanes", first, size=4))
            start.append(builder.add(inside, row.spread_narrow(begin)))

        def step(r: ir.Value, best: ir.Value, *where: ir.Value) -> Values:
            down = self.rows_of("row_step", r)
            values = self.inputs(self.plus(begin, down, column), masks, float("-inf"))
            for value, (group, phase) in zip(values, self.taps.places, strict=True):
                loses = builder.and_(
                    builder.fcmp_ordered("ord", value, value), builder.fcmp_unordered("<=", value, best)
                )
                if where:
                    offset = self.plus(down, group * self.taps.stride + phase)
                    at = builder.add(here, row.spread_narrow(offset))
                    where = (builder.select(loses, where[0], at),)
                best = builder.select(loses, best, value)
            return [best, *where]

        best, *where = self.fold(of_row[1], start, step)
        output = self.plus(self.rows_of("OW", number), first)
        row.store(best, self.place("y", output), masks[-1])
        if where:
            wide = builder.sext(where[0], row.indices)
            row.store(wide, self.place("indices", output, size=8), masks[-1])


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


class _Gradient(_Plane):
    """Emits dx: for each phase of the inputs, the sum of what the windows send there; then they alternate."""

    height = "H"
    numbers_of_row = 4

    def masks(self) -> int:
        return self.taps.groups + self.taps.stride

    def served(self, group: int) -> list[int]:
        """The phases that a group has taps of."""
        return [phase for other, phase in self.taps.places if other == group]

    def write(self, sums: Values, number: ir.Value, first: ir.Value, masks: list[Any]) -> None:
        """The phases' sums side by side, into row `number`."""
        stride, row = self.taps.stride, self.row
        begin = self.plus(self.rows_of("W", number), self.times(first, stride))
        for i, (vector, mask) in enumerate(zip(row.alternating(sums), masks[-stride:], strict=True)):
            row.store(vector, self.place("dx", begin, i * row.wide), mask)


class _MaximaDx(_Gradient):
    """Emits the gradient of maxima: each input takes the dy of the windows whose index is its own.

    What several rows of inputs read is first copied into rings of rows, with indices as int32, and -1 beside
    them, which is no input's: nothing that is read there needs a mask.
    """

    def __init__(self, *arguments: Any, ring: int) -> None:
        super().__init__(*arguments)
        self.ring = ring

    def emit(self) -> None:
        builder, row = self.builder, self.row
        self.matches = cgutils.alloca_once_value(builder, ir.Constant(row.narrow, None))
        super().emit()
        total = builder.sext(row.total(builder.load(self.matches)), I64)
        builder.store(total, builder.inttoptr(self.given["memory"], I64.as_pointer()))

    def prepare(self, of_row: Values) -> None:
        """Copy the rows of windows that no row of inputs before has needed."""
        builder, row, given = self.builder, self.row, self.given
        begin, end = ir.Constant(I64, 0), given["OW"]
        with cgutils.for_range(builder, of_row[3]) as fresh:
            number = self.plus(of_row[2], fresh.index)
            with cgutils.for_range_slice(builder, begin, end, ir.Constant(I64, row.wide), I64) as (first, _):
                inside = row.below(builder.sub(end, first))
                output = self.plus(self.rows_of("OW", number), first)
                indices, gradient = self.kept(number, self.plus(first, given["margin"]))
                row.store(row.load_indices(self.place("indices", output, size=8), inside), indices, inside)
                row.store(row.load(self.place("dy", output), inside), gradient, inside)

    def kept(self, number: ir.Value, column: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The addresses of an index and a dy in the rings."""
        builder = self.builder
        pitch = self.plus(self.times(self.given["vectors"], self.row.wide), self.taps.groups - 1)
        line = builder.and_(number, ir.Constant(I64, self.ring - 1))
        element = self.plus(builder.mul(line, pitch), column)
        indices = self.plus(self.given["memory"], RINGS, self.times(element, 4))
        gradients = self.plus(self.given["memory"], RINGS, self.times(pitch, 4 * self.ring))
        return indices, self.plus(gradients, self.times(element, self.row.size))

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder, stride = self.row, self.builder, self.taps.stride
        begin = self.plus(self.rows_of("W", number), self.times(first, stride))
        positions = [self.columns(self.plus(begin, phase)) for phase in range(stride)]
        nothing, one = ir.Constant(row.vector, None), ir.Constant(row.narrow, [1] * row.wide)

        def step(r: ir.Value, matches: ir.Value, *sums: ir.Value) -> Values:
            found = list(sums)
            line = self.plus(of_row[0], self.rows_of("row_step", r))
            for group in reversed(range(self.taps.groups)):
                places = self.kept(line, self.plus(first, self.taps.groups - 1 - group))
                winner, gradient = row.load_narrow(places[0]), row.load(places[1])
                for phase in self.served(group):
                    same = builder.icmp_signed("==", winner, positions[phase])
                    taken = builder.fadd(found[phase], gradient)
                    found[phase] = builder.select(same, taken, found[phase])
                    matches = builder.select(same, builder.add(matches, one), matches)
            return [matches, *found]

        matches, *sums = self.fold(of_row[1], [builder.load(self.matches), *[nothing] * stride], step)
        builder.store(matches, self.matches)
        self.write(sums, number, first, masks)


class _MeansDx(_Gradient):
    """Emits the gradient of means: each input takes a share of the dy of all windows that cover it."""

    def __init__(self, *arguments: Any, mean: Mean) -> None:
        super().__init__(*arguments)
        self.kind = mean

    def vector(self, number: ir.Value, of_row: Values, first: ir.Value, masks: list[Any]) -> None:
        row, builder = self.row, self.builder

        def step(r: ir.Value, *sums: ir.Value) -> Values:
            found = list(sums)
            begin = self.plus(self.rows_of("OW", of_row[0]), self.rows_of("row_step", r), first)
            for group in range(self.taps.groups):
                gradient = row.load(self.place("dy", begin, -group), masks[group])
                for phase in self.served(group):
                    found[phase] = builder.fadd(found[phase], gradient)
            return found

        sums = self.fold(of_row[1], [ir.Constant(row.vector, None)] * self.taps.stride, step)
        factor = builder.inttoptr(self.given["factor"], row.real.as_pointer())
        by = row.spread(builder.load(factor))
        self.write([self.mean(total, self.kind, by) for total in sums], number, first, masks)
