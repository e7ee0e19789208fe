"""Winograd's products and results at once: sums stay in registers until they are transformed back.

The sums M of all positions, stored and read again, cost as much as the products of some ten channels. Here a
vector of tiles meets a few filters: the sums of a row of positions are made in registers, and transformed
across; when all rows are there, they are transformed down. What lies in memory in between, (rows, outputs
across) vectors for each filter, stays in the first-level cache. Weights lie in the order in which they are
read, so that each is an operand of its multiplication, at a constant distance from one address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_tile import registers
from kernels.tiled_vectors import I64, Vectors, compiled, i64
from kernels.winograd_tiles import PIECE
from kernels.winograd_transforms import Tile, chunks, product

SUMMED = 64
"""Channels whose products are one sum, at most: one sum over all of many would be rounded more."""


def filters_at_once(tile: Tile) -> int:
    """Whose sums, of a row of positions, the registers hold."""
    return max(1, registers() // tile.across.products)


@lru_cache(maxsize=256)
def results_of_tiles(tile: Tile, filters: int, apart: int, added: bool, dtype: np.dtype) -> int:
    """The address of what computes the outputs of a vector of tiles, for some filters; or adds to them.

    `apart`: from a position to the next in V. Its arguments: the addresses of V (channels, positions, apart)
    and of weights (rows, channels, filters, columns); the number of channels; the address of the biases; the
    first filter's address in `out`, from there to the next filter's, and from a row to the next; the address
    of the pieces, as `cut_vector` makes them; whether outputs are far away. Three are not used.
    """

    def emit(
        builder: ir.IRBuilder, v, u, channels, bias, out, plane, row_step, pieces, far, *_: ir.Value
    ) -> None:
        here = Vectors(builder, dtype)
        wide = here.wide
        pieces = builder.inttoptr(pieces, I64.as_pointer())
        count = builder.load(pieces)

        def fetch(row: ir.Value) -> None:
            """Ask for a row of outputs, if there is one: while it computes, and not for all at once."""
            wanted = builder.and_(
                builder.icmp_signed("<", row, i64(tile.down.outputs)), builder.icmp_signed("!=", far, i64(0))
            )
            with (
                builder.if_then(wanted),
                _each_piece(builder, pieces, count) as (at, first, _, cols),
                cgutils.for_range(builder, chunks(builder, cols, wide)) as chunk,
            ):
                pixel = builder.add(first, builder.mul(chunk.index, i64(wide)))
                place = here.at(out, at, pixel, builder.mul(row_step, row))
                for f in range(filters):
                    here.fetch(here.pointer(here.at(place, builder.mul(plane, i64(f)))), to_write=True)

        with _results(here, tile, filters, apart, (v, u, channels, bias), fetch) as (f, found):
            to = here.at(out, builder.mul(plane, f))
            lines = [here.alternating(row) for row in found]
            with _each_piece(builder, pieces, count) as (at, first, rows, cols):
                for n in range(tile.across.outputs):
                    begin = builder.sub(i64(n * wide), first)
                    some = builder.and_(
                        builder.icmp_signed("<", begin, cols), builder.icmp_signed(">", begin, i64(-wide))
                    )
                    with builder.if_then(some):
                        inside = here.inside(begin, cols)
                        for p, line in enumerate(lines):
                            there = builder.icmp_signed("<", i64(p), rows)
                            mask = builder.select(there, inside, ir.Constant(inside.type, None))
                            place = here.at(to, at, builder.mul(row_step, i64(p)), i64(n * wide))
                            value = line[n]
                            if added:
                                value = builder.fadd(value, here.load(place, mask))
                            here.store(value, place, mask)

    return compiled(f"tiles_{tile}_{filters}_{apart}_{added:d}_{dtype.name}", emit)


@contextmanager
def _each_piece(builder: ir.IRBuilder, pieces: ir.Value, count: ir.Value) -> Iterator[list[ir.Value]]:
    """A loop over the pieces: the numbers of each."""
    with cgutils.for_range(builder, count) as loop:
        row = builder.mul(builder.add(loop.index, i64(1)), i64(PIECE))
        yield [builder.load(builder.gep(pieces, [builder.add(row, i64(i))])) for i in range(PIECE)]


@lru_cache(maxsize=256)
def results_of_images(tile: Tile, filters: int, dtype: np.dtype) -> int:
    """The same for a tile of a vector of images, whose outputs are vectors, and whose V lies side by side.

    Its arguments: those above up to the address of the biases; the address of the first filter's first
    output, from there to the next filter's, and from a row to the next; how many rows and columns are wanted,
    if not all; and the address of a vector for the others. Two are not used.
    """

    def emit(
        builder: ir.IRBuilder, v, u, channels, bias, out, step, row_step, rows, cols, spare, *_: ir.Value
    ) -> None:
        here = Vectors(builder, dtype)
        with _results(here, tile, filters, here.wide, (v, u, channels, bias)) as (f, found):
            to = here.at(out, builder.mul(step, f))
            for p, row in enumerate(found):
                for q, vector in enumerate(row):
                    wanted = builder.and_(
                        builder.icmp_signed("<", i64(p), rows), builder.icmp_signed("<", i64(q), cols)
                    )
                    place = here.at(to, builder.mul(row_step, i64(p)), i64(q * here.wide))
                    here.store(vector, builder.select(wanted, place, spare))

    return compiled(f"images_{tile}_{filters}_{dtype.name}", emit)


@contextmanager
def _results(
    here: Vectors,
    tile: Tile,
    filters: int,
    apart: int,
    given: tuple[ir.Value, ...],
    beside: Callable[[ir.Value], None] = lambda row: None,
) -> Iterator[tuple[ir.Value, list[list[ir.Value]]]]:
    """A loop over the filters: the number of each, and its rows of vectors of outputs.

    `beside` emits what else is to be done for each row of positions.
    """
    v, u, channels, bias = given
    builder = here.builder
    down, across = (of.result for of in tile.both)
    height, width, outputs = tile.down.products, tile.across.products, tile.across.outputs
    lines = cgutils.alloca_once(builder, here.vector, filters * outputs * height)
    lines.align = here.wide * here.size

    def line(filter: ir.Value, q: int, i: ir.Value) -> ir.Value:
        column = builder.add(builder.mul(filter, i64(outputs * height)), i64(q * height))
        return builder.gep(lines, [builder.add(column, i)])

    with here.rolled(i64(height)) as i:
        beside(i)
        data = here.at(v, builder.mul(i, i64(width * apart)))
        weights = here.at(u, builder.mul(builder.mul(i, channels), i64(filters * width)))
        sums = chunks(builder, channels, SUMMED)
        with here.rolled(sums) as number:
            begin, end = (
                builder.sdiv(builder.mul(builder.add(number, i64(n)), channels), sums) for n in range(2)
            )
            row = _sums(here, tile, filters, apart, data, weights, begin, end)
            for f in range(filters):
                for q, vector in enumerate(product(here, across, row[f * width : (f + 1) * width])):
                    place = line(i64(f), q, i)
                    more = builder.fadd(builder.load(place), vector)
                    is_first = builder.icmp_signed("==", number, i64(0))
                    builder.store(builder.select(is_first, vector, more), place)
    with cgutils.for_range(builder, i64(filters)) as filter:
        start = here.spread(builder.load(here.pointer(here.at(bias, filter.index), here.real)))
        columns = []
        for q in range(outputs):
            column = [builder.load(line(filter.index, q, i64(i))) for i in range(height)]
            columns.append([builder.fadd(vector, start) for vector in product(here, down, column)])
        yield filter.index, [list(row) for row in zip(*columns, strict=True)]


def _sums(
    here: Vectors,
    tile: Tile,
    filters: int,
    apart: int,
    data: ir.Value,
    weights: ir.Value,
    begin: ir.Value,
    end: ir.Value,
) -> list[ir.Value]:
    """Products of a row of positions summed over some channels: for each filter, those of all columns."""
    builder, width = here.builder, tile.across.products
    nothing = ir.Constant(here.vector, [0.0] * here.wide)

    def add(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        c = builder.add(begin, number)
        vectors = here.at(data, builder.mul(c, i64(tile.positions * apart)))
        numbers = here.opaque(here.at(weights, builder.mul(c, i64(filters * width))))
        added = list(sums)
        for j in range(width):
            vector = here.load(here.at(vectors, i64(j * apart)))
            for n in range(j, len(sums), width):
                weight = builder.load(here.pointer(here.at(numbers, i64(n)), here.real))
                added[n] = here.fma(here.spread(weight), vector, sums[n])
        return added

    return here.repeated(builder.sub(end, begin), [nothing] * (filters * width), add)
