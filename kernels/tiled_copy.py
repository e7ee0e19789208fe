"""Copies of short rows by masked vectors: what plain loops do element by element takes a vector each.

A vector of zeros and inputs is loaded under a mask and stored whole: what it writes beyond the row belongs to
rows that are copied later, or to the slack behind the last.

Rows are given by their addresses, and the dtype by a `zero` of it: an array as an argument counts a reference
at each call, which takes longer than a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from kernels.jit import helper
from kernels.tiled_record import column, matrix
from kernels.tiled_vectors import Vectors, call_emitted, compiled, i64, lanes


@helper
def copy_block(zero, source, channels, first, c, target):
    """The rows from position `first` on, of so many channels of one image, padded, as a `Copy`; addresses."""
    phases, chunks = column(c.phases), matrix(c.chunks)
    size = size_of(zero)
    for channel in range(channels):
        plane = source + channel * c.H * c.W * size
        for phase in phases:
            above = (first + c.least) * c.stride_down + phase
            begin = min(c.rows, max(0, -above + c.stride_down - 1) // c.stride_down)
            end = max(begin, min(c.rows, (c.H - above + c.stride_down - 1) // c.stride_down))
            for columns in range(0, len(chunks), c.vectors):
                # The last vectors first: what they write beyond rows is where the next rows' first ones go.
                for n in range(columns + c.vectors - 1, columns - 1, -1):
                    copy_column(zero, plane + (above * c.W + chunks[n, 0]) * size, begin, end, c,
                                chunks[n, 2], chunks[n, 3], target + chunks[n, 1] * size)  # fmt: skip
                target += c.rows * c.pitch * size


@helper
def copy_column(zero, source, begin, end, c, one, two, target):
    """A vector of each row of a phase: zero but for rows `begin` to `end`, and where masks are."""
    step, pitch = c.stride_across, c.pitch * size_of(zero)
    apart = c.stride_down * c.W * size_of(zero)
    for row in range(begin):
        load_lanes(zero, target, target + row * pitch, 0, 0, 0)
    for row in range(begin, end):
        copy_chunk(zero, source + row * apart, target + row * pitch, one, two, step)
    for row in range(end, c.rows):
        load_lanes(zero, target, target + row * pitch, 0, 0, 0)


@helper
def copy_chunk(zero, source, target, first, second, step):
    """A vector of every step-th number from `source` on, zero where a bit is zero, to `target`.

    `first` and `second` are masks of the lanes of the one or, for step 2, two vectors that are loaded.
    """
    if step == 1:
        load_lanes(zero, source, target, first, 0, 0)
    elif step == 2:
        load_every_second(zero, source, target, first, second, 0)
    else:
        load_every(zero, source, target, first, 0, step)


@lru_cache(maxsize=4)
def turner(dtype: np.dtype, asks: bool = False) -> int:
    """The address of what turns a square: target[i * target_step + l] = source[l * source_step + i].

    Its arguments: source, source_step, count of rows l, target, target_step, count of columns i, lanes to
    store, how far it is to what is turned next, if it `asks` for that; and four that are not used. What is
    beyond the rows comes out as zero.
    """

    def emit(
        builder: ir.IRBuilder, source, source_step, rows, target, target_step, cols, stored, ahead,
        *_: ir.Value,
    ) -> None:  # fmt: skip
        row = Vectors(builder, dtype)
        inside = row.below(cols)
        nothing = ir.Constant(inside.type, None)
        square = []
        for number in range(row.wide):
            there = builder.icmp_signed("<", i64(number), rows)
            place = row.at(source, builder.mul(source_step, i64(number)))
            if asks:
                row.fetch(row.pointer(row.at(place, ahead)), to_write=False)
            square.append(row.load(place, builder.select(there, inside, nothing)))
        wanted = row.below(stored)
        for number, vector in enumerate(row.transposed(square)):
            there = builder.icmp_signed("<", i64(number), cols)
            place = row.at(target, builder.mul(target_step, i64(number)))
            row.store(vector, place, builder.select(there, wanted, nothing))

    return compiled(f"turn_{asks:d}_{dtype.name}", emit)


@helper
def turn(zero, address, source, rows, row_step, cols, target, target_step, whole, ahead):
    """target (cols, target_step) = source (rows, row_step) turned; `whole` vectors, or only the rows.

    Whole vectors hold zero beyond the rows. `ahead`: elements to what the turner at `address` asks for.
    """
    wide = lanes_of(zero)
    size = size_of(zero)
    for row in range(0, rows, wide):
        rows_here = min(wide, rows - row)
        for col in range(0, cols, wide):
            call_emitted(
                address, source + (row * row_step + col) * size, row_step, rows_here,
                target + (col * target_step + row) * size, target_step, min(wide, cols - col),
                wide if whole else rows_here, ahead, 0, 0, 0, 0,
            )  # fmt: skip


@helper
def clear(zero, target, count):
    """target[:count] = 0, a vector at a time; what is behind it may be, too."""
    for first in range(0, count, lanes_of(zero)):
        load_lanes(zero, target, target + first * size_of(zero), 0, 0, 0)


def _emits(emit: Any) -> Any:
    """An intrinsic of a number, for its dtype, and of five integers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(Vectors(builder, np.dtype(signature.args[0].name)), *arguments)
        return context.get_dummy_value()

    @intrinsic
    def emitted(typing, number, a, b, c, d, e):
        return types.void(number, *[types.intp] * 5), codegen

    return emitted


def _constant(value: Callable[[np.dtype], int]) -> Any:
    """An intrinsic of a number, for its dtype, that is constant."""

    @intrinsic
    def constant(typing, number):
        known = value(np.dtype(number.name))
        return types.intp(number), lambda *_: i64(known)

    return constant


lanes_of = _constant(lanes)
size_of = _constant(lambda dtype: dtype.itemsize)


@_emits
def load_lanes(row, zero, source, target, bits, _, __):
    """target[i] = source[i] in the lanes of the mask, and zero in the others."""
    row.store(row.load(source, row.mask(bits)), target)


@_emits
def load_every_second(row, zero, source, target, first, second, __):
    """target[i] = source[2 * i], where both halves of the source have their mask; zero in the other lanes."""
    further = row.at(source, i64(row.wide))
    evens, _ = row.dealt([row.load(source, row.mask(first)), row.load(further, row.mask(second))])
    row.store(evens, target)


@_emits
def load_every(row, zero, source, target, bits, _, step):
    """target[i] = source[step * i] in the lanes of the mask, and zero in the others."""
    row.store(row.gather(source, step, row.mask(bits)), target)
