"""Winograd's products and results at once: no sum is stored but in the first-level cache.

The sums M of all positions, stored far away and read again, cost as much as the products of some ten
channels. Here one or two vectors of tiles meet as many filters as registers hold sums of. One position after
the other is multiplied, as by the register tiles of `tiled_tile`; a row of positions is transformed across;
when all rows are there, they are transformed down. U lies in the order in which it is read, (positions,
slices of channels, filters, channels), and so does V: (positions, channels, tiles).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_tile import Shape, add_products, registers
from kernels.tiled_vectors import I64, Vectors, compiled, i64
from kernels.winograd_tiles import PIECE
from kernels.winograd_transforms import Tile, chunks, product

MOST_ALONG = 2
"""Vectors of tiles that are multiplied at a time: a number is read once for both."""


class Sums(NamedTuple):
    """What is multiplied at a time."""

    tile: Tile
    filters: int
    along: int
    """Vectors of tiles."""
    depth: int
    """Channels of a slice, whose products are one sum."""

    def __str__(self) -> str:
        return f"{self.tile}_{self.filters}_{self.along}_{self.depth}"


def filters_at_once(along: int, filters: int, shares: int = 1) -> int:
    """Of so many filters, whose sums the registers hold: about as many each time, and so for some shares."""
    times = -(-filters * along // (registers() * shares)) * shares
    return -(-filters // times)


@lru_cache(maxsize=256)
def results_of_tiles(sums: Sums, added: bool, dtype: np.dtype) -> int:
    """The address of what computes the outputs of a few vectors of tiles, for some filters; or adds to them.

    Its arguments: the address of V, from a position to the next there, and from a channel; the address of U;
    the number of channels; the address of the biases; the first filter's address in `out`, from there to the
    next filter's, and from a row to the next; the address of the pieces, as `cut_vector` makes them, and from
    a vector's to the next one's; whether outputs are asked for.
    """
    tile = sums.tile

    def emit(
        builder: ir.IRBuilder, v, v_step, v_row, u, channels, bias, out, plane, row_step, pieces, pieces_step,
        asks,
    ) -> None:  # fmt: skip
        here = Vectors(builder, dtype)
        wide = here.wide

        def fetch(position: ir.Value) -> None:
            """Ask for a share of the outputs' rows: while it computes, and never for many at once."""
            count = sums.filters * tile.down.outputs
            begin, end = (
                builder.udiv(builder.mul(builder.add(position, i64(n)), i64(count)), i64(tile.positions))
                for n in range(2)
            )
            with (
                builder.if_then(builder.icmp_signed("!=", asks, i64(0))),
                cgutils.for_range_slice(builder, begin, end, i64(1)) as (number, _),
                cgutils.for_range(builder, i64(sums.along)) as vector,
                _each_piece(builder, pieces, pieces_step, vector.index) as (at, first, _, cols),
                cgutils.for_range(builder, chunks(builder, cols, wide)) as chunk,
            ):
                f, row = builder.urem(number, i64(sums.filters)), builder.udiv(number, i64(sums.filters))
                pixel = builder.add(first, builder.mul(chunk.index, i64(wide)))
                place = here.at(out, at, pixel, builder.mul(row_step, row), builder.mul(plane, f))
                here.fetch(here.pointer(place), to_write=True)

        data = [here.at(v, i64(a * wide)) for a in range(sums.along)]
        v_slice = builder.add(builder.mul(v_row, i64(sums.depth)), i64(wide))
        v_steps = v_step, v_slice, v_row
        with _results(here, sums, data, v_steps, u, channels, bias, fetch) as (f, a, found):
            to = here.at(out, builder.mul(plane, f))
            lines = [here.alternating(row) for row in found]
            with _each_piece(builder, pieces, pieces_step, a) as (at, first, rows, cols):
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

    return compiled(f"tiles_{sums}_{added:d}_{dtype.name}", emit)


@contextmanager
def _each_piece(
    builder: ir.IRBuilder, pieces: ir.Value, step: ir.Value, vector: ir.Value
) -> Iterator[list[ir.Value]]:
    """A loop over the pieces of a vector: the numbers of each."""
    pieces = builder.inttoptr(pieces, I64.as_pointer())
    pieces = builder.gep(pieces, [builder.mul(vector, step)])
    with cgutils.for_range(builder, builder.load(pieces)) as loop:
        row = builder.mul(builder.add(loop.index, i64(1)), i64(PIECE))
        yield [builder.load(builder.gep(pieces, [builder.add(row, i64(i))])) for i in range(PIECE)]


