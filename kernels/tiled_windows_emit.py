"""What `tiled_windows` and `tiled_windows_dx` call, emitted: copies of windows, the way back, and dots.

A window's row of a channel, S numbers, is a vector of few lanes; a mask leaves out what lies in padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_vectors import I32, I64, Vectors, compiled, i64, lanes


class Block(NamedTuple):
    """Filters by windows whose dots are summed at once: together as many as a vector has lanes."""

    filters: int
    windows: int


def block(dtype: np.dtype) -> Block:
    """As square as can be, so that each vector that is loaded serves several products."""
    filters = 1
    while filters * filters * 4 <= lanes(dtype):
        filters *= 2
    return Block(filters, lanes(dtype) // filters)


@lru_cache(maxsize=64)
def unfolder(width: int, dtype: np.dtype) -> int:
    """The address of what copies windows from planes, `width` numbers at a time.

    Its arguments: the address of the first channel's plane, from a channel to the next there, the address of
    the windows, from a channel to the next there, how many channels, the address of a table, and its rows,
    three intp each: where numbers lie in a plane, where in the windows, and the mask of those that are in the
    plane; the others get zero. Five are not used.
    """

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        few = Vectors(builder, dtype, _lanes_for(width))
        whole = few.mask(i64((1 << width) - 1))
        for plane, window, inside in _rows(few, *arguments):
            few.store(few.load(plane, inside), window, whole)

    return compiled(f"unfold_{width}_{dtype.name}", emit)


@lru_cache(maxsize=64)
def folder(width: int, dtype: np.dtype) -> int:
    """The address of what adds windows to the planes that they are from; its arguments are the same."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        few = Vectors(builder, dtype, _lanes_for(width))
        for plane, window, inside in _rows(few, *arguments):
            total = builder.fadd(few.load(plane, inside), few.load(window, inside))
            few.store(total, plane, inside)

    return compiled(f"fold_{width}_{dtype.name}", emit)


def _lanes_for(width: int) -> int:
    """So many numbers, or some more: a power of 2."""
    return 1 << max(1, (width - 1).bit_length())


def _rows(
    few: Vectors, planes, plane_step, windows, step, channels, table, rows, *_: ir.Value
) -> Iterator[tuple[ir.Value, ir.Value, ir.Value]]:
    """A loop over the rows of the table, and the channels: both places, and the mask."""
    builder = few.builder
    table = builder.inttoptr(table, I64.as_pointer())
    with cgutils.for_range(builder, rows) as row:
        first = builder.mul(row.index, i64(3))
        plane, window, bits = (
            builder.load(builder.gep(table, [builder.add(first, i64(i))])) for i in range(3)
        )
        inside = few.mask(bits)
        with cgutils.for_range(builder, channels) as channel:
            yield (
                few.at(planes, plane, builder.mul(channel.index, plane_step)),
                few.at(windows, window, builder.mul(channel.index, step)),
                inside,
            )


@lru_cache(maxsize=4)
def dots(dtype: np.dtype) -> int:
    """The address of what multiplies a block of filters and windows, both rows of vectors, and adds the bias.

    Its arguments: the address of the first filter, from a filter to the next, the address of the first
    window, from a window to the next, how many vectors a row has, the address of the first filter's bias,
    that of its first output, and from a filter's outputs to the next one's. Four are not used.
    """
    filters, windows = block(dtype)

    def emit(builder: ir.IRBuilder, w, w_step, x, x_step, count, bias, out, out_step, *_: ir.Value) -> None:
        here = Vectors(builder, dtype)

        def add(number: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            at = builder.mul(number, i64(here.wide))
            inputs = [here.load(here.at(x, at, builder.mul(x_step, i64(n)))) for n in range(windows)]
            weights = [here.load(here.at(w, at, builder.mul(w_step, i64(k)))) for k in range(filters)]
            return [
                here.fma(*pair, value) for pair, value in zip(product(weights, inputs), sums, strict=True)
            ]

        total = here.folded(here.repeated(count, [ir.Constant(here.vector, None)] * here.wide, add))
        start: ir.Value = ir.Constant(here.vector, ir.Undefined)
        for lane in range(here.wide):
            number = builder.load(here.pointer(here.at(bias, i64(lane // windows)), here.real))
            start = builder.insert_element(start, number, ir.Constant(I32, lane))
        places = [here.at(out, builder.mul(out_step, i64(k))) for k in range(filters)]
        here.store_pieces(builder.fadd(total, start), places)

    return compiled(f"dots_of_rows_{dtype.name}", emit)
