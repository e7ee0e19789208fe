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
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.jit import helper
from kernels.tiled_tile import call_emitted, compiled, lanes, transposed

_I32, _I64 = ir.IntType(32), ir.IntType(64)


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


@helper
def store_every(zero, source, target, step, count):
    """target[i * step] = source[i], for i < count."""
    wide = lanes_of(zero)
    size = size_of(zero)
    for first in range(0, count, wide):
        if step == 2:
            spread_pairs(zero, source + first * size, target + first * step * size, count - first, 0, 0)
        else:
            spread_lanes(zero, source + first * size, target + first * step * size, step, count - first, 0)


@lru_cache(maxsize=4)
def turner(dtype: np.dtype) -> int:
    """The address of what turns a square: target[i * target_step + l] = source[l * source_step + i].

    Its arguments: source, source_step, count of rows l, target, target_step, count of columns i, and six that
    are not used. What is beyond the rows comes out as zero.
    """

    def emit(
        builder: ir.IRBuilder, source, source_step, rows, target, target_step, cols, *_: ir.Value
    ) -> None:
        row = Row(builder, dtype)
        size = ir.Constant(_I64, row.size)
        inside = row.below(cols)
        nothing = ir.Constant(inside.type, None)
        square = []
        for number in range(row.wide):
            there = builder.icmp_signed("<", ir.Constant(_I64, number), rows)
            offset = builder.mul(builder.mul(source_step, ir.Constant(_I64, number)), size)
            square.append(row.load(builder.add(source, offset), builder.select(there, inside, nothing)))
        everywhere = ir.Constant(inside.type, [1] * row.wide)
        for number, vector in enumerate(transposed(builder, square)):
            there = builder.icmp_signed("<", ir.Constant(_I64, number), cols)
            offset = builder.mul(builder.mul(target_step, ir.Constant(_I64, number)), size)
            row.store_where(vector, builder.add(target, offset), builder.select(there, everywhere, nothing))

    return compiled(f"turn_{dtype.name}", emit)


@helper
def turn(zero, address, source, rows, row_step, cols, target, target_step):
    """target (cols, target_step) = source (rows, row_step) turned; whole vectors, zero beyond the rows."""
    wide = lanes_of(zero)
    size = size_of(zero)
    for row in range(0, rows, wide):
        for col in range(0, cols, wide):
            call_emitted(
                address, source + (row * row_step + col) * size, row_step, min(wide, rows - row),
                target + (col * target_step + row) * size, target_step, min(wide, cols - col),
                0, 0, 0, 0, 0, 0,
            )  # fmt: skip


