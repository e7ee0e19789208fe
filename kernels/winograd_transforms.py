"""The transforms of Winograd's convolution: matrices, made from points, and the loops that apply them.

F(m x n, R x S) computes m x n outputs y from a tile d of (m + R - 1) x (n + S - 1) inputs and weights g of
R x S, with a multiplication for each input rather than R S for each output:

    y = A^T [(G g G^T) * (B^T d B)] A

(A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016). Each is two passes, one
along an axis. Vectors lie along a row of tiles, along images, or along channels or filters.

At stride s, each s-th input from the i-th on meets each s-th weight: phase i, at stride 1. Along an axis the
outputs are sums of those of all phases, so that the matrices of the phases, side by side, are those of a tile
(C. Huang et al., "DWM: A Decomposable Winograd Method for Convolution Acceleration", AAAI 2020). For 3 taps
at stride 2, F(4, 2) and F(4, 1) multiply 9 times for 4 outputs, rather than 12 times. In dx it is the
outputs that take turns.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache, reduce
from itertools import chain, combinations
from typing import Literal, NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from kernels.tiled_vectors import Vectors, compiled, i64

Matrix = list[list[Fraction]]
POINTS = (
    ("0", "1"),
    ("0", "1", "-1"),
    ("0", "3/4", "-3/4", "3/2"),
    ("0", "3/4", "-3/4", "3/2", "-3/2"),
    ("0", "1/2", "-1/2", "1", "-1", "2"),
    ("0", "1/2", "-1/2", "1", "-1", "2", "-2"),
)
"""Where polynomials are evaluated, besides at infinity, for 3 products along an axis, for 4, and so on.

What is near 1 is rounded less: with 3/4 and 3/2, errors of F(4 x 4, 3 x 3) came out at a third of those of
Lavin's 1 and 2 (for more on such choices see B. Barabasz et al., "Error Analysis and Improving the Accuracy
of Winograd Convolution for Deep Neural Networks", ACM TOMS 46, 2020). Points in pairs of opposite sign share
half of their sums."""
TAPS = range(2, 6)
"""Of a kernel, along an axis: with more, errors come near to what the backend promises."""
TILES_AHEAD = 64
"""How far off the tiles are whose inputs are asked for: the next block's, in the same plane."""


class Matrices(NamedTuple):
    """Of n products of an axis: `result` A^T (outputs, n), `weights` G (n, taps), `data` B^T (n, inputs)."""

    result: Matrix
    weights: Matrix
    data: Matrix


@dataclass(frozen=True)
class Axis:
    """One axis of a tile: F(outputs, taps), at a stride no longer than the kernel."""

    outputs: int
    taps: int
    stride: int = 1
    closed: bool = False
    """Whether it is the axis' only tile, and windows that are not whole lie in padding: see `is_closed`."""

    @property
    def step(self) -> int:
        """Inputs from a tile to the next."""
        return self.outputs * self.stride

    @property
    def overlap(self) -> int:
        """Inputs that a tile shares with the next."""
        return self.taps - self.stride

    @property
    def inputs(self) -> int:
        """Of a tile."""
        return self.step + self.overlap

    @property
    def phases(self) -> list[int]:
        """The taps of each phase: each s-th input meets each s-th tap, at stride 1."""
        return taps_of_phases(self.taps, self.stride)

    @property
    def matrices(self) -> Matrices:
        """Those of its phases, one after the other."""
        phases = [(closed_matrices if self.closed else matrices)(self.outputs, taps) for taps in self.phases]
        return Matrices(
            [list(chain(*rows)) for rows in zip(*(phase.result for phase in phases), strict=True)],
            [_spread(row, i, self.stride, self.taps) for i, of in enumerate(phases) for row in of.weights],
            [_spread(row, i, self.stride, self.inputs) for i, of in enumerate(phases) for row in of.data],
        )

    @property
    def products(self) -> int:
        """Multiplications of a tile."""
        return sum(self.outputs + (0 if self.closed else taps - 1) for taps in self.phases)

    def is_closed(self, before: int, size: int) -> bool:
        """Whether a tile alone would be: each phase's first and last inputs, one less than taps, are padding.

        That is before `size` inputs, as much as `before`, and behind them.
        """
        ends = (
            i + self.stride * n
            for i, taps in enumerate(self.phases)
            for n in [*range(taps - 1), *range(self.outputs, self.outputs + taps - 1)]
        )
        return all(not before <= place < before + size for place in ends)

    def __str__(self) -> str:
        return f"{self.outputs}_{self.taps}_{self.stride}_{self.closed:d}"


