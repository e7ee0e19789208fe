"""Register tiles: the innermost loop of the `tiled` backend, emitted for the machine's vectors.

A tile holds `rows` x `cols` numbers by `down` x `along` vectors of sums in registers, and adds outer
products:

    sum[r, c, d, a] += s[at + r * row_step + c * apart] * v[there * step + d * down_step + a * lanes : ...]

for at, there in a table. Every number is read once for all vectors and every vector once for all numbers,
which is what keeps the multipliers busy (K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34, 2008). The table saves copying images into matrices (M. Dukhan, "The Indirect
Convolution Algorithm", 2019).

A tile is emitted with one `fma` for each vector of sums, as a function of its own (see `tiled_vectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from llvmlite import ir

from kernels.tiled_vectors import I64, Vectors, compiled, i64, vector_bits

ARGUMENTS = (
    "s", "row_step", "v", "down_step", "table", "step", "count",
    "out", "out_step", "out_down", "valid", "start",
)  # fmt: skip
"""Of a tile, all intp. `s`, `v`, `table` and `out` are addresses; the table holds `count` pairs of intp, in
elements. Sums of number i go to out[i * out_step + d * out_down + (a * lanes + l) * out_apart], of all lanes
l of the vectors a the first `valid`. `start` is the address of what each number's sums begin at, or 0 to add
to what is in `out`: at the end, as sums of shorter sums are rounded less than long ones.

A `turned` tile is stored the other way round: number (r, c) of lane l goes to
out[(a * lanes + l) * out_step + r * out_down + c * out_apart], for the first `valid` of all lanes. `start` is
the address of what each lane's sums begin at.

