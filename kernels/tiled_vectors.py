"""Machine code for vectors, emitted with llvmlite: what the `tiled` tiles, copies and pooling share.

LLVM's vectoriser does not find register tiles, or masked rows, in plain loops; so they are emitted. Each is a
function of its own, compiled at first need, cached by Numba, and called by address: what calls it need not be
compiled again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kernels.sources import digest

I32, I64 = ir.IntType(32), ir.IntType(64)
_ARGUMENTS = 12
_SIGNATURE = types.void(*[types.intp] * _ARGUMENTS)


@lru_cache(maxsize=1)
def vector_bits() -> int:
    """The width of the vectors of the CPU that Numba compiles for."""
    features = _cpu()[1]
    if "+avx512f" in features:
        return 512
    return 256 if "+avx2" in features and "+fma" in features else 128


def multiplications_a_cycle() -> int:
    """Of whole vectors: Zen 4 does 512 bits in two halves."""
    return 1 if vector_bits() == 512 and _cpu()[0] == "znver4" else 2


def cost_of_others() -> int:
    """What operations beside multiplications take, in those of Zen 4.

    Twice as many where two start in a cycle; but not on Zen 5, where twice as many others start, too.
    """
    return 1 if _cpu()[0] == "znver5" else multiplications_a_cycle()


@lru_cache(maxsize=1)
def _cpu() -> tuple[str, str]:
    """What LLVM calls it, and its features."""
    from numba.core.registry import cpu_target

    *_, name, features = cpu_target.target_context.codegen().magic_tuple()
    return name, features


def lanes(dtype: np.dtype) -> int:
    """Numbers in a vector."""
    return vector_bits() // (8 * dtype.itemsize)


def compiled(name: str, emit: Callable[..., None]) -> int:
    """The address of a function of twelve intp, emitted by `emit(builder, *arguments)`.

    `name` must tell it from all others of its module: by that, and by what the sources say, Numba's cache
    finds it again.
    """

    @intrinsic
    def emitted(typing, a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
        def codegen(context, builder, signature, arguments):
            emit(builder, *arguments)
            return context.get_dummy_value()

        return _SIGNATURE, codegen

    function = FunctionType(_call.__code__, {"emitted": emitted, "__name__": __name__}, _call.__name__)
    function.__qualname__ = f"{name}_{vector_bits()}_{digest(emit.__module__)}"
    try:
        found = numba.cfunc(_SIGNATURE, cache=True)(function)
    except RuntimeError:  # nowhere to write a cache
        found = numba.cfunc(_SIGNATURE)(function)
    _kept.append(found)
    return int(found.address)


_kept: list[Any] = []
"""What must not be freed, since its address is in use."""


def _call(a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
    emitted(a, b, c, d, e, f, g, h, i, j, k, l)  # type: ignore[name-defined]  # noqa: F821


@intrinsic
def call_emitted(typing, address, a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
    """Call what `compiled` has made, from compiled code."""

    def codegen(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [I64] * _ARGUMENTS)
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * (1 + _ARGUMENTS)), codegen


def i64(value: int) -> ir.Constant:
    """An integer as addresses and counts are."""
    return ir.Constant(I64, value)


class Vectors:
    """Emits operations on vectors of one dtype. Places are pointers, or addresses as i64; counts are i64."""

    def __init__(self, builder: ir.IRBuilder, dtype: np.dtype, wide: int | None = None) -> None:
        """`wide`: numbers of a vector, 2 or more, if not as many as the machine's have."""
        self.builder = builder
        self.size = dtype.itemsize
        self.wide = wide or lanes(dtype)
        self.real = ir.FloatType() if self.size == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.real, self.wide)
        self.half = ir.VectorType(self.real, self.wide // 2)
        self.indices = ir.VectorType(I64, self.wide)
        self.narrow = ir.VectorType(I32, self.wide)
        """Of indices that 32 bits hold: half the vectors that int64 would take."""
        self.lane_numbers = ir.Constant(self.narrow, list(range(self.wide)))

    def spread(self, number: ir.Value) -> ir.Value:
        """The number in every lane."""
        nothing = ir.Constant(ir.VectorType(number.type, self.wide), ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.Constant(I32, 0))
        return self.shuffled(one, nothing, [0] * self.wide)

    def spread_narrow(self, number: ir.Value) -> ir.Value:
        """An i64 that 32 bits hold, in every lane of as many bits."""
        return self.spread(self.builder.trunc(number, I32))

    def shuffled(self, first: ir.Value, second: ir.Value, lanes: list[int]) -> ir.Value:
        """The given lanes of two vectors side by side."""
        return self.builder.shuffle_vector(first, second, ir.Constant(self.narrow, lanes))

    def below(self, count: ir.Value) -> ir.Value:
        """The mask of the first `count` lanes."""
        return self.builder.icmp_signed("<", self.lane_numbers, self.spread_narrow(count))

    def inside(self, first: ir.Value, count: ir.Value) -> ir.Value:
        """The mask of the lanes that are among so many, where the first lane is number `first`, or before."""
        before = self.below(self.builder.neg(first))
        return self.builder.and_(self.below(self.builder.sub(count, first)), self.builder.not_(before))

    def mask(self, bits: ir.Value) -> ir.Value:
        """The mask of the lanes whose bits are set."""
        narrow = self.builder.trunc(bits, ir.IntType(self.wide))
        return self.builder.bitcast(narrow, ir.VectorType(ir.IntType(1), self.wide))

    def at(self, address: ir.Value, *elements: ir.Value) -> ir.Value:
        """The address so many elements further on."""
        for count in elements:
            address = self.builder.add(address, self.builder.mul(count, i64(self.size)))
        return address

    def pointer(self, place: ir.Value, kind: ir.Type | None = None) -> ir.Value:
        """To a vector there, of numbers unless another kind is given."""
        target = (kind or self.vector).as_pointer()
        if isinstance(place.type, ir.IntType):
            return self.builder.inttoptr(place, target)
        return self.builder.bitcast(place, target)

    def load(self, place: ir.Value, mask: ir.Value | None = None, others: float | ir.Value = 0.0) -> ir.Value:
        """A vector; under a mask, with `others`, a number or a vector, in the lanes that are not read."""
        if mask is None:
            loaded = self.builder.load(self.pointer(place))
            loaded.align = self.size
            return loaded
        rest = ir.Constant(self.vector, [others] * self.wide) if isinstance(others, float) else others
        return self._masked("load", self.vector, [self.pointer(place), self._aligned(self.size), mask, rest])

    def load_narrow(self, place: ir.Value) -> ir.Value:
        """A vector of int32."""
        loaded = self.builder.load(self.pointer(place, self.narrow))
        loaded.align = 4
        return loaded

    def store(self, value: ir.Value, place: ir.Value, mask: ir.Value | None = None) -> None:
        """Store numbers or indices; under a mask, its lanes only."""
        pointer = self.pointer(place, value.type)
        alignment = 8 if value.type == self.indices else self.size
        if mask is None:
            self.builder.store(value, pointer).align = alignment
            return
        self._masked("store", value.type, [value, pointer, self._aligned(alignment), mask])

    def load_pieces(self, places: Sequence[ir.Value]) -> ir.Value:
        """A vector that lies in one place, or whose halves lie in two."""
        if len(places) == 1:
            return self.load(places[0])
        halves = [self.builder.load(self.pointer(place, self.half)) for place in places]
        for half in halves:
            half.align = self.size
        return self.shuffled(halves[0], halves[1], list(range(self.wide)))

    def store_pieces(self, value: ir.Value, places: Sequence[ir.Value]) -> None:
        """Store a vector in one place, or its halves in two."""
        count = self.wide // len(places)
        for i, place in enumerate(places):
            lanes = ir.Constant(ir.VectorType(I32, count), list(range(i * count, (i + 1) * count)))
            self.store(self.builder.shuffle_vector(value, value, lanes), place)

    def fetch(self, place: ir.Value, to_write: bool) -> None:
        """Ask for the line of the cache that a pointer is to: to write to it, or to read from it soon."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        how = (1, 3, 1) if to_write else (0, 2, 1)  # written or read; how close to the core; of data
        arguments = [self.builder.bitcast(place, byte), *(ir.Constant(I32, value) for value in how)]
        self.builder.call(self._declared(kind, "llvm.prefetch.p0"), arguments)

    def dealt(self, vectors: Sequence[ir.Value]) -> list[ir.Value]:
        """Numbers side by side dealt out in turn: of n vectors, the j-th gets every n-th number from j on."""
        count = len(vectors)
        if count == 1:
            return list(vectors)
        if count % 2:
            return [
                self.picked(vectors, [phase + lane * count for lane in range(self.wide)])
                for phase in range(count)
            ]
        pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
        halves = (
            self.dealt([self.shuffled(*pair, [2 * i + odd for i in range(self.wide)]) for pair in pairs])
            for odd in range(2)
        )
        return [vector for pair in zip(*halves, strict=True) for vector in pair]

    def alternating(self, vectors: Sequence[ir.Value]) -> list[ir.Value]:
        """The first number of each of n vectors, then the second of each, and so on: what `dealt` dealt."""
        count, wide = len(vectors), self.wide
        if count == 1:
            return list(vectors)
        if count % 2:
            order = [lane % count * wide + lane // count for lane in range(count * wide)]
            return [self.picked(vectors, order[i : i + wide]) for i in range(0, len(order), wide)]
        return [
            self.shuffled(even, odd, [(first + i) // 2 + (first + i) % 2 * wide for i in range(wide)])
            for even, odd in zip(self.alternating(vectors[::2]), self.alternating(vectors[1::2]), strict=True)
            for first in (0, wide)
        ]

    def picked(self, vectors: Sequence[ir.Value], numbers: list[int]) -> ir.Value:
        """The given numbers of vectors side by side: two of them, then one more at a time."""
        found = self.shuffled(vectors[0], vectors[1], [n if n < 2 * self.wide else 0 for n in numbers])
        for i, vector in enumerate(vectors[2:], 2):
            places = [n - (i - 1) * self.wide for n in numbers]
            chosen = [
                place if self.wide <= place < 2 * self.wide else lane for lane, place in enumerate(places)
            ]
            found = self.shuffled(found, vector, chosen)
        return found

    def gather(self, address: ir.Value, step: ir.Value, mask: ir.Value, others: float = 0.0) -> ir.Value:
        """Every step-th number, in the lanes of the mask; `others` elsewhere."""
        rest = ir.Constant(self.vector, [others] * self.wide)
        places = self._places(address, step)
        return self._masked("gather", self.vector, [places, self._aligned(self.size), mask, rest])

    def scatter(self, value: ir.Value, address: ir.Value, step: ir.Value, mask: ir.Value) -> None:
        """Store every step-th number, those in the lanes of the mask."""
        places = self._places(address, step)
        self._masked("scatter", self.vector, [value, places, self._aligned(self.size), mask])

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c."""
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(self._declared(kind, f"llvm.fma.{_short(self.vector)}"), [a, b, c])

    @contextmanager
    def rolled(self, count: ir.Value) -> Iterator[ir.Value]:
        """A loop over so many numbers that LLVM does not unroll: it cannot tell how often it runs.

        Unrolled, as LLVM does for Zen, it would need more registers than there are.
        """
        builder, before = self.builder, self.builder.block
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", count, i64(0)), loop, done)
        builder.position_at_end(loop)
        index = builder.phi(I64)
        index.add_incoming(i64(0), before)
        yield index
        following = self.opaque(builder.add(index, i64(1)))
        index.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)

    def repeated(
        self,
        count: ir.Value,
        values: list[ir.Value],
        step: Callable[[ir.Value, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        """What `step(number, values)` makes of the values, `count` times, at least once: a loop like that."""
        builder, before = self.builder, self.builder.block
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(loop)
        builder.position_at_end(loop)
        state = [builder.phi(value.type) for value in (i64(0), *values)]
        made = step(state[0], list(state[1:]))
        following = self.opaque(builder.add(state[0], i64(1)))
        for phi, first, later in zip(state, (i64(0), *values), (following, *made), strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(later, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        return made

    def opaque(self, value: ir.Value) -> ir.Value:
        """The same pointer or integer, in a register, of which LLVM knows nothing more."""
        kind = ir.FunctionType(value.type, [value.type])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def in_step(self, place: ir.Value, *vectors: ir.Value) -> list[ir.Value]:
        """All as they are; but nothing is read by the pointer or address before the vectors are there.

        LLVM would read all that products need before the first of them, and have too few registers.
        """
        values = [place, *vectors]
        if vector_bits() == 128:  # it may be another kind of CPU, whose registers have other letters
            return values
        kinds = [value.type for value in values]
        same = ir.FunctionType(ir.LiteralStructType(kinds), kinds)
        constraints = ",".join(["=r", *["=v"] * len(vectors), *map(str, range(len(values)))])
        together = self.builder.asm(same, "", constraints, values, side_effect=False)
        return [self.builder.extract_value(together, i) for i in range(len(values))]

    def transposed(self, vectors: list[ir.Value]) -> list[ir.Value]:
        """As many vectors as they have lanes, turned: in stage s, pairs exchange every other block of s."""
        square, wide = list(vectors), self.wide
        stage = 1
        while stage < wide:
            upper = [lane if not lane & stage else wide + lane - stage for lane in range(wide)]
            lower = [lane + stage if not lane & stage else wide + lane for lane in range(wide)]
            for i in range(wide):
                if not i & stage:
                    pair = square[i], square[i + stage]
                    square[i] = self.shuffled(*pair, upper)
                    square[i + stage] = self.shuffled(*pair, lower)
            stage *= 2
        return square

    def folded(self, vectors: list[ir.Value]) -> ir.Value:
        """The sum of the lanes of each, of as many vectors as they have lanes."""
        turned = self.transposed(vectors)
        while len(turned) > 1:
            turned = [self.builder.fadd(a, b) for a, b in zip(turned[::2], turned[1::2], strict=True)]
        return turned[0]

    def _places(self, address: ir.Value, step: ir.Value) -> ir.Value:
        """Pointers to every step-th number from the address on."""
        builder = self.builder
        order = ir.Constant(self.indices, list(range(self.wide)))
        offsets = builder.mul(order, self.spread(builder.mul(step, i64(self.size))))
        pointers = ir.VectorType(self.real.as_pointer(), self.wide)
        return builder.inttoptr(builder.add(self.spread(address), offsets), pointers)

    def _masked(self, what: str, kind: ir.Type, arguments: list[ir.Value]) -> ir.Value:
        result = kind if what in ("load", "gather") else ir.VoidType()
        places = f"v{self.wide}p0" if what in ("gather", "scatter") else "p0"
        signature = ir.FunctionType(result, [argument.type for argument in arguments])
        name = f"llvm.masked.{what}.{_short(kind)}.{places}"
        return self.builder.call(self._declared(signature, name), arguments)

    def _declared(self, signature: ir.FunctionType, name: str) -> ir.Function:
        return cgutils.get_or_insert_function(self.builder.module, signature, name)

    def _aligned(self, size: int) -> ir.Value:
        return ir.Constant(I32, size)


def _short(vector: ir.VectorType) -> str:
    """As LLVM's names of functions have it: v16f32."""
    kinds = {ir.FloatType(): "f32", ir.DoubleType(): "f64", I64: "i64"}
    return f"v{vector.count}{kinds[vector.element]}"