def _emits(emit: Any) -> Any:
    """An intrinsic of a number, for its dtype, and of five integers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(Row(builder, np.dtype(signature.args[0].name)), *arguments)
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
        return types.intp(number), lambda *_: ir.Constant(_I64, known)

    return constant


lanes_of = _constant(lanes)
size_of = _constant(lambda dtype: dtype.itemsize)


class Row:
    """Emits masked loads, and stores of whole vectors, of one dtype."""

    def __init__(self, builder: ir.IRBuilder, dtype: np.dtype) -> None:
        self.builder = builder
        self.size = dtype.itemsize
        self.wide = lanes(dtype)
        self.real = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.real, self.wide)
        self.name = f"v{self.wide}f{8 * self.size}"
        self.order = ir.Constant(ir.VectorType(_I64, self.wide), list(range(self.wide)))

    def pointer(self, address: ir.Value) -> ir.Value:
        return self.builder.inttoptr(address, self.vector.as_pointer())

    def spread(self, number: ir.Value) -> ir.Value:
        """The number in every lane."""
        vector = ir.VectorType(_I64, self.wide)
        nothing = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.Constant(_I32, 0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(ir.VectorType(_I32, self.wide), None))

    def below(self, count: ir.Value) -> ir.Value:
        """The first `count` lanes."""
        return self.builder.icmp_signed("<", self.order, self.spread(count))

    def mask(self, bits: ir.Value) -> ir.Value:
        """The lanes whose bits are set."""
        narrow = self.builder.trunc(bits, ir.IntType(self.wide))
        return self.builder.bitcast(narrow, ir.VectorType(ir.IntType(1), self.wide))

    def load(self, address: ir.Value, mask: ir.Value, others: float = 0.0) -> ir.Value:
        """A vector, with `others` where the mask is not set."""
        kinds = [self.vector.as_pointer(), _I32, ir.VectorType(ir.IntType(1), self.wide), self.vector]
        function = cgutils.get_or_insert_function(
            self.builder.module, ir.FunctionType(self.vector, kinds), f"llvm.masked.load.{self.name}.p0"
        )
        rest = ir.Constant(self.vector, [others] * self.wide)
        return self.builder.call(function, [self.pointer(address), ir.Constant(_I32, self.size), mask, rest])

    def load_indices(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        """A vector of int64, zero where the mask is not set."""
        kind = self.order.type
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(kind, [kind.as_pointer(), _I32, mask.type, kind]),
            f"llvm.masked.load.v{self.wide}i64.p0",
        )
        pointer = self.builder.inttoptr(address, kind.as_pointer())
        return self.builder.call(function, [pointer, ir.Constant(_I32, 8), mask, ir.Constant(kind, None)])

    def places(self, address: ir.Value, step: ir.Value) -> ir.Value:
        """Pointers to every step-th number from the address on."""
        builder = self.builder
        offsets = builder.mul(self.order, self.spread(builder.mul(step, ir.Constant(_I64, self.size))))
        pointers = ir.VectorType(self.real.as_pointer(), self.wide)
        return builder.inttoptr(builder.add(self.spread(address), offsets), pointers)

    def every_second(
        self, address: ir.Value, masks: tuple[ir.Value, ir.Value], others: float = 0.0
    ) -> ir.Value:
        """Every second number of two vectors, each with its mask."""
        further = self.builder.add(address, ir.Constant(_I64, self.wide * self.size))
        even = ir.Constant(ir.VectorType(_I32, self.wide), [2 * i for i in range(self.wide)])
        halves = self.load(address, masks[0], others), self.load(further, masks[1], others)
        return self.builder.shuffle_vector(*halves, even)

    def gather(self, address: ir.Value, step: ir.Value, mask: ir.Value, others: float = 0.0) -> ir.Value:
        """Every step-th number, in the lanes of the mask; `others` elsewhere."""
        places = self.places(address, step)
        kinds = [places.type, _I32, mask.type, self.vector]
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(self.vector, kinds),
            f"llvm.masked.gather.{self.name}.v{self.wide}p0",
        )
        rest = ir.Constant(self.vector, [others] * self.wide)
        return self.builder.call(function, [places, ir.Constant(_I32, self.size), mask, rest])

    def scatter(self, value: ir.Value, address: ir.Value, step: ir.Value, mask: ir.Value) -> None:
        """Store every step-th number, those in the lanes of the mask."""
        places = self.places(address, step)
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [self.vector, places.type, _I32, mask.type]),
            f"llvm.masked.scatter.{self.name}.v{self.wide}p0",
        )
        self.builder.call(function, [value, places, ir.Constant(_I32, self.size), mask])

    def store_where(self, value: ir.Value, address: ir.Value, mask: ir.Value) -> None:
        """Store the lanes of the mask, of numbers or of indices."""
        indices = isinstance(value.type.element, ir.IntType)
        pointer = self.builder.inttoptr(address, value.type.as_pointer())
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [value.type, pointer.type, _I32, mask.type]),
            f"llvm.masked.store.{f'v{self.wide}i64' if indices else self.name}.p0",
        )
        alignment = ir.Constant(_I32, 8 if indices else self.size)
        self.builder.call(function, [value, pointer, alignment, mask])

    def store(self, value: ir.Value, address: ir.Value) -> None:
        self.builder.store(value, self.pointer(address)).align = self.size


@_emits
def load_lanes(row, zero, source, target, bits, _, __):
    """target[i] = source[i] in the lanes of the mask, and zero in the others."""
    row.store(row.load(source, row.mask(bits)), target)


@_emits
def load_every_second(row, zero, source, target, first, second, _):
    """target[i] = source[2 * i], where both halves of the source have their mask; zero in the other lanes."""
    row.store(row.every_second(source, (row.mask(first), row.mask(second))), target)


@_emits
def load_every(row, zero, source, target, bits, _, step):
    """target[i] = source[step * i] in the lanes of the mask, and zero in the others."""
    row.store(row.gather(source, step, row.mask(bits)), target)


@_emits
def spread_lanes(row, zero, source, target, step, count, _):
    """target[step * i] = source[i] in the first `count` lanes."""
    mask = row.below(count)
    row.scatter(row.load(source, mask), target, step, mask)


@_emits
def spread_pairs(row, zero, source, target, count, _, __):
    """target[2 * i] = source[i] in the first `count` lanes, as every second lane of two vectors."""
    builder, wide = row.builder, row.wide
    value = row.load(source, row.below(count))
    second = ir.Constant(ir.VectorType(ir.IntType(1), wide), [i % 2 == 0 for i in range(wide)])
    for half in range(2):
        order = ir.Constant(ir.VectorType(_I32, wide), [(i + half * wide) // 2 for i in range(wide)])
        spread = builder.shuffle_vector(value, ir.Constant(row.vector, ir.Undefined), order)
        left = builder.mul(builder.sub(count, ir.Constant(_I64, half * wide // 2)), ir.Constant(_I64, 2))
        there = builder.add(target, ir.Constant(_I64, half * wide * row.size))
        row.store_where(spread, there, builder.and_(second, row.below(left)))
