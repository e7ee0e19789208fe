"""What the `tiled` backend decides once for each layer: how sources are laid out, which tiles go where.

Forward and dx are both correlations of a padded source with taps: dx at stride s falls into s x s of them,
one for each phase of its pixels, on dy at stride 1 (V. Dumoulin, F. Visin, "A guide to convolution arithmetic
for deep learning", 2016). A block of output rows of one image is computed at a time, from a copy of the rows
that it reads: padded, and dealt out by position modulo the stride, so that each tap reads neighbours side by
side. The copy stays in the second-level cache while all filters use it.

Two ways to lay tiles, by which side the vectors lie along:

* *pixels*: vectors of pixels of output rows, times the weights of some filters. Results are stored where they
  belong. Good where rows are long.
* *filters*: vectors of filters, times the pixels of some rows. Wastes nothing on short rows, but weights are
  packed before and results are turned round after.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import readonly
from kernels.axis import Axis
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_tile import Shape, registers, tile
from kernels.tiled_vectors import lanes

BLOCK_BYTES = 256 * 1024
"""What the copied rows of a block may take: they are to stay in the second-level cache."""
PIXELS = 128
"""Pixels that a tile of dw should sum over before it goes back to memory."""
SLACK = 128
"""Elements that a tile may read beyond the end of a row: they land in lanes that are not stored."""


class AxisTaps(NamedTuple):
    """One axis of a correlation: output i reads inputs i * stride + offsets, and goes to i * step + first."""

    size: int
    out: int
    stride: int
    offsets: tuple[int, ...]
    taps: tuple[int, ...]
    """Which tap of the kernel each offset belongs to."""
    step: int
    first: int

    @property
    def phases(self) -> tuple[int, ...]:
        """The positions modulo the stride that are read."""
        return tuple(sorted({offset % self.stride for offset in self.offsets}))

    @property
    def least(self) -> int:
        """The first group of `stride` inputs that output 0 reads from."""
        return min(offset // self.stride for offset in self.offsets)

    @property
    def halo(self) -> int:
        """Positions in a phase beyond the outputs'."""
        return max(offset // self.stride for offset in self.offsets) - self.least

    def place(self, offset: int) -> tuple[int, int]:
        """Which of `phases`, and the position in it, output 0 reads at `offset`."""
        return self.phases.index(offset % self.stride), offset // self.stride - self.least

    def chunks(self, positions: int, wide: int) -> np.ndarray:
        """How rows of phases, `positions` long, are copied by vectors: intp (phases, vectors, 4).

        Of each vector: where its first input lies in a row of inputs (before the row, in the padding), where
        it goes to, and the masks of the inputs in it; two for stride 2, since every second number of two
        vectors is taken.
        """
        return np.array(
            [
                [self._chunk(phase, first, wide) for first in range(0, positions, wide)]
                for phase in self.phases
            ],
            np.intp,
        )

    def _chunk(self, phase: int, first: int, wide: int) -> tuple[int, int, int, int]:
        source = (first + self.least) * self.stride + phase
        bits = sum(1 << i for i in range(wide) if 0 <= source + i * self.stride < self.size)
        if self.stride != 2:
            return source, first, bits, 0
        both = sum(1 << 2 * i for i in range(wide) if bits >> i & 1)
        return source, first, both & ((1 << wide) - 1), both >> wide


def forward_taps(axis: Axis) -> AxisTaps:
    """The axis of a forward convolution."""
    offsets = tuple(r * axis.dilation - axis.before for r in range(axis.kernel))
    return AxisTaps(axis.size, axis.out, axis.stride, offsets, tuple(range(axis.kernel)), 1, 0)


def dx_taps(axis: Axis) -> Iterator[AxisTaps]:
    """The axis of dx, for each phase of its pixels: those that some window reads."""
    for phase in range(min(axis.stride, axis.size)):
        pairs = [
            ((phase + axis.before - r * axis.dilation) // axis.stride, r)
            for r in range(axis.kernel)
            if (phase + axis.before - r * axis.dilation) % axis.stride == 0
        ]
        if pairs:
            out = -(-(axis.size - phase) // axis.stride)
            offsets, taps = zip(*sorted(pairs), strict=True)
            yield AxisTaps(axis.out, out, 1, offsets, taps, axis.stride, phase)


class Geometry(NamedTuple):
    """Where the compiled loops find things; all in elements.

    They take it as a record, which costs them a pointer, where a tuple costs a conversion of each field.
    """

    groups: int
    channels: int
    filters: int
    """Of a group."""
    H: int
    W: int
    """Of the source."""
    stride_down: int
    stride_across: int
    least: int
    """The first group of `stride_down` rows that output row 0 reads from."""
    block: int
    blocks: int
    """Output rows of a block, and blocks of an image; the last one may begin before its neighbour ends."""
    copied: int
    pitch: int
    plane: int
    channel: int
    """Rows and columns of a phase, elements of it, and of all phases of a channel, in the copy."""
    OH: int
    out_height: int
    out_width: int
    first_down: int
    first_across: int
    step_down: int
    step_across: int
    """Outputs computed; the planes that they go to, from where on, and how far apart."""
    tile_rows: int
    tile_cols: int
    """Of the tile's numbers; with vectors along pixels, rows of vectors and 0."""
    scratch: int
    """Where a thread's scratch begins."""
    work: int
    """What a thread needs in all."""

    def record(self) -> np.ndarray:
        """As a structured array of one element, with these fields."""
        fields = np.dtype([(name, np.intp) for name in self._fields])
        return readonly(np.array([tuple(self)], fields))


class Plan(NamedTuple):
    """One correlation, as the compiled loops take it."""

    rows: AxisTaps
    cols: AxisTaps
    across_filters: bool
    geometry: Geometry
    record: np.ndarray
    phases_down: np.ndarray
    chunks: np.ndarray
    table: np.ndarray
    """Where the taps of output 0 lie in the copy: intp (channels * taps,)."""
    weights: np.ndarray
    """Where the same taps' weights lie, counted from the filter's first: intp (channels * taps,)."""
    filter_step: int
    """From a filter to the next in the weights."""
    in_order: bool
    """Whether the weights lie as the taps do."""
    tiles: np.ndarray
    """intp, one row a tile of a block: its first output row and column, valid lanes, a row of `addresses`."""
    panels: np.ndarray
    """intp, one row a group of filters: the first, how many, a column of `addresses`."""
    addresses: np.ndarray


@lru_cache(maxsize=1024)
def plans(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> tuple[Plan, ...]:
    """The correlations that make up forward, or dx."""
    if op == "forward":
        pairs = [(forward_taps(spec.rows), forward_taps(spec.cols))]
    else:
        pairs = [(rows, cols) for rows in dx_taps(spec.rows) for cols in dx_taps(spec.cols)]
    return tuple(_plan(rows, cols, spec, op, dtype, threads) for rows, cols in pairs)


def _plan(rows: AxisTaps, cols: AxisTaps, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Plan:
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    target = spec.OH, spec.OW
    if op == "dx":
        channels, filters = filters, channels
        target = spec.H, spec.W
    wide = lanes(dtype)
    pitch = cols.out + cols.halo
    phases = len(rows.phases) * len(cols.phases)
    block, blocks = _blocks(rows, channels * phases * pitch * dtype.itemsize, spec.N * spec.groups, threads)
    copied = block + rows.halo
    plane = copied * pitch
    sources = np.array(
        [
            (c * phases + i * len(cols.phases) + j) * plane + down * pitch + across
            for c in range(channels)
            for i, down in map(rows.place, rows.offsets)
            for j, across in map(cols.place, cols.offsets)
        ],
        np.intp,
    )
    # w is (filters, channels, R, S) to forward; to dx, its filters are the channels.
    per_filter, per_channel = spec.R * spec.S * (spec.C // spec.groups), spec.R * spec.S
    if op == "dx":
        per_filter, per_channel = per_channel, per_filter
    weights = np.array(
        [c * per_channel + r * spec.S + s for c in range(channels) for r in rows.taps for s in cols.taps],
        np.intp,
    )
    across_filters = _across_filters(cols.out, filters, wide)
    lay = _filter_tiles if across_filters else _pixel_tiles
    tiles, panels, shapes = lay(block, cols.out, filters, wide)
    copy = channels * phases * plane + SLACK
    geometry = Geometry(
        spec.groups, channels, filters, rows.size, cols.size, rows.stride, cols.stride, rows.least,
        block, blocks, copied, pitch, plane, phases * plane,
        rows.out, *target, rows.first, cols.first, rows.step, cols.step,
        tile_rows=shapes[0][0].rows if across_filters else shapes[0][0].down,
        tile_cols=shapes[0][0].cols if across_filters else 0,
        scratch=copy, work=copy + registers() * wide,
    )  # fmt: skip
    return Plan(
        rows,
        cols,
        across_filters,
        geometry,
        geometry.record(),
        readonly(np.array(rows.phases, np.intp)),
        readonly(cols.chunks(pitch, wide)),
        readonly(sources),
        readonly(weights),
        per_filter,
        op == "forward",
        readonly(np.array(tiles, np.intp)),
        readonly(np.array(panels, np.intp)),
        readonly(np.array([[tile(shape, dtype) for shape in row] for row in shapes], np.intp)),
    )


def _blocks(rows: AxisTaps, row_bytes: int, units: int, threads: int) -> tuple[int, int]:
    """Output rows of a block, and blocks of an image: enough for all threads, small enough to stay."""
    fit = max(1, BLOCK_BYTES // row_bytes - rows.halo)
    wanted = -(-2 * threads // units) if units < 2 * threads else 1
    blocks = min(rows.out, max(wanted, -(-rows.out // fit)))
    block = -(-rows.out // blocks)
    return block, -(-rows.out // block)


def _across_filters(width: int, filters: int, wide: int) -> bool:
    """Whether vectors lie along filters: where pixels would leave more lanes empty."""
    along_pixels = width / (-(-width // wide) * wide)
    along_filters = filters / (-(-filters // wide) * wide)
    return along_filters * 0.9 > along_pixels


Tiles = list[tuple[int, int, int, int]]
Panels = list[tuple[int, int, int]]
Laid = tuple[Tiles, Panels, list[list[Shape]]]


def _pixel_tiles(block: int, width: int, filters: int, wide: int) -> Laid:
    """Tiles with vectors along the pixels of rows, numbers down the filters."""
    vectors = -(-width // wide)
    # Six filters share each vector better than four do, but more of them may be computed twice.
    numbers = min((4, 6), key=lambda each: -(-filters // each) * (each + 0.3)) if registers() > 12 else 4
    numbers = min(numbers, filters)
    most = registers() // numbers
    along = min(vectors, 4, most)
    down = max(1, min(block, 4 // along, most // along)) if vectors == along else 1
    spans = []
    for first in range(0, width, along * wide):
        count = min(along, -(-(width - first) // wide))
        # Where there is room, the last span begins earlier, so that none of its lanes is empty.
        spans.append((max(0, min(first, width - count * wide)), count))
    counts = sorted({count for _, count in spans})
    tiles = [
        (min(first, block - down), at, min(width - at, count * wide), counts.index(count))
        for first in range(0, block, down)
        for at, count in spans
    ]
    panels = [(min(first, filters - numbers), numbers, 0) for first in range(0, filters, numbers)]
    # Where a panel or a row of tiles does not fit, it begins earlier, and computes some outputs once more.
    return tiles, panels, [[Shape(numbers, 1, down, count)] for count in counts]


def _filter_tiles(block: int, width: int, filters: int, wide: int) -> Laid:
    """Tiles with vectors along the filters, numbers over pixels side by side: of one row, or whole rows."""
    vectors = -(-filters // wide)
    most = registers()
    rows, cols, together = min(
        (
            (rows, cols, together)
            for together in range(1, min(vectors, 4) + 1)
            for cols in range(1, min(width, wide, most // together) + 1)
            for rows in range(1, min(block, wide // cols, most // (together * cols)) + 1)
            if rows == 1 or cols == width
        ),
        key=lambda shape: _filter_cost(block, width, vectors, *shape),
    )
    tiles = [
        (min(first, block - rows), min(at, width - cols), 0, 0)
        for first in range(0, block, rows)
        for at in range(0, width, cols)
    ]
    groups = _split(vectors, together)
    sizes = sorted(set(groups))
    starts = np.cumsum([0, *groups[:-1]]) * wide
    panels = [
        (int(first), min(group * wide, filters - int(first)), sizes.index(group))
        for first, group in zip(starts, groups, strict=True)
    ]
    return tiles, panels, [[Shape(rows, cols, 1, size, by_vectors=False, turned=True) for size in sizes]]


def _filter_cost(block: int, width: int, vectors: int, rows: int, cols: int, together: int) -> float:
    """Half cycles that a tap takes: of multiplications, or of loads; weights come from further away."""
    tiles = -(-block // rows) * -(-width // cols)
    pixels = rows * cols
    return tiles * sum(max(pixels * each, 9, pixels + 3 * each) for each in _split(vectors, together))


def _split(count: int, most: int) -> list[int]:
    """`count` as a sum of as few parts as can be, of at most `most`, as even as can be."""
    parts = -(-count // most)
    return [count // parts + (i < count % parts) for i in range(parts)]


class GradientPlan(NamedTuple):
    """dw of a layer: sums over pixels of x at each tap, times dy, turned so that filters lie side by side."""

    geometry: Geometry
    record: np.ndarray
    chunks: np.ndarray
    table: np.ndarray
    """Where the pixels' first taps lie in the copy: intp (pixels,)."""
    images: int
    """That a task sums over, so that its tiles have enough pixels."""
    pieces: np.ndarray
    """intp, one row a tile of a channel, or of several: its first tap, first number in the copy, first
    filter, how many of them, channels, and its address."""
    step: int
    """Channels from one to the next."""
    row_step: int
    padded_filters: int


@lru_cache(maxsize=1024)
def gradient_plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> GradientPlan:
    """How to compute dw."""
    wide = lanes(dtype)
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    sh, sw = spec.stride
    vectors = -(-filters // wide)
    padded = vectors * wide
    pitch = spec.cols.extent
    row_bytes = (channels * pitch * sh + spec.OW * padded) * dtype.itemsize
    fit = max(1, 2 * BLOCK_BYTES // row_bytes - spec.rows.reach // sh)
    wanted = max(1, -(-threads // spec.N))
    blocks = min(spec.OH, max(wanted, -(-spec.OH // fit)))
    block = -(-spec.OH // blocks)
    copied = (block - 1) * sh + spec.rows.reach
    plane = copied * pitch
    rows = AxisTaps(spec.H, spec.OH, 1, (-spec.rows.before,), (0,), 1, 0)
    cols = AxisTaps(spec.W, spec.OW, 1, (-spec.cols.before,), (0,), 1, 0)
    images = 1
    if block == spec.OH and spec.groups == 1:
        images = max(1, min(PIXELS // (block * spec.OW), -(-spec.N // threads), fit // block))
    pixels = [
        image * channels * plane + oh * sh * pitch + ow * sw
        for image in range(images)
        for oh in range(block)
        for ow in range(spec.OW)
    ]
    copy = images * channels * plane + SLACK
    geometry = Geometry(
        spec.groups, channels, filters, spec.H, spec.W, 1, 1, rows.least,
        block, -(-spec.OH // block), copied, pitch, plane, plane,
        spec.OH, spec.OH, spec.OW, 0, 0, sh, sw,
        tile_rows=spec.R, tile_cols=spec.S,
        scratch=copy, work=copy + len(pixels) * padded + SLACK,
    )  # fmt: skip
    pieces, step, row_step = _gradient_pieces(spec, dtype, vectors, channels, pitch, plane)
    return GradientPlan(
        geometry,
        geometry.record(),
        readonly(cols.chunks(pitch, wide)),
        readonly(np.array(pixels, np.intp)),
        images,
        readonly(np.array(pieces, np.intp)),
        step,
        row_step,
        padded,
    )


def _gradient_pieces(
    spec: ConvSpec, dtype: np.dtype, vectors: int, channels: int, pitch: int, plane: int
) -> tuple[list[tuple[int, int, int, int, int, int]], int, int]:
    """The tiles of dw: whole rows of taps where they are side by side, else channels, or single taps."""
    (dh, dw), most = spec.dilation, registers()
    wide = lanes(dtype)
    together = _split(vectors, 3 if most > 12 else 2)
    first_vectors = np.cumsum([0, *together[:-1]])
    pieces = []
    if spec.R * spec.S == 1:
        step = min(channels, 8 if most > 12 else 4)
        for count, vector in zip(together, first_vectors, strict=True):
            for channel_count in {step, channels % step} - {0}:
                shape = Shape(channel_count, 1, 1, count, by_vectors=False)
                pieces.append((0, 0, int(vector) * wide, count * wide, channel_count, tile(shape, dtype)))
        return pieces, step, plane
    width = spec.S if dw == 1 else 1
    for count, vector in zip(together, first_vectors, strict=True):
        for at, cols in _spans(spec.S, min(width, max(1, most // count))):
            height = max(1, most // (count * cols)) if cols == spec.S else 1
            for row, rows in _spans(spec.R, min(height, spec.R)):
                shape = Shape(rows, cols, 1, count, by_vectors=False)
                number = row * dh * pitch + at * dw
                pieces.append(
                    (row * spec.S + at, number, int(vector) * wide, count * wide, 1, tile(shape, dtype))
                )
    return pieces, 1, dh * pitch


def _spans(total: int, most: int) -> Iterator[tuple[int, int]]:
    """`total` in even spans of at most `most`: where each begins, and its length."""
    first = 0
    for count in _split(total, most):
        yield first, count
        first += count
