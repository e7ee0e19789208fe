"""Register tiles: the innermost loop of the `tiled` backend, emitted for the machine's vectors.

A tile holds `rows` x `cols` numbers by `down` x `along` vectors of sums in registers, and adds outer
products:

    sum[r, c, d, a] += s[at + r * row_step + c] * v[there + d * down_step + a * lanes : ... + lanes]

for t in range(count). Every number is read once for all vectors and every vector once for all numbers, which
is what keeps the multipliers busy (K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34, 2008). Weights lie in order: there, `at` or `there` is t * step. Images do not:
their places are in a table, which saves copying them into matrices (M. Dukhan, "The Indirect Convolution
Algorithm", 2019).

LLVM's vectoriser does not find this shape in plain loops, so that it is emitted here, with one `fma` for each
vector of sums. Every tile is a function of its own, compiled at first need, cached by Numba, and called by
address: what calls it need not be compiled again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ARGUMENTS = (
    "s", "row_step", "v", "down_step", "table", "step", "count",
    "out", "out_step", "out_down", "valid", "start",
)  # fmt: skip
"""Of a tile, all intp. `s`, `v`, `table` and `out` are addresses; the table holds intp, in elements. Sums of
number i go to out[i * out_step + d * out_down + a * lanes], of each vector the first `valid - a * lanes`.
`start` is the address of what each number's sums begin at, or 0 to add to what is in `out`.

A `turned` tile is stored the other way round: number i of lane l goes to out[(a * lanes + l) * out_step + i],
for the first `valid` of all lanes, and `start` is the address of what each lane's sums begin at."""
_INT = ir.IntType(64)


class Shape(NamedTuple):
    """Numbers (rows x cols) by vectors (down x along) of a tile, and whether it is turned."""

    rows: int
    cols: int
    down: int
    along: int
    by_vectors: bool = True
    """Whether the table is for the vectors, and the step for the numbers; else the other way round."""
    turned: bool = False

    @property
    def sums(self) -> int:
        """Vectors of sums: so many registers."""
        return self.rows * self.cols * self.down * self.along


@lru_cache(maxsize=1)
def vector_bits() -> int:
    """The width of the vectors of the CPU that Numba compiles for."""
    from numba.core.registry import cpu_target

    features = cpu_target.target_context.codegen().magic_tuple()[-1]
    if "+avx512f" in features:
        return 512
    return 256 if "+avx2" in features and "+fma" in features else 128


def lanes(dtype: np.dtype) -> int:
    """Numbers in a vector."""
    return vector_bits() // (8 * dtype.itemsize)


def registers() -> int:
    """Vector registers that sums may take; some are left for what they are made of."""
    return 28 if vector_bits() == 512 else 12