class DxPhase(NamedTuple):
    """A phase of dx: output s t + i is the sum over its taps a of weight s a + i times dy[t - a].

    At stride 1, that is, a correlation with its weights turned. Outputs of all phases take turns.
    """

    numbers: range
    """Of its outputs in a tile: s t + i."""
    taps: int
    stride: int

    @property
    def begin(self) -> int:
        """Its first input."""
        return self.numbers[0] // self.stride - (self.taps - 1)

    @property
    def end(self) -> int:
        """Behind its last."""
        return self.numbers[-1] // self.stride + 1

    @property
    def products(self) -> int:
        """Multiplications of a tile."""
        return len(self.numbers) + self.taps - 1


@dataclass(frozen=True)
class DxAxis:
    """One axis of a tile of dx at a stride: its phases are made together, from the same inputs dy."""

    outputs: int
    """A multiple of the stride, unless it is the axis' only tile."""
    taps: int
    stride: int
    phase: int
    """Of the first output: the padding before x, modulo the stride."""

    @property
    def step(self) -> int:
        """Inputs from a tile to the next."""
        return self.outputs // self.stride

    @property
    def overlap(self) -> int:
        """Inputs that a tile shares with the next."""
        return self.inputs - self.step

    @property
    def first(self) -> int:
        """The first input of a tile that begins with outputs s t + `phase`, counted from t."""
        return min(part.begin for part in self.phases)

    @property
    def inputs(self) -> int:
        """Of a tile."""
        return max(part.end for part in self.phases) - self.first

    @property
    def phases(self) -> list[DxPhase]:
        """In the order of their weights."""
        numbers = range(self.phase, self.phase + self.outputs)
        return [
            DxPhase(numbers[(i - self.phase) % self.stride :: self.stride], taps, self.stride)
            for i, taps in enumerate(taps_of_phases(self.taps, self.stride))
        ]

    @property
    def matrices(self) -> Matrices:
        """Those of its phases, one after the other: an output has products of its own phase alone."""
        found = [(part, matrices(len(part.numbers), part.taps)) for part in self.phases]
        result: dict[int, list[Fraction]] = {}
        before = 0
        for part, of in found:
            for number, row in zip(part.numbers, of.result, strict=True):
                result[number] = _spread(row, before, 1, self.products)
            before += part.products
        return Matrices(
            [result[number] for number in sorted(result)],
            [
                _spread(row[::-1], i, self.stride, self.taps)
                for i, (_, of) in enumerate(found)
                for row in of.weights
            ],
            [_spread(row, part.begin - self.first, 1, self.inputs) for part, of in found for row in of.data],
        )

    @property
    def products(self) -> int:
        """Multiplications of a tile."""
        return sum(part.products for part in self.phases)

    def __str__(self) -> str:
        return f"dx_{self.outputs}_{self.taps}_{self.stride}_{self.phase}"


