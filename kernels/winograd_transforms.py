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

from kernels.tiled_vectors import Vectors, compiled, i64

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
        pixels = builder.add(builder.mul(tiles, i64(outputs)), i64(overlap))
        with cgutils.for_range(builder, _chunks(builder, pixels, wide)) as chunk:
            first = builder.mul(chunk.index, i64(wide))
            left = builder.add(col, first)
            inside = builder.and_(
                here.below(builder.sub(W, left)), builder.not_(here.below(builder.neg(left)))
            )
            column = []
            for i in range(outputs + overlap):
                down = builder.add(row, i64(i))
                there = builder.icmp_unsigned("<", down, H)
                mask = builder.select(there, inside, ir.Constant(inside.type, None))
                column.append(here.load(here.at(plane, builder.mul(down, W), left), mask))
            for i, vector in enumerate(product(here, matrix, column)):
                here.store(vector, here.at(scratch, builder.mul(pitch, i64(i)), first))
        with cgutils.for_range(builder, i64(len(matrix))) as line:
            base = here.at(scratch, builder.mul(pitch, line.index))
            to = here.at(v, builder.mul(builder.mul(v_step, i64(len(matrix))), line.index))
            with cgutils.for_range(builder, _chunks(builder, tiles, wide)) as chunk:
                first = builder.mul(chunk.index, i64(wide))
                at = here.at(base, builder.mul(first, i64(outputs)))
                # As they were stored: what straddles two vectors would wait for these to leave for the cache.
                row = [here.load(here.at(at, i64(n * wide))) for n in range(outputs + bool(overlap))]
                hands = here.dealt(row[:outputs])
                shifted = [
                    here.shuffled(hands[j], row[outputs], [*range(1, wide), wide + j]) for j in range(overlap)
                ]
                for j, vector in enumerate(product(here, matrix, [*hands, *shifted])):
                    here.store(vector, here.at(to, builder.mul(v_step, i64(j)), first))

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
        for n, vector in enumerate(_both_ways(here, matrix, taps[::order])):
            here.store(vector, here.at(u, builder.mul(u_step, i64(n))))

    return compiled(f"weights_{outputs}_{turned:d}_{dtype.name}", emit)


def _turned_rows(vectors: Vectors, address: ir.Value, step: ir.Value, rows: ir.Value) -> list[ir.Value]:
    """For each tap a vector of it in as many channels, zero beyond `rows`: faster than a gather for each."""
    builder, taps = vectors.builder, KERNEL * KERNEL
    found = []
    for first in range(0, taps, vectors.wide):
        square = []
        for lane in range(vectors.wide):
            there = builder.icmp_signed("<", i64(lane), rows)
            mask = vectors.below(builder.select(there, i64(taps - first), i64(0)))
            place = vectors.at(address, builder.mul(step, i64(lane)), i64(first))
            square.append(vectors.load(place, mask))
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
        square = [here.load(here.at(du, builder.mul(du_step, i64(n)))) for n in range(positions)]
        taps = _both_ways(here, matrix, square)
        for first in range(0, len(taps), here.wide):
            some = taps[first : first + here.wide]
            rest = [ir.Constant(here.vector, ir.Undefined)] * (here.wide - len(some))
            for lane, row in enumerate(here.transposed([*some, *rest])):
                there = builder.icmp_signed("<", i64(lane), channels)
                mask = here.below(builder.select(there, i64(len(some)), i64(0)))
                here.store(row, here.at(dw, i64(lane * len(taps) + first)), mask)

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
        wide, pixels = here.wide, outputs * here.wide
        number = builder.load(builder.inttoptr(bias, here.real.as_pointer()))
        start = here.spread(number)
        with cgutils.for_range(builder, _chunks(builder, cols, pixels)) as chunk:
            at = here.at(m, builder.mul(chunk.index, i64(wide)))
            tile = [here.load(here.at(at, builder.mul(m_step, i64(n)))) for n in range(size * size)]
            found = _both_ways(here, matrix, tile)
            first = builder.mul(chunk.index, i64(pixels))
            for i in range(outputs):
                wanted = builder.select(
                    builder.icmp_signed("<", i64(i), rows), builder.sub(cols, first), i64(0)
                )
                to = builder.add(first, builder.mul(out_step, i64(i)))
                row = [builder.fadd(value, start) for value in found[i * outputs : (i + 1) * outputs]]
                for n, vector in enumerate(here.alternating(row)):
                    mask = here.below(builder.sub(wanted, i64(n * wide)))
                    here.store(vector, here.at(out, to, i64(n * wide)), mask)

    return compiled(f"result_{outputs}_{dtype.name}", emit)


def _both_ways(vectors: Vectors, matrix: Matrix, square: list[ir.Value]) -> list[ir.Value]:
    """matrix (n, k) times a square (k, k) of vectors times the matrix turned: (n, n), row by row."""
    size = len(matrix[0])
    columns = [product(vectors, matrix, square[j::size]) for j in range(size)]
    return [value for row in zip(*columns, strict=True) for value in product(vectors, matrix, row)]


def _chunks(builder: ir.IRBuilder, count: ir.Value, size: int) -> ir.Value:
    """count / size, rounded up."""
    return builder.sdiv(builder.add(count, i64(size - 1)), i64(size))