@lru_cache(maxsize=256)
def tile(shape: Shape, dtype: np.dtype) -> int:
    """The address of the compiled tile."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        emitter = _Emitter(builder, shape, dtype.itemsize, lanes(dtype))
        emitter.emit(**dict(zip(ARGUMENTS, arguments, strict=True)))

    return compiled(f"tile_{'_'.join(map(str, map(int, shape)))}_{dtype.name}", emit)


def compiled(name: str, emit: Callable[..., None]) -> int:
    """The address of a function of twelve intp, emitted by `emit(builder, *arguments)`.

    `name` must tell it from all others, as Numba's cache does by it.
    """

    @intrinsic
    def emitted(typing, a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
        def codegen(context, builder, signature, arguments):
            emit(builder, *arguments)
            return context.get_dummy_value()

        return _SIGNATURE, codegen

    function = FunctionType(_call.__code__, {"emitted": emitted, "__name__": __name__}, _call.__name__)
    function.__qualname__ = f"{name}_{vector_bits()}"
    try:
        found = numba.cfunc(_SIGNATURE, cache=True)(function)
    except RuntimeError:  # nowhere to write a cache
        found = numba.cfunc(_SIGNATURE)(function)
    _kept.append(found)
    return int(found.address)


_SIGNATURE = types.void(*[types.intp] * len(ARGUMENTS))
_kept: list[Any] = []
"""What must not be freed, since its address is in use."""


def _call(a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
    emitted(a, b, c, d, e, f, g, h, i, j, k, l)  # type: ignore[name-defined]  # noqa: F821


@intrinsic
def call_emitted(typing, address, a, b, c, d, e, f, g, h, i, j, k, l):  # noqa: E741
    """Call what `compiled` has made, from compiled code."""

    def codegen(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [_INT] * len(ARGUMENTS))
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.intp] * (1 + len(ARGUMENTS))), codegen


class _Emitter:
    """Emits one tile into `builder`."""

    def __init__(self, builder: ir.IRBuilder, shape: Shape, itemsize: int, wide: int) -> None:
        self.builder = builder
        self.shape = shape
        self.real = ir.FloatType() if itemsize == 4 else ir.DoubleType()
        self.itemsize = itemsize
        self.wide = wide
        self.vector = ir.VectorType(self.real, wide)
        self.name = f"v{wide}f{8 * itemsize}"

    def emit(self, *, s, row_step, v, down_step, table, step, count, out, out_step, out_down, valid,
             start) -> None:  # fmt: skip
        builder = self.builder
        s, v, out = (builder.inttoptr(each, self.real.as_pointer()) for each in (s, v, out))
        table = builder.inttoptr(table, _INT.as_pointer())
        if self.shape.turned:
            sums = self._lane_beginnings(start)
        else:
            sums = self._beginnings(out, out_step, out_down, valid, start)
        before = builder.block
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", count, _int(0)), loop, done)
        builder.position_at_end(loop)
        t = self._phi(_INT, _int(0), before)
        running = [self._phi(self.vector, each, before) for each in sums]
        listed, regular = builder.load(builder.gep(table, [t])), builder.mul(t, step)
        at, there = (regular, listed) if self.shape.by_vectors else (listed, regular)
        added = self._add_products(
            running, builder.gep(s, [at]), row_step, builder.gep(v, [there]), down_step
        )
        following = builder.add(t, _int(1))
        t.add_incoming(following, loop)
        for phi, value in zip(running, added, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        finished = []
        for first, last in zip(sums, added, strict=True):
            phi = self._phi(self.vector, first, before)
            phi.add_incoming(last, loop)
            finished.append(phi)
        if self.shape.turned:
            self._store_turned(finished, out, out_step, valid)
        else:
            self._store(finished, out, out_step, out_down, valid)

    def _add_products(self, sums, s, row_step, v, down_step) -> list[ir.Value]:
        builder, shape = self.builder, self.shape
        vectors = [
            self._load(builder.gep(self._at(v, down_step, d), [_int(a * self.wide)]))
            for d in range(shape.down)
            for a in range(shape.along)
        ]
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(self.vector, [self.vector] * 3), f"llvm.fma.{self.name}"
        )
        added: list[ir.Value] = []
        for row in range(shape.rows):
            for col in range(shape.cols):
                number = self._spread(builder.load(builder.gep(self._at(s, row_step, row), [_int(col)])))
                for vector in vectors:
                    added.append(builder.call(fma, [number, vector, sums[len(added)]]))
        return added

    def _beginnings(self, out, out_step, out_down, valid, start) -> list[ir.Value]:
        """What the sums begin at: a number for each row of them, or what is in `out`."""
        builder = self.builder
        given, kept, go = (builder.append_basic_block(name) for name in ("given", "kept", "go"))
        builder.cbranch(builder.icmp_signed("!=", start, _int(0)), given, kept)
        builder.position_at_end(given)
        first = builder.inttoptr(start, self.real.as_pointer())
        numbers_there = self.shape.rows * self.shape.cols
        vectors = self.shape.down * self.shape.along
        splats = [self._spread(builder.load(builder.gep(first, [_int(i)]))) for i in range(numbers_there)]
        builder.branch(go)
        builder.position_at_end(kept)
        masked = self._masked(
            "load", [self.vector.as_pointer(), ir.IntType(32), self._mask_type, self.vector]
        )
        old = []
        for _, place, mask in self._places(out, out_step, out_down, valid):
            zero = ir.Constant(self.vector, None)
            old.append(builder.call(masked, [place, ir.Constant(ir.IntType(32), self.itemsize), mask, zero]))
        builder.branch(go)
        builder.position_at_end(go)
        sums = []
        for index, value in enumerate(old):
            phi = self._phi(self.vector, splats[index // vectors], given)
            phi.add_incoming(value, kept)
            sums.append(phi)
        return sums

    def _store(self, sums, out, out_step, out_down, valid) -> None:
        masked = self._masked(
            "store", [self.vector, self.vector.as_pointer(), ir.IntType(32), self._mask_type]
        )
        for index, place, mask in self._places(out, out_step, out_down, valid):
            alignment = ir.Constant(ir.IntType(32), self.itemsize)
            self.builder.call(masked, [sums[index], place, alignment, mask])

    def _lane_beginnings(self, start) -> list[ir.Value]:
        first = self.builder.inttoptr(start, self.real.as_pointer())
        vectors = [
            self._load(self.builder.gep(first, [_int(a * self.wide)])) for a in range(self.shape.along)
        ]
        return vectors * (self.shape.rows * self.shape.cols)

    def _store_turned(self, sums, out, out_step, valid) -> None:
        builder, wide, along = self.builder, self.wide, self.shape.along
        masked = self._masked(
            "store", [self.vector, self.vector.as_pointer(), ir.IntType(32), self._mask_type]
        )
        numbers = self.shape.rows * self.shape.cols
        alignment = ir.Constant(ir.IntType(32), self.itemsize)
        order = ir.Constant(self._lane_numbers, list(range(wide)))
        for a in range(along):
            rest = [ir.Constant(self.vector, ir.Undefined)] * (wide - numbers)
            for lane, row in enumerate(transposed(builder, [*sums[a::along], *rest])):
                index = a * wide + lane
                there = builder.icmp_signed("<", _int(index), valid)
                count = builder.select(
                    there, ir.Constant(ir.IntType(32), numbers), ir.Constant(ir.IntType(32), 0)
                )
                mask = builder.icmp_signed("<", order, self._spread(count, self._lane_numbers))
                place = builder.bitcast(self._at(out, out_step, index), self.vector.as_pointer())
                builder.call(masked, [row, place, alignment, mask])

    def _places(self, out, out_step, out_down, valid):
        """Each vector of sums: its number, its pointer into `out`, and the mask of its valid lanes."""
        builder, shape = self.builder, self.shape
        index = 0
        order = ir.Constant(self._lane_numbers, list(range(self.wide)))
        for i in range(shape.rows * shape.cols):
            row = self._at(out, out_step, i)
            for d in range(shape.down):
                for a in range(shape.along):
                    left = builder.sub(valid, _int(a * self.wide))
                    bound = self._spread(builder.trunc(left, ir.IntType(32)), self._lane_numbers)
                    mask = builder.icmp_signed("<", order, bound)
                    place = builder.gep(self._at(row, out_down, d), [_int(a * self.wide)])
                    yield index, builder.bitcast(place, self.vector.as_pointer()), mask
                    index += 1

    @property
    def _mask_type(self) -> ir.Type:
        return ir.VectorType(ir.IntType(1), self.wide)

    @property
    def _lane_numbers(self) -> ir.Type:
        return ir.VectorType(ir.IntType(32), self.wide)

    def _masked(self, what: str, arguments: list[ir.Type]) -> ir.Function:
        result = self.vector if what == "load" else ir.VoidType()
        return cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(result, arguments),
            f"llvm.masked.{what}.{self.name}.p0",
        )

    def _load(self, pointer: ir.Value) -> ir.Value:
        loaded = self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()))
        loaded.align = self.itemsize
        return loaded

    def _spread(self, number: ir.Value, vector: ir.Type | None = None) -> ir.Value:
        """The number in every lane."""
        vector = vector or self.vector
        nothing = ir.Constant(vector, ir.Undefined)
        one = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(one, nothing, ir.Constant(self._lane_numbers, None))

    def _at(self, pointer: ir.Value, step: ir.Value, index: int) -> ir.Value:
        return pointer if index == 0 else self.builder.gep(pointer, [self.builder.mul(step, _int(index))])

    def _phi(self, kind: ir.Type, value: ir.Value, block: ir.Block) -> ir.Value:
        phi = self.builder.phi(kind)
        phi.add_incoming(value, block)
        return phi


def transposed(builder: ir.IRBuilder, vectors: list[ir.Value]) -> list[ir.Value]:
    """As many vectors as they have lanes, turned: in stage s, pairs exchange every other block of s lanes."""
    square, wide = list(vectors), len(vectors)
    order = ir.VectorType(ir.IntType(32), wide)
    stage = 1
    while stage < wide:
        upper = [lane if not lane & stage else wide + lane - stage for lane in range(wide)]
        lower = [lane + stage if not lane & stage else wide + lane for lane in range(wide)]
        for i in range(wide):
            if not i & stage:
                pair = square[i], square[i + stage]
                square[i] = builder.shuffle_vector(*pair, ir.Constant(order, upper))
                square[i + stage] = builder.shuffle_vector(*pair, ir.Constant(order, lower))
        stage *= 2
    return square


def _int(value: int) -> ir.Constant:
    return ir.Constant(_INT, value)