class Tile(NamedTuple):
    """F(outputs down x outputs across, R x S)."""

    down: Axis | DxAxis
    across: Axis | DxAxis

    @property
    def positions(self) -> int:
        """Products in all."""
        return self.down.products * self.across.products

    @property
    def inputs(self) -> tuple[int, int]:
        """Down and across."""
        return self.down.inputs, self.across.inputs

    @property
    def steps(self) -> tuple[int, int]:
        """Inputs from a tile to the next."""
        return self.down.step, self.across.step

    def pitch(self, tiles: int, wide: int) -> int:
        """Numbers in a row of inputs, as vectors hold it, for so many tiles across."""
        return (-(-tiles // wide) * self.across.step - -self.across.overlap // wide) * wide

    @property
    def both(self) -> tuple[Matrices, Matrices]:
        """Down and across."""
        return self.down.matrices, self.across.matrices

    def __str__(self) -> str:
        return f"{self.down}_{self.across}"


def taps_of_phases(taps: int, stride: int) -> list[int]:
    """How many taps of a kernel each phase has."""
    return [-(-(taps - i) // stride) for i in range(stride)]


@lru_cache(maxsize=16)
def matrices(outputs: int, taps: int) -> Matrices:
    """Those of F(outputs, taps): Toom and Cook's product of polynomials, transposed.

    See Barabasz et al., section 2. Row i of G evaluates the weights at point i, and the last at infinity; A^T
    evaluates outputs likewise; row i of B^T has the coefficients of the polynomial that is zero at all other
    points. One tap is multiplied as it is.
    """
    if taps == 1:
        same = [[Fraction(i == j) for j in range(outputs)] for i in range(outputs)]
        return Matrices(same, [[Fraction(1)]] * outputs, same)
    points = [Fraction(point) for point in POINTS[outputs + taps - 4]]
    data = [[*_coefficients([q for q in points if q != p]), Fraction(0)] for p in points]
    scales = [math.prod(p - q for q in points if q != p) for p in points]
    weights = [[p**power / scale for power in range(taps)] for p, scale in zip(points, scales, strict=True)]
    infinity = [[*[Fraction(0)] * (size - 1), Fraction(1)] for size in (outputs, taps)]
    columns = [[p**power for power in range(outputs)] for p in points]
    return Matrices(
        [list(row) for row in zip(*columns, infinity[0], strict=True)],
        [*weights, infinity[1]],
        [*data, _coefficients(points)],
    )


@lru_cache(maxsize=16)
def closed_matrices(outputs: int, taps: int) -> Matrices:
    """Those of a correlation of inputs between taps - 1 zeros on either side: as many products as outputs.

    It is the product of polynomials itself, whose transposition is F(inputs, taps).
    """
    if taps == 1:
        return matrices(outputs, taps)
    of = matrices(outputs - taps + 1, taps)
    zeros = [Fraction(0)] * (taps - 1)
    data = [[*zeros, *row, *zeros] for row in _turned(of.result)]
    return Matrices(_turned(of.data), [row[::-1] for row in of.weights], data)


def _spread(row: Sequence[Fraction], first: int, step: int, size: int) -> list[Fraction]:
    """The numbers of a row, a `step` from each other from `first` on, among zeros."""
    spread = [Fraction(0)] * size
    spread[first : first + len(row) * step : step] = row
    return spread


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


@lru_cache(maxsize=256)
def data_transform(tile: Tile, dtype: np.dtype) -> int:
    """The address of what transforms tiles side by side of one channel: V[i, j] = B^T d B.

    Its arguments: the address of the channel's plane (H, W); row and column of the first tile's first input,
    either of which may lie outside, where inputs are zero; H; W; the number of tiles; the address of scratch,
    (height, pitch) numbers; pitch; the address of V[0, 0], and how far it is from there to the next (i, j),
    in elements. V gets whole vectors. Two are not used.
    """
    down, across = (of.data for of in tile.both)
    step_down, step = (axis.step for axis in tile)
    overlap = tile.across.overlap

    def emit(
        builder: ir.IRBuilder, plane, row, col, H, W, tiles, scratch, pitch, v, v_step, *_: ir.Value
    ) -> None:
        here = Vectors(builder, dtype)
        wide = here.wide
        pixels = builder.add(builder.mul(tiles, i64(step)), i64(overlap))
        with cgutils.for_range(builder, chunks(builder, pixels, wide)) as chunk:
            first = builder.mul(chunk.index, i64(wide))
            left = builder.add(col, first)
            inside = here.inside(left, W)
            column = []
            for i in range(len(down[0])):
                line = builder.add(row, i64(i))
                there = builder.icmp_unsigned("<", line, H)
                mask = builder.select(there, inside, ir.Constant(inside.type, None))
                place = here.at(plane, builder.mul(line, W), left)
                column.append(here.load(place, mask))
                if i >= len(down[0]) - step_down:  # the rows above were asked for with tiles above
                    ahead = here.at(place, i64(TILES_AHEAD * step_down * step))
                    here.fetch(here.pointer(ahead), to_write=False)
            for i, vector in enumerate(product(here, down, column)):
                here.store(vector, here.at(scratch, builder.mul(pitch, i64(i)), first))
        with cgutils.for_range(builder, i64(len(down))) as lines:
            base = here.at(scratch, builder.mul(pitch, lines.index))
            to = here.at(v, builder.mul(builder.mul(v_step, i64(len(across))), lines.index))
            with cgutils.for_range(builder, chunks(builder, tiles, wide)) as chunk:
                first = builder.mul(chunk.index, i64(wide))
                at = here.at(base, builder.mul(first, i64(step)))
                # As they were stored: what straddles two vectors would wait for these to leave for the cache.
                row = [here.load(here.at(at, i64(n * wide))) for n in range(step - (-overlap // wide))]
                hands = here.dealt(row[:step])
                for j in range(overlap):  # what the next tiles begin with
                    further, hand = 1 + j // step, j % step
                    beyond = [wide + hand + i * step for i in range(further)]
                    lanes = [*range(further, wide), *beyond]
                    hands.append(here.picked([hands[hand], *row[step:]], lanes))
                for j, vector in enumerate(product(here, across, hands)):
                    here.store(vector, here.at(to, builder.mul(v_step, i64(j)), first))

    return compiled(f"data_{tile}_{dtype.name}", emit)


@lru_cache(maxsize=256)
def weight_transform(tile: Tile, turned: bool, dtype: np.dtype) -> int:
    """The address of what transforms weights of one filter and a vector of channels: U[i, j] = G g G^T.

    Its arguments: the address of the first channel, how far it is from there to the next, how many there are,
    the address of U[0, 0], and how far it is from there to the next (i, j), all in elements. U is zero beyond
    the channels. Seven are not used. `turned`: by 180 degrees.
    """

    def emit(builder: ir.IRBuilder, w, channel_step, channels, u, u_step, *_: ir.Value) -> None:
        here = Vectors(builder, dtype)
        for n, vector in enumerate(_transformed_weights(here, tile, turned, w, channel_step, channels)):
            here.store(vector, here.at(u, builder.mul(u_step, i64(n))))

    return compiled(f"weights_{tile}_{turned:d}_{dtype.name}", emit)


def _transformed_weights(
    vectors: Vectors, tile: Tile, turned: bool, w: ir.Value, channel_step: ir.Value, channels: ir.Value
) -> list[ir.Value]:
    """G g G^T of one filter, row by row, each number for a vector of channels."""
    down, across = (of.weights for of in tile.both)
    taps = _turned_rows(vectors, tile.down.taps * tile.across.taps, w, channel_step, channels)
    return _both_ways(vectors, down, across, taps[:: -1 if turned else 1])


def _store_by_lanes(
    vectors: Vectors,
    numbers: Sequence[ir.Value],
    wanted: ir.Value,
    place: ir.Value,
    step: ir.Value,
) -> None:
    """Store side by side what vectors hold in each of their first lanes: one `step` behind the other."""
    for first in range(0, len(numbers), vectors.wide):
        some = numbers[first : first + vectors.wide]
        rest = [ir.Constant(vectors.vector, ir.Undefined)] * (vectors.wide - len(some))
        whole = vectors.below(i64(len(some)))
        for lane, row in enumerate(vectors.transposed([*some, *rest])):
            there = vectors.builder.icmp_signed("<", i64(lane), wanted)
            mask = vectors.builder.select(there, whole, ir.Constant(whole.type, None))
            at = vectors.at(place, vectors.builder.mul(step, i64(lane)), i64(first))
            vectors.store(row, at, mask)


def _turned_rows(
    vectors: Vectors, taps: int, address: ir.Value, step: ir.Value, rows: ir.Value
) -> list[ir.Value]:
    """For each tap a vector of it in as many channels, zero beyond `rows`: faster than a gather for each."""
    builder = vectors.builder
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


@lru_cache(maxsize=256)
def weight_gradient_transform(tile: Tile, dtype: np.dtype) -> int:
    """The address of what transforms gradients dU back: G^T dU G, of a vector of channels, or of filters.

    Its arguments: the address of dU[0, 0], how far it is from there to the next (i, j), the address of the
    first lane's first tap, from there to the next lane's, and how many lanes are wanted. Seven are not used.
    """
    down, across = (_turned(of.weights) for of in tile.both)

    def emit(builder: ir.IRBuilder, du, du_step, dw, dw_step, wanted, *_: ir.Value) -> None:
        here = Vectors(builder, dtype)
        square = [here.load(here.at(du, builder.mul(du_step, i64(n)))) for n in range(tile.positions)]
        taps = _both_ways(here, down, across, square)
        _store_by_lanes(here, taps, wanted, dw, dw_step)

    return compiled(f"weight_gradient_{tile}_{dtype.name}", emit)


def pixels_transform(tile: Tile, dtype: np.dtype) -> int:
    """The address of what transforms tiles side by side whose pixels are vectors, of images or of channels.

    Its arguments: the address of the first tile's first pixel, from a row to the next, the number of tiles,
    the address of V[0, 0], how far it is from there to the next tile's, and to the next (i, j), in elements;
    for gradients, the address of a vector that the sum of all is added to. Five are not used.
    """
    return _pixels_transform("data", tile, dtype)


def gradient_transform(tile: Tile, dtype: np.dtype) -> int:
    """The same of the gradient dy: A dy A^T, where tiles do not overlap."""
    return _pixels_transform("gradient", tile, dtype)


@lru_cache(maxsize=256)
def _pixels_transform(name: Literal["data", "gradient"], tile: Tile, dtype: np.dtype) -> int:
    down, across = (of.data if name == "data" else _turned(of.result) for of in tile.both)
    step = tile.across.step if name == "data" else tile.across.outputs

    def emit(
        builder: ir.IRBuilder, source, row_step, tiles, v, tile_step, step_of_v, sums, *_: ir.Value
    ) -> None:
        here = Vectors(builder, dtype)
        total = cgutils.alloca_once_value(builder, ir.Constant(here.vector, None))
        with cgutils.for_range(builder, tiles) as number:
            at = here.at(source, builder.mul(number.index, i64(step * here.wide)))
            to = here.at(v, builder.mul(number.index, tile_step))
            square = [
                here.load(here.at(at, builder.mul(row_step, i64(i)), i64(j * here.wide)))
                for i in range(len(down[0]))
                for j in range(len(across[0]))
            ]
            if name == "gradient":
                builder.store(reduce(builder.fadd, square, builder.load(total)), total)
            for n, vector in enumerate(_both_ways(here, down, across, square)):
                here.store(vector, here.at(to, builder.mul(step_of_v, i64(n))))
        if name == "gradient":
            here.store(builder.fadd(here.load(sums), builder.load(total)), sums)

    return compiled(f"{name}_of_pixels_{tile}_{dtype.name}", emit)


def _both_ways(vectors: Vectors, down: Matrix, across: Matrix, square: list[ir.Value]) -> list[ir.Value]:
    """down (a, b) times vectors (b, d), row by row, times across (c, d) turned: (a, c), row by row."""
    width = len(across[0])
    columns = [product(vectors, down, square[j::width]) for j in range(width)]
    return [value for row in zip(*columns, strict=True) for value in product(vectors, across, row)]


def chunks(builder: ir.IRBuilder, count: ir.Value, size: int) -> ir.Value:
    """count / size, rounded up."""
    return builder.sdiv(builder.add(count, i64(size - 1)), i64(size))
