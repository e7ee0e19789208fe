"""The transforms of Winograd's convolution: matrices, made from points, and the loops that apply them.

F(m x m, 3 x 3) computes m x m outputs y from a tile d of (m + 2) x (m + 2) inputs and weights g of 3 x 3,
with (m + 2)^2 multiplications for 9 m^2:

    y = A^T [(G g G^T) * (B^T d B)] A

(A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016). Each is two passes, one
along an axis. Vectors lie along a row of tiles, or along the channels of weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_vectors import I64, Vectors, compiled

Matrix = list[list[Fraction]]
KERNEL = 3
"""Taps along an axis."""
POINTS = {2: ("0", "1", "-1"), 4: ("0", "3/4", "-3/4", "3/2", "-3/2")}
"""For each m, where polynomials are evaluated, besides at infinity. What is near 1 is rounded less: with 3/4
and 3/2, errors of F(4 x 4, 3 x 3) came out at a third of those of Lavin's 1 and 2 (for more on such choices
see B. Barabasz et al., "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural
Networks", ACM TOMS 46, 2020). Points in pairs of opposite sign share half of their sums."""


class Matrices(NamedTuple):
    """Of one axis: `result` is A^T (m, m + 2), `weights` G (m + 2, 3), `data` B^T (m + 2, m + 2)."""

    result: Matrix
    weights: Matrix
    data: Matrix


@lru_cache(maxsize=4)
def matrices(outputs: int) -> Matrices:
    """Those of F(outputs, 3): Toom and Cook's product of polynomials, transposed (Barabasz et al., sect. 2).

    Row i of G evaluates the weights at point i, and the last at infinity; A^T evaluates outputs likewise; row
    i of B^T has the coefficients of the polynomial that is zero at all other points.
    """
    points = [Fraction(point) for point in POINTS[outputs]]
    data = [[*_coefficients([q for q in points if q != p]), Fraction(0)] for p in points]
    scales = [math.prod(p - q for q in points if q != p) for p in points]
    weights = [[p**power / scale for power in range(KERNEL)] for p, scale in zip(points, scales, strict=True)]
    infinity = [[*[Fraction(0)] * (size - 1), Fraction(1)] for size in (outputs, KERNEL)]
    columns = [[p**power for power in range(outputs)] for p in points]
    return Matrices(
        [list(row) for row in zip(*columns, infinity[0], strict=True)],
        [*weights, infinity[1]],
        [*data, _coefficients(points)],
    )