@lru_cache(maxsize=256)
def results_of_images(sums: Sums, dtype: np.dtype) -> int:
    """The same for tiles side by side, of a vector of images each, whose outputs are vectors.

    Its arguments: the address of V (positions, channels, vector) of the first tile, from there to the next
    one's, and from a position to the next; the address of U; the number of channels; the address of the
    biases; the address of the first filter's first output, from there to the next filter's, and from a row
    to the next; how many rows and columns are wanted, if not all; and the address of a vector for the others.
    """

    def emit(
        builder: ir.IRBuilder, v, tile_step, v_step, u, channels, bias, out, step, row_step, rows, cols, spare
    ) -> None:
        here = Vectors(builder, dtype)
        outputs = sums.tile.across.outputs
        data = [here.at(v, builder.mul(tile_step, i64(a))) for a in range(sums.along)]
        v_steps = v_step, i64(sums.depth * here.wide), i64(here.wide)
        with _results(here, sums, data, v_steps, u, channels, bias) as (f, a, found):
            col = builder.mul(a, i64(outputs))
            to = here.at(out, builder.mul(step, f), builder.mul(col, i64(here.wide)))
            for p, row in enumerate(found):
                for q, vector in enumerate(row):
                    wanted = builder.and_(
                        builder.icmp_signed("<", i64(p), rows),
                        builder.icmp_signed("<", builder.add(col, i64(q)), cols),
                    )
                    place = here.at(to, builder.mul(row_step, i64(p)), i64(q * here.wide))
                    here.store(vector, builder.select(wanted, place, spare))

    return compiled(f"images_{sums}_{dtype.name}", emit)


@contextmanager
def _results(
    here: Vectors,
    sums: Sums,
    data: Sequence[ir.Value],
    v_steps: tuple[ir.Value, ir.Value, ir.Value],
    u: ir.Value,
    channels: ir.Value,
    bias: ir.Value,
    beside: Callable[[ir.Value], None] = lambda position: None,
) -> Iterator[tuple[ir.Value, ir.Value, list[list[ir.Value]]]]:
    """A loop over filters and vectors: the numbers of each, and its rows of vectors of outputs.

    `data`: the addresses of V of the vectors; `v_steps`: from a position to the next there, from a slice, and
    from a channel. `beside` emits what else is to be done for each position.
    """
    v_step, v_slice, v_row = v_steps
    builder, tile = here.builder, sums.tile
    down, across = (of.result for of in tile.both)
    height, width, outputs = tile.down.products, tile.across.products, tile.across.outputs
    count = sums.filters * sums.along
    m = _room(here, count * width)
    lines = _room(here, count * outputs * height)
    slices = chunks(builder, channels, sums.depth)

    def line(n: ir.Value, q: int, i: ir.Value) -> ir.Value:
        column = builder.add(builder.mul(n, i64(outputs * height)), i64(q * height))
        return builder.gep(lines, [builder.add(column, i)])

    with here.rolled(i64(height)) as i:
        with here.rolled(i64(width)) as j:
            position = builder.add(builder.mul(i, i64(width)), j)
            beside(position)
            with here.rolled(slices) as number:
                left = builder.sub(channels, builder.mul(number, i64(sums.depth)))
                depth = builder.select(builder.icmp_signed("<", left, i64(sums.depth)), left, i64(sums.depth))
                slice_number = builder.add(builder.mul(position, slices), number)
                weights = here.at(u, builder.mul(slice_number, i64(sums.filters * sums.depth)))
                offset = builder.add(builder.mul(position, v_step), builder.mul(number, v_slice))
                vectors = [here.at(address, offset) for address in data]
                is_first = builder.icmp_signed("==", number, i64(0))
                for n, total in enumerate(_sums(here, sums, vectors, v_row, weights, depth)):
                    place = builder.gep(m, [builder.add(j, i64(n * width))])
                    more = builder.fadd(builder.load(place), total)
                    builder.store(builder.select(is_first, total, more), place)
        with here.rolled(i64(count)) as n:
            start = builder.mul(n, i64(width))
            row = [builder.load(builder.gep(m, [builder.add(start, i64(j))])) for j in range(width)]
            for q, vector in enumerate(product(here, across, row)):
                builder.store(vector, line(n, q, i))
    with cgutils.for_range(builder, i64(count)) as loop:
        filter, vector = (divide(loop.index, i64(sums.along)) for divide in (builder.udiv, builder.urem))
        start = here.spread(builder.load(here.pointer(here.at(bias, filter), here.real)))
        columns = []
        for q in range(outputs):
            column = [builder.load(line(loop.index, q, i64(i))) for i in range(height)]
            columns.append([builder.fadd(value, start) for value in product(here, down, column)])
        yield filter, vector, [list(row) for row in zip(*columns, strict=True)]


def _room(here: Vectors, vectors: int) -> ir.Value:
    """On the stack."""
    room = cgutils.alloca_once(here.builder, here.vector, vectors)
    room.align = here.wide * here.size
    return room


def _sums(
    here: Vectors,
    sums: Sums,
    data: Sequence[ir.Value],
    v_row: ir.Value,
    weights: ir.Value,
    channels: ir.Value,
) -> list[ir.Value]:
    """Products of a position summed over some channels: of each filter, those of all vectors."""
    builder = here.builder
    shape = Shape(1, sums.filters, 1, sums.along, apart=sums.depth)
    nothing = ir.Constant(here.vector, [0.0] * here.wide)

    def add(c: ir.Value, so_far: list[ir.Value]) -> list[ir.Value]:
        row = builder.mul(c, v_row)
        vectors = [here.load(here.at(address, row)) for address in data]
        numbers = here.pointer(here.opaque(here.at(weights, c)), here.real)
        return add_products(here, shape, so_far, numbers, i64(0), vectors)

    return here.repeated(channels, [nothing] * shape.sums, add)
