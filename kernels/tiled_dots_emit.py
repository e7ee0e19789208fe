"""What `tiled_dots` calls, emitted: sums of products of vectors, and what adds up such sums."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_vectors import I64, Vectors, compiled, i64

ARGUMENTS = (
    "dy", "dy_step", "x", "table", "whole", "wholes", "rest", "rests", "sums", "sums_step", "db", "spare"
)  # fmt: skip
"""Of the function that `dots` emits, all intp: addresses of the first filter's gradients, of the copied
inputs, of the places of taps (intp), of `wholes` whole vectors and of `rests` others (of each of their pieces
three intp: where it lies in dy and in the copy, and its lanes), of the sums (filters, sums_step, lanes), and
of those for db (filters, lanes); elements from a filter's gradients to the next one's."""


class Shape(NamedTuple):
    """What a function sums: filters by taps, and db with them."""

    filters: int
    taps: int
    with_db: bool
    pieces: int
    """Of a vector that is not whole; 0 where all are."""


@lru_cache(maxsize=256)
def dots(shape: Shape, dtype: np.dtype) -> int:
    """The address of the function that adds to sums of so many filters by so many taps."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        _Dots(builder, shape, dtype, dict(zip(ARGUMENTS, arguments, strict=True))).emit()

    return compiled(f"dots_{'_'.join(map(str, map(int, shape)))}_{dtype.name}", emit)


class _Dots:
    """Emits it."""

    def __init__(
        self, builder: ir.IRBuilder, shape: Shape, dtype: np.dtype, given: dict[str, ir.Value]
    ) -> None:
        self.builder = builder
        self.vectors = Vectors(builder, dtype)
        self.shape = shape
        self.given = given

    def emit(self) -> None:
        builder, given, shape, vectors = self.builder, self.given, self.shape, self.vectors
        table = self.integers("table", i64(0), shape.taps)
        nothing = ir.Constant(vectors.vector, None)
        count = shape.filters * (shape.taps + shape.with_db)
        places = [cgutils.alloca_once_value(builder, nothing) for _ in range(count)]
        kinds = ("whole", "wholes", 0), ("rest", "rests", shape.pieces)
        for name, number, pieces in kinds[: 1 + bool(shape.pieces)]:
            with vectors.rolled(given[number]) as index:
                self.add(places, table, name, index, pieces)
        step = builder.mul(given["sums_step"], i64(vectors.wide))
        for f in range(shape.filters):
            row = vectors.at(given["sums"], builder.mul(step, i64(f)))
            targets = [vectors.at(row, i64(t * vectors.wide)) for t in range(shape.taps)]
            if shape.with_db:
                targets.append(vectors.at(given["db"], i64(f * vectors.wide)))
            for target in targets:
                total = builder.load(places.pop(0))
                vectors.store(builder.fadd(vectors.load(target), total), target)

    def add(self, sums, table, name, index, pieces) -> None:
        """The products of one vector of pixels."""
        builder, given, shape, vectors = self.builder, self.given, self.shape, self.vectors
        columns = 3 * max(1, pieces)
        entry = self.integers(name, builder.mul(index, i64(columns)), columns)
        of_dy, of_x = entry[0::3], entry[1::3]
        masks = [vectors.mask(bits) for bits in entry[2::3]] if pieces else [None]
        gradients = [
            self.merged(vectors.at(given["dy"], builder.mul(given["dy_step"], i64(f))), of_dy, masks)
            for f in range(shape.filters)
        ]
        each = shape.taps + shape.with_db
        x = given["x"]
        for t, tap in enumerate(table):
            inputs = self.merged(vectors.at(x, tap), of_x, masks)
            found = [
                vectors.fma(g, inputs, builder.load(sums[f * each + t])) for f, g in enumerate(gradients)
            ]
            x, *found = vectors.in_step(x, *found)
            for f, value in enumerate(found):
                builder.store(value, sums[f * each + t])
        if shape.with_db:
            for f, gradient in enumerate(gradients):
                place = sums[f * each + shape.taps]
                builder.store(builder.fadd(builder.load(place), gradient), place)

    def merged(self, address, places, masks) -> ir.Value:
        """A vector whose lanes come from one place or, by their masks, from two."""
        vectors = self.vectors
        value = None
        for place, mask in zip(places, masks, strict=True):
            value = vectors.load(vectors.at(address, place), mask, 0.0 if value is None else value)
        return value

    def integers(self, name: str, begin: ir.Value, count: int) -> list[ir.Value]:
        table = self.builder.inttoptr(self.given[name], I64.as_pointer())
        places = [self.builder.gep(table, [self.builder.add(begin, i64(i))]) for i in range(count)]
        return [self.builder.load(place) for place in places]


@lru_cache(maxsize=4)
def folder(dtype: np.dtype) -> int:
    """The address of what adds vectors of partial sums, and their lanes: target[i] = the sum of vectors i.

    Its arguments: the address of the vectors, elements from those of a worker to the next one's, workers, how
    many sums, the address of the target, and seven that are not used.
    """

    def emit(builder: ir.IRBuilder, source, step, workers, count, target, *_: ir.Value) -> None:
        vectors = Vectors(builder, dtype)
        wide = vectors.wide
        nothing = ir.Constant(vectors.vector, None)
        totals = [cgutils.alloca_once(builder, vectors.vector) for _ in range(wide)]
        with cgutils.for_range_slice(builder, i64(0), count, i64(wide)) as (first, _):
            for total in totals:
                builder.store(nothing, total)
            left = builder.sub(count, first)
            with cgutils.for_range(builder, workers) as loop:
                begin = vectors.at(source, builder.mul(step, loop.index), builder.mul(first, i64(wide)))
                for i, total in enumerate(totals):
                    there = builder.icmp_signed("<", i64(i), left)
                    mask = vectors.below(builder.select(there, i64(wide), i64(0)))
                    partial = vectors.load(vectors.at(begin, i64(i * wide)), mask)
                    builder.store(builder.fadd(builder.load(total), partial), total)
            folded = vectors.folded([builder.load(total) for total in totals])
            vectors.store(folded, vectors.at(target, first), vectors.below(left))

    return compiled(f"fold_{dtype.name}", emit)