Tiles with one row of vectors may do more, with what lies at the address `out_down`: one that `packs` stores
its vectors there, term by term; one that `asks` asks, with each term, for a line of the cache, each time
`down_step` elements further on. One that is `far` from its outputs asks for a line of them with each term,
and not for all when it begins: the CPU keeps track of few at a time."""
_AHEAD = 16
"""So many terms later a tile that packs needs what it asks for."""
WORTH_A_LAUNCH = 4
"""Tiles do so many operations in the time of one of the loops that `jit` has in mind."""
_SCATTERED = 4
"""Outputs further apart than this are scattered, one by one, since vectors that hold some would hold few."""


class Shape(NamedTuple):
    """Numbers (rows x cols) by vectors (down x along) of a tile, and whether it is turned."""

    rows: int
    cols: int
    down: int
    along: int
    apart: int = 1
    """Elements from a number to the next one of its row."""
    turned: bool = False
    out_apart: int = 1
    """Elements from an output to the next one; only where there is a `start` can it be more than 1."""
    packs: bool = False
    asks: bool = False
    far: bool = False

    @property
    def sums(self) -> int:
        """Vectors of sums: so many registers."""
        return self.rows * self.cols * self.down * self.along


def registers() -> int:
    """Vector registers that sums may take; four are left for what they are made of."""
    return 28 if vector_bits() == 512 else 12


def most_along() -> int:
    """Vectors side by side, of a tile with room for several numbers."""
    return 4 if registers() > 12 else 2


@lru_cache(maxsize=256)
def tile(shape: Shape, dtype: np.dtype) -> int:
    """The address of the compiled tile."""

    def emit(builder: ir.IRBuilder, *arguments: ir.Value) -> None:
        emitter = _Emitter(builder, shape, dtype)
        emitter.emit(**dict(zip(ARGUMENTS, arguments, strict=True)))

    return compiled(f"tile_{'_'.join(map(str, map(int, shape)))}_{dtype.name}", emit)


def add_products(
    here: Vectors, shape: Shape, sums: Sequence[ir.Value], s: ir.Value, row_step: ir.Value,
    vectors: Sequence[ir.Value],
) -> list[ir.Value]:  # fmt: skip
    """Emit one term of a tile: the sums, and the products of the numbers at the pointer `s` and vectors."""
    builder = here.builder
    added: list[ir.Value] = []
    for row in range(shape.rows):
        numbers = _at(builder, s, row_step, row)
        if len(vectors) == 1:
            # Each number is read by the multiplication itself, which is one operation to the CPU only if its
            # address is a register and a constant.
            numbers = here.opaque(numbers)
        for col in range(shape.cols):
            number = builder.load(builder.gep(numbers, [i64(col * shape.apart)]))
            spread = here.spread(number)
            place = len(added)
            added += [here.fma(spread, vector, sums[place + i]) for i, vector in enumerate(vectors)]
            if 1 < len(vectors) < registers() + 4 - shape.sums:  # and a register is left for a number
                s, *added[place:] = here.in_step(s, *added[place:])
                numbers = _at(builder, s, row_step, row)
    return added


def _at(builder: ir.IRBuilder, pointer: ir.Value, step: ir.Value, index: int) -> ir.Value:
    return pointer if index == 0 else builder.gep(pointer, [builder.mul(step, i64(index))])


class _Emitter:
    """Emits one tile into `builder`."""

    def __init__(self, builder: ir.IRBuilder, shape: Shape, dtype: np.dtype) -> None:
        self.builder = builder
        self.shape = shape
        self.vectors = Vectors(builder, dtype)
        self.wide = self.vectors.wide

    def emit(self, *, s, row_step, v, down_step, table, step, count, out, out_step, out_down, valid,
             start) -> None:  # fmt: skip
        builder, shape = self.builder, self.shape
        numbers = self.vectors.real.as_pointer()
        s, v, out, start = (builder.inttoptr(each, numbers) for each in (s, v, out, start))
        table = builder.inttoptr(table, I64.as_pointer())
        sums = self._lane_beginnings(start) if shape.turned else self._beginnings(start)
        if shape.out_apart == 1 and not shape.far:
            # While it computes: an output that is far away takes as long to fetch as a hundred products.
            for target in self._targets(out, out_step, out_down, valid):
                self.vectors.fetch(target, to_write=True)
        before = builder.block
        loop, done = builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.cbranch(builder.icmp_signed(">", count, i64(0)), loop, done)
        builder.position_at_end(loop)
        t = self._phi(i64(0), before)
        running = [self._phi(each, before) for each in sums]
        at, there = (
            builder.load(builder.gep(table, [builder.add(builder.mul(t, i64(2)), i64(i))])) for i in range(2)
        )
        there = builder.mul(there, step)
        vectors = self._vectors(builder.gep(v, [there]), down_step)
        if shape.packs:
            ahead = builder.add(there, builder.mul(step, i64(_AHEAD)))
            self._pack(vectors, out_down, t, builder.gep(v, [ahead]))
        if shape.asks:
            wanted = self.vectors.at(out_down, builder.mul(t, down_step))
            self.vectors.fetch(self.vectors.pointer(wanted), to_write=False)
        if shape.far:
            self._ask_for_output(t, out, out_step)
        added = add_products(self.vectors, shape, running, builder.gep(s, [at]), row_step, vectors)
        # Who knows how often it runs unrolls it, as LLVM does for Zen, and then has too few registers.
        following = self.vectors.opaque(builder.add(t, i64(1)))
        t.add_incoming(following, loop)
        for phi, value in zip(running, added, strict=True):
            phi.add_incoming(value, loop)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
        builder.position_at_end(done)
        finished = []
        for first, last in zip(sums, added, strict=True):
            phi = self._phi(first, before)
            phi.add_incoming(last, loop)
            finished.append(phi)
        if shape.turned:
            self._store_turned(finished, out, out_step, out_down, valid)
        else:
            places = list(self._places(out, out_step, out_down, valid))
            for value, (place, count) in zip(self._in_all(finished, places, start), places, strict=True):
                self._store(value, 0, self.wide, count, place)

    def _vectors(self, v, down_step) -> list[ir.Value]:
        return [
            self.vectors.load(self.builder.gep(_at(self.builder, v, down_step, d), [i64(a * self.wide)]))
            for d in range(self.shape.down)
            for a in range(self.shape.along)
        ]

    def _pack(self, vectors, packed, t, ahead) -> None:
        """Store the vectors of term t, and ask for later ones."""
        place = self.vectors.at(packed, self.builder.mul(t, i64(len(vectors) * self.wide)))
        for a, vector in enumerate(vectors):
            self.vectors.store(vector, self.vectors.at(place, i64(a * self.wide)))
            # By its last number: what is before, if vectors lie across lines, the panel before has read.
            self.vectors.fetch(self.builder.gep(ahead, [i64((a + 1) * self.wide - 1)]), to_write=False)

    def _ask_for_output(self, t, out, out_step) -> None:
        """For the t-th line of the outputs."""
        builder, along, last = self.builder, i64(self.shape.along), i64(self.shape.sums - 1)
        n = builder.select(builder.icmp_signed("<", t, last), t, last)
        row, vector = builder.udiv(n, along), builder.urem(n, along)
        place = builder.add(builder.mul(row, out_step), builder.mul(vector, i64(self.wide)))
        self.vectors.fetch(builder.gep(out, [place]), to_write=True)

    def _beginnings(self, start) -> list[ir.Value]:
        """What the sums begin at: a number for each row of them, or zero."""
        if self.shape.out_apart > 1:
            return self._splats(start)
        nothing = [ir.Constant(self.vectors.vector, [0.0] * self.wide)] * self.shape.sums
        given = self.builder.icmp_signed("!=", self.builder.ptrtoint(start, I64), i64(0))
        return self._or_where(given, nothing, lambda: self._splats(start))

    def _in_all(self, sums: list[ir.Value], places, start) -> list[ir.Value]:
        """The sums, and what is in `out` where they began at zero."""
        if self.shape.out_apart > 1:
            return sums
        absent = self.builder.icmp_signed("==", self.builder.ptrtoint(start, I64), i64(0))
        return self._or_where(absent, sums, lambda: self._added_to(sums, places))

    def _added_to(self, sums, places) -> list[ir.Value]:
        old = (self.vectors.load(place, self.vectors.below(count)) for place, count in places)
        return [self.builder.fadd(value, there) for value, there in zip(sums, old, strict=True)]

    def _or_where(
        self, condition: ir.Value, values: list[ir.Value], others: Callable[[], list[ir.Value]]
    ) -> list[ir.Value]:
        """`values`, or what `others` emits, where the condition holds: a branch."""
        builder, before = self.builder, self.builder.block
        there, go = builder.append_basic_block("there"), builder.append_basic_block("go")
        builder.cbranch(condition, there, go)
        builder.position_at_end(there)
        instead = others()
        builder.branch(go)
        builder.position_at_end(go)
        chosen = []
        for value, other in zip(values, instead, strict=True):
            phi = self._phi(value, before)
            phi.add_incoming(other, there)
            chosen.append(phi)
        return chosen

    def _splats(self, start) -> list[ir.Value]:
        builder, shape = self.builder, self.shape
        splats = []
        for i in range(shape.rows * shape.cols):
            splat = self.vectors.spread(builder.load(builder.gep(start, [i64(i)])))
            splats += [splat] * (shape.down * shape.along)
        return splats

    def _lane_beginnings(self, start) -> list[ir.Value]:
        vectors = [
            self.vectors.load(self.builder.gep(start, [i64(a * self.wide)])) for a in range(self.shape.along)
        ]
        return vectors * (self.shape.rows * self.shape.cols)

    def _targets(self, out, out_step, out_down, valid) -> Iterator[ir.Value]:
        """Where outputs side by side go."""
        shape = self.shape
        if not shape.turned:
            yield from (place for place, _ in self._places(out, out_step, out_down, valid))
            return
        for lane in range(shape.along * self.wide):
            for r in range(shape.rows):
                yield _at(self.builder, _at(self.builder, out, out_step, lane), out_down, r)

    def _store_turned(self, sums, out, out_step, out_down, valid) -> None:
        builder, wide, shape = self.builder, self.wide, self.shape
        rest = [ir.Constant(self.vectors.vector, ir.Undefined)] * (wide - shape.rows * shape.cols)
        for a in range(shape.along):
            for lane, numbers in enumerate(self.vectors.transposed([*sums[a :: shape.along], *rest])):
                index = a * wide + lane
                there = builder.icmp_signed("<", i64(index), valid)
                count = builder.select(there, i64(shape.cols), i64(0))
                for r in range(shape.rows):
                    place = _at(self.builder, _at(self.builder, out, out_step, index), out_down, r)
                    self._store(numbers, r * shape.cols, shape.cols, count, place)

    def _store(self, value, first: int, most: int, count, place) -> None:
        """Store `count` lanes from `first` on, `most` at most, `out_apart` from each other."""
        builder, wide, apart = self.builder, self.wide, self.shape.out_apart
        if apart > _SCATTERED:
            moved = self._moved(value, [(first + lane) % wide for lane in range(wide)])
            address = builder.ptrtoint(place, I64)
            self.vectors.scatter(moved, address, i64(apart), self.vectors.below(count))
            return
        for begin in range(0, (most - 1) * apart + 1, wide):
            moved = self._moved(value, [(first + (begin + lane) // apart) % wide for lane in range(wide)])
            mask = self.vectors.below(builder.sub(builder.mul(count, i64(apart)), i64(begin)))
            if apart > 1:
                used = [(begin + lane) % apart == 0 for lane in range(wide)]
                mask = builder.and_(mask, ir.Constant(mask.type, used))
            self.vectors.store(moved, builder.gep(place, [i64(begin)]), mask)

    def _moved(self, value, lanes: list[int]) -> ir.Value:
        return value if lanes == list(range(self.wide)) else self.vectors.shuffled(value, value, lanes)

    def _places(self, out, out_step, out_down, valid) -> Iterator[tuple[ir.Value, ir.Value]]:
        """For each vector of sums, its pointer into `out` and the count of its valid lanes."""
        builder, shape = self.builder, self.shape
        for i in range(shape.rows * shape.cols):
            row = _at(self.builder, out, out_step, i)
            for d in range(shape.down):
                for a in range(shape.along):
                    place = builder.gep(
                        _at(self.builder, row, out_down, d), [i64(a * self.wide * shape.out_apart)]
                    )
                    yield place, builder.sub(valid, i64(a * self.wide))

    def _phi(self, value: ir.Value, block: ir.Block) -> ir.Value:
        phi = self.builder.phi(value.type)
        phi.add_incoming(value, block)
        return phi