def _turned(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def _coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Of the product of (x - root), from the constant on."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def product(vectors: Vectors, matrix: Matrix, inputs: Sequence[ir.Value]) -> list[ir.Value]:
    """Emit matrix (n, k) times k vectors: n vectors.

    A sum of two inputs that several rows have, up to a factor, is computed once.
    """
    inputs = list(inputs)
    rows = [{i: factor for i, factor in enumerate(row) if factor} for row in matrix]
    while pair := _shared_pair(rows):
        first, second, ratio = pair
        inputs.append(vectors.fma(_all(vectors, ratio), inputs[first], inputs[second]))
        for row in rows:
            if first in row and second in row and row[first] / row[second] == ratio:
                row[len(inputs) - 1] = row.pop(second)
                del row[first]
    return [_weighted_sum(vectors, row, inputs) for row in rows]


def _shared_pair(rows: list[dict[int, Fraction]]) -> tuple[int, int, Fraction] | None:
    pairs = Counter((i, j, row[i] / row[j]) for row in rows for i, j in combinations(sorted(row), 2))
    (pair, times), *_ = [*pairs.most_common(1), (None, 0)]
    return pair if times > 1 else None


def _weighted_sum(vectors: Vectors, row: dict[int, Fraction], inputs: list[ir.Value]) -> ir.Value:
    """Begins with a factor of 1, which needs no multiplication."""
    (first, factor), *others = sorted(row.items(), key=lambda term: term[1] != 1)
    total = inputs[first]
    if factor != 1:
        total = vectors.builder.fmul(_all(vectors, factor), total)
    for i, factor in others:
        total = vectors.fma(_all(vectors, factor), inputs[i], total)
    return total


def _all(vectors: Vectors, number: Fraction) -> ir.Constant:
    return ir.Constant(vectors.vector, [float(number)] * vectors.wide)


def dealt(vectors: Vectors, row: Sequence[ir.Value]) -> list[ir.Value]:
    """A row of numbers dealt out in turn: vector j has every n-th from the j-th on, for n vectors, 2^i."""
    if len(row) == 1:
        return list(row)
    wide = vectors.wide
    halves = [
        dealt(vectors, [
            vectors.shuffled(one, two, [2 * i + odd for i in range(wide)])
            for one, two in zip(row[::2], row[1::2], strict=True)
        ])
        for odd in range(2)
    ]  # fmt: skip
    return [vector for pair in zip(*halves, strict=True) for vector in pair]


def collected(vectors: Vectors, hands: Sequence[ir.Value]) -> list[ir.Value]:
    """The row that `dealt` has dealt out."""
    if len(hands) == 1:
        return list(hands)
    wide = vectors.wide
    halves = collected(vectors, hands[::2]), collected(vectors, hands[1::2])
    return [
        vectors.shuffled(even, odd, [(first + i) // 2 + (first + i) % 2 * wide for i in range(wide)])
        for even, odd in zip(*halves, strict=True)
        for first in (0, wide)
    ]


def data_transform(outputs: int, dtype: np.dtype) -> int:
    """The address of what transforms tiles side by side of one channel: V[i, j] = B^T d B."""
    return _plane_transform("data", outputs, dtype)


def gradient_transform(outputs: int, dtype: np.dtype) -> int:
    """The same of the gradient dy of one filter: A dy A^T, where tiles do not overlap."""
    return _plane_transform("gradient", outputs, dtype)


@lru_cache(maxsize=8)
def _plane_transform(name: Literal["data", "gradient"], outputs: int, dtype: np.dtype) -> int:
    """The address of a transform of tiles side by side.

    Its arguments: the address of the channel's plane (H, W); row and column of the first tile's first input,
    either of which may lie outside, where inputs are zero; H; W; the number of tiles; the address of scratch,
    (m + 2, pitch) numbers; pitch, to hold a vector more than whole vectors of tiles; the address of V[0, 0],
    and how far it is from there to the next (i, j), in elements. V gets whole vectors. Two are not used.
    """
    of = matrices(outputs)
    matrix = of.data if name == "data" else _turned(of.result)
    overlap = len(matrix[0]) - outputs

    def emit(
        builder: ir.IRBuilder, plane, row, col, H, W, tiles, scratch, pitch, v, v_step, *_: ir.Value
    ) -> None:
        here = Vectors(builder, dtype)
        wide = here.wide

        def place(base: ir.Value, *elements: ir.Value) -> ir.Value:
            for count in elements:
                base = builder.add(base, builder.mul(count, _int(here.size)))
            return base

        pixels = builder.add(builder.mul(tiles, _int(outputs)), _int(overlap))
        with cgutils.for_range(builder, _chunks(builder, pixels, wide)) as chunk:
            first = builder.mul(chunk.index, _int(wide))
            left = builder.add(col, first)
            inside = builder.and_(
                here.below(builder.sub(W, left)), builder.not_(here.below(builder.neg(left)))
            )
            column = []
            for i in range(outputs + overlap):
                down = builder.add(row, _int(i))
                there = builder.icmp_unsigned("<", down, H)
                mask = builder.select(there, inside, ir.Constant(inside.type, None))
                column.append(here.load(place(plane, builder.mul(down, W), left), mask))
            for i, vector in enumerate(product(here, matrix, column)):
                here.store(vector, place(scratch, builder.mul(pitch, _int(i)), first))
        with cgutils.for_range(builder, _int(len(matrix))) as line:
            base = place(scratch, builder.mul(pitch, line.index))
            to = place(v, builder.mul(builder.mul(v_step, _int(len(matrix))), line.index))
            with cgutils.for_range(builder, _chunks(builder, tiles, wide)) as chunk:
                first = builder.mul(chunk.index, _int(wide))
                at = place(base, builder.mul(first, _int(outputs)))
                # As they were stored: what straddles two vectors would wait for these to leave for the cache.
                row = [here.load(place(at, _int(n * wide))) for n in range(outputs + bool(overlap))]
                hands = dealt(here, row[:outputs])
                shifted = [
                    here.shuffled(hands[j], row[outputs], [*range(1, wide), wide + j]) for j in range(overlap)
                ]
                for j, vector in enumerate(product(here, matrix, [*hands, *shifted])):
                    here.store(vector, place(to, builder.mul(v_step, _int(j)), first))

    return compiled(f"{name}_{outputs}_{dtype.name}", emit)


@lru_cache(maxsize=8)
def weight_transform(outputs: int, turned: bool, dtype: np.dtype) -> int:
    """The address of what transforms weights of one filter and a vector of channels: U[i, j] = G g G^T.

    Its arguments: the address of the first channel, how far it is from there to the next, how many there are,
    the address of U[0, 0], and how far it is from there to the next (i, j), all in elements. U is zero beyond
    the channels. Seven are not used. `turned`: by 180 degrees.
    """
    matrix = matrices(outputs).weights
    order = -1 if turned else 1

    def emit(builder: ir.IRBuilder, w, channel_step, channels, u, u_step, *_: ir.Value) -> None:
        here = Vectors(builder, dtype)
        taps = _turned_rows(here, w, channel_step, channels)
        step = builder.mul(u_step, _int(here.size))
        for n, vector in enumerate(_both_ways(here, matrix, taps[::order])):
            here.store(vector, builder.add(u, builder.mul(step, _int(n))))

    return compiled(f"weights_{outputs}_{turned:d}_{dtype.name}", emit)


def _turned_rows(vectors: Vectors, address: ir.Value, step: ir.Value, rows: ir.Value) -> list[ir.Value]:
    """For each tap a vector of it in as many channels, zero beyond `rows`: faster than a gather for each."""
    builder, taps = vectors.builder, KERNEL * KERNEL
    found = []
    for first in range(0, taps, vectors.wide):
        square = []
        for lane in range(vectors.wide):
            there = builder.icmp_signed("<", _int(lane), rows)
            mask = vectors.below(builder.select(there, _int(taps - first), _int(0)))
            offset = builder.add(builder.mul(step, _int(lane)), _int(first))
            square.append(vectors.load(builder.add(address, builder.mul(offset, _int(vectors.size))), mask))
        found += vectors.transposed(square)
    return found[:taps]


@lru_cache(maxsize=4)
def weight_gradient_transform(outputs: int, dtype: np.dtype) -> int:
    """The address of what transforms gradients dU of one filter and a vector of channels back: G^T dU G.

    Its arguments: the address of dU[0, 0], how far it is from there to the next (i, j), the address of the
    first channel's first tap, and the number of channels. Eight are not used.
    """
    matrix = _turned(matrices(outputs).weights)
    positions = (outputs + KERNEL - 1) ** 2

    def emit(builder: ir.IRBuilder, du, du_step, dw, channels, *_: ir.Value) -> None:
        here = Vectors(builder, dtype)
        step = builder.mul(du_step, _int(here.size))
        square = [here.load(builder.add(du, builder.mul(step, _int(n)))) for n in range(positions)]
        taps = _both_ways(here, matrix, square)
        for first in range(0, len(taps), here.wide):
            some = taps[first : first + here.wide]
            rest = [ir.Constant(here.vector, ir.Undefined)] * (here.wide - len(some))
            for lane, row in enumerate(here.transposed([*some, *rest])):
                there = builder.icmp_signed("<", _int(lane), channels)
                mask = here.below(builder.select(there, _int(len(some)), _int(0)))
                offset = (lane * len(taps) + first) * here.size
                here.store(row, builder.add(dw, _int(offset)), mask)

    return compiled(f"weight_gradient_{outputs}_{dtype.name}", emit)


@lru_cache(maxsize=4)
def result_transform(outputs: int, dtype: np.dtype) -> int:
    """The address of what transforms tiles side by side of one filter back: y = A^T M A, plus the bias.

    Its arguments: the address of M[0, 0], how far it is from there to the next (i, j), the address of the
    first output, from a row of outputs to the next, how many rows and columns are wanted, and the address of
    the bias. All in elements. Five are not used.
    """
    matrix = matrices(outputs).result
    size = outputs + KERNEL - 1

    def emit(builder: ir.IRBuilder, m, m_step, out, out_step, rows, cols, bias, *_: ir.Value) -> None:
        here = Vectors(builder, dtype)
        wide, unit = here.wide, _int(here.size)
        pixels = outputs * wide
        number = builder.load(builder.inttoptr(bias, here.real.as_pointer()))
        start = here.spread(number)
        with cgutils.for_range(builder, _chunks(builder, cols, pixels)) as chunk:
            at = builder.add(m, builder.mul(chunk.index, _int(wide * here.size)))
            step = builder.mul(m_step, unit)
            tile = [here.load(builder.add(at, builder.mul(step, _int(n)))) for n in range(size * size)]
            found = _both_ways(here, matrix, tile)
            first = builder.mul(chunk.index, _int(pixels))
            for i in range(outputs):
                wanted = builder.select(
                    builder.icmp_signed("<", _int(i), rows), builder.sub(cols, first), _int(0)
                )
                to = builder.add(first, builder.mul(out_step, _int(i)))
                row = [builder.fadd(value, start) for value in found[i * outputs : (i + 1) * outputs]]
                for n, vector in enumerate(collected(here, row)):
                    mask = here.below(builder.sub(wanted, _int(n * wide)))
                    place = builder.add(out, builder.mul(builder.add(to, _int(n * wide)), unit))
                    here.store(vector, place, mask)

    return compiled(f"result_{outputs}_{dtype.name}", emit)


def _both_ways(vectors: Vectors, matrix: Matrix, square: list[ir.Value]) -> list[ir.Value]:
    """matrix (n, k) times a square (k, k) of vectors times the matrix turned: (n, n), row by row."""
    size = len(matrix[0])
    columns = [product(vectors, matrix, square[j::size]) for j in range(size)]
    return [value for row in zip(*columns, strict=True) for value in product(vectors, matrix, row)]


def _chunks(builder: ir.IRBuilder, count: ir.Value, size: int) -> ir.Value:
    """count / size, rounded up."""
    return builder.sdiv(builder.add(count, _int(size - 1)), _int(size))


def _int(value: int) -> ir.Constant:
    return ir.Constant(I64, value)
