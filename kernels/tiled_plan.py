"""What the `tiled` backend decides once for each layer: how sources are copied, which tiles go where.

A block of output rows of one image is computed at a time, from a copy of the rows that it reads: padded, and
dealt out by position modulo the stride where vectors lie along pixels, so that each tap reads neighbours side
by side. The copy stays in the second-level cache while all filters use it, and all phases of dx.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from kernels.arrays import records
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_axis import AxisTaps, CopiedAxis, Copy, Correlation, blocks_that_fit
from kernels.tiled_lay import Laid, along_filters, lay_filters, lay_pixels
from kernels.tiled_pack import Packing, Panels
from kernels.tiled_record import Recorded
from kernels.tiled_tile import WORTH_A_LAUNCH, tile
from kernels.tiled_vectors import lanes
from kernels.tiled_work import whole_lines

SLACK = 128
"""Elements that a tile may read beyond the end of a row: they land in lanes that are not stored."""
TILE = 100
_TURNED_TILE = 400
COPIED_VECTOR = 25
"""What a tile takes besides its taps, one that is turned, and a vector that is copied, in multiplications of
vectors: fitted to the times of some 4,600 calls, as are those in `tiled_images`."""
_PACKING = 8000
_PACKED_WEIGHT = 3
"""The same for packing weights, and for each of them: fitted to 1,600 calls with 1 x 1 taps, on Zen 4."""


class Part(NamedTuple):
    """One phase of the outputs: where they go, and the ranges of its taps and tiles in the plan's tables."""

    rows: int
    block: int
    """Output rows of a block; the last one may begin before its neighbour ends."""
    first_down: int
    first_across: int
    taps: int
    end_of_taps: int
    tiles: int
    end_of_tiles: int


PART = np.dtype([(name, np.intp) for name in Part._fields])


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """A correlation in one or several parts; lengths and steps in elements."""

    copy: Copy
    packing: Packing
    blocks: int
    """Of an image."""
    slices: int
    """Of the filters, so that few images give work to all threads."""
    workers: int
    tasks: int
    """Of all images, shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    apart_down: int
    apart_across: int
    row_step: int
    """Outputs side by side, and one below the other, in the copy; rows also in elements."""
    out_height: int
    out_width: int
    step_down: int
    step_across: int
    """The planes that outputs go to, and how far apart they are there."""
    of_worker: int
    """Elements of a worker's part of the workspace; these come behind what is packed."""
    memory: int
    """The workspace in all."""
    parts: np.ndarray
    """`Part`, as records."""
    origins: np.ndarray
    """The first output row that each block is copied for: intp (blocks,)."""
    table: np.ndarray
    """Where the numbers and vectors of the parts' taps lie, as tiles take it: intp (taps, 2)."""
    tiles: np.ndarray
    """As in `Laid`; which row of `addresses` comes last: intp (tiles, 4)."""
    addresses: np.ndarray
    """Of the compiled tiles: intp (kinds, kinds of panels)."""


class Cut(NamedTuple):
    """How a correlation is cut up, as `threads` share it."""

    spec: ConvSpec
    """In long rows."""
    asked: Correlation
    dtype: np.dtype
    threads: int
    across: bool
    """Whether vectors lie along filters."""
    down_axis: CopiedAxis
    across_axis: CopiedAxis
    blocks: int
    slices: int
    panels: Panels
    laid: list[Laid]
    """For each part."""
    copy: Copy
    """Of a block."""
    origins: np.ndarray

    @classmethod
    def of(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut:
        """Of forward, or of dx where some window reads an input."""
        wide = lanes(dtype)
        spec = in_long_rows(spec, wide)
        asked = Correlation.of(spec, op)
        height, width = max(part.out for part in asked.rows), max(part.out for part in asked.cols)
        across = along_filters(width, asked.filters, wide)
        down_axis, across_axis = (CopiedAxis.of(parts, not across) for parts in (asked.rows, asked.cols))

        def lay(blocks: int) -> tuple[Panels, list[Laid]]:
            sizes = [(-(-rows.out // blocks), cols.out) for rows, cols in asked.parts]
            if across:
                return lay_filters(sizes, asked.filters, wide, across_axis.apart, asked.cols[0].step)
            return lay_pixels(sizes, asked.filters, wide, asked.cols[0].step)

        blocks = blocks_that_fit(down_axis, across_axis, asked.channels, height, width, dtype)
        slices = shares(spec.N * spec.groups * blocks, threads)
        panels, laid = lay(blocks)
        if slices > len(panels):
            blocks, slices = min(height, blocks * slices), 1
            panels, laid = lay(blocks)
        origins, rows_of_a_block = _origins(asked.rows, blocks)
        copy = Copy.of(down_axis, across_axis, asked.channels, rows_of_a_block, width, wide)
        return cls(
            spec, asked, dtype, threads, across, down_axis, across_axis, blocks, slices, panels, laid, copy,
            origins,
        )  # fmt: skip

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self.spec.N * self.spec.groups * self.blocks * self.slices

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors."""
        copy = self.copy
        taps = [len(rows.taps) * len(cols.taps) for rows, cols in self.asked.parts]
        sums = sum(count * part.cost for count, part in zip(taps, self.laid, strict=True))
        each = _TURNED_TILE if self.across else TILE
        tiles = each * sum(len(part.tiles) for part in self.laid) * len(self.panels)
        copied = copy.channels * len(copy.phases) * copy.rows * len(copy.chunks)
        task = (self.asked.channels * sums + tiles) / self.slices + COPIED_VECTOR * copied
        return -(-self.tasks // self.threads) * task + packing_cost(
            self.asked, self.spec.groups, self.threads
        )


def plan(cut: Cut) -> Plan:
    """The correlations that make up forward, or dx."""
    asked, copy, laid, dtype = cut.asked, cut.copy, cut.laid, cut.dtype
    down_axis, across_axis = cut.down_axis, cut.across_axis
    numbers = 1 if cut.across else cut.panels[0][-1]
    tables = [_table(asked, part, copy, down_axis, across_axis, numbers) for part in asked.parts]
    if cut.across:
        tables = [table[:, ::-1] for table in tables]
    packing = Packing.of(asked, cut.spec.groups, cut.panels, cut.across, dtype)
    of_worker = whole_lines(copy.channel * asked.channels + SLACK)
    return Plan(
        copy=copy, packing=packing, blocks=cut.blocks, slices=cut.slices,
        workers=cut.threads, tasks=cut.tasks, operations=cut.spec.flops // WORTH_A_LAUNCH,
        apart_down=down_axis.apart, apart_across=across_axis.apart, row_step=down_axis.apart * copy.pitch,
        out_height=asked.plane[0], out_width=asked.plane[1],
        step_down=asked.rows[0].step, step_across=asked.cols[0].step,
        of_worker=of_worker, memory=packing.end + cut.threads * of_worker,
        parts=records(_parts(asked.parts, cut.blocks, tables, laid)), origins=cut.origins,
        table=np.concatenate(tables), tiles=_tiles(laid),
        addresses=np.array([[tile(each, dtype) for each in row] for part in laid for row in part.shapes]),
    )  # fmt: skip


def packing_cost(asked: Correlation, groups: int, threads: int) -> float:
    """What packing the weights takes, as in `Cut.cost`."""
    return _PACKING + _PACKED_WEIGHT * groups * asked.filters * asked.weights / threads


def is_pointwise(spec: ConvSpec) -> bool:
    """Whether each output has the inputs of its own place."""
    return (spec.R, spec.S, spec.stride, spec.padding) == (1, 1, (1, 1), ((0, 0), (0, 0)))


def in_long_rows(spec: ConvSpec, wide: int) -> ConvSpec:
    """A convolution of 1 x 1 taps knows no rows: its planes in rows of whole vectors, or as a single one."""
    if not is_pointwise(spec):
        return spec
    pixels = spec.H * spec.W
    fitting = [width for width in range(wide, 8 * wide + 1, wide) if pixels % width == 0]
    width = max(fitting, default=pixels if pixels <= 16 * wide else spec.W)
    return replace(spec, H=pixels // width, W=width)


def _origins(parts: tuple[AxisTaps, ...], blocks: int) -> tuple[np.ndarray, int]:
    """The first output row, over the parts, of each block; and the rows to the last, at most."""
    sizes = np.array([(part.out, -(-part.out // blocks)) for part in parts]).T
    firsts = np.minimum(np.arange(blocks)[:, None] * sizes[1], sizes[0] - sizes[1])
    origins = firsts.min(axis=1)
    return origins, int(((firsts + sizes[1]).max(axis=1) - origins).max())


def shares(tasks: int, threads: int) -> int:
    """What each task is to be cut into, so that all threads have as much to do."""
    return next(
        each
        for each in range(1, 2 * threads + 1)
        if tasks * each % threads == 0 or tasks * each >= 2 * threads
    )


def _table(
    asked: Correlation,
    part: tuple[AxisTaps, AxisTaps],
    copy: Copy,
    down_axis: CopiedAxis,
    across_axis: CopiedAxis,
    numbers: int,
) -> np.ndarray:
    """Where the packed weights, `numbers` for a tap, and the inputs of a part's taps lie: intp (taps, 2)."""
    rows, cols = part
    taps = min(asked.per_filter, asked.per_channel)
    order = [r * asked.kernel + s for r, s in product(rows.taps, cols.taps)]
    places = copy.places(down_axis, across_axis, rows, cols)
    return np.array(
        [
            ((c * taps + tap) * numbers, c * copy.channel + place)
            for c in range(asked.channels)
            for tap, place in zip(order, places, strict=True)
        ],
        np.intp,
    )


def _parts(
    parts: list[tuple[AxisTaps, AxisTaps]], blocks: int, tables: list[np.ndarray], laid: list[Laid]
) -> list[NamedTuple]:
    found: list[NamedTuple] = []
    taps = tiles = 0
    for (rows, cols), table, part in zip(parts, tables, laid, strict=True):
        ends = taps + len(table), tiles + len(part.tiles)
        block = -(-rows.out // blocks)
        found.append(Part(rows.out, block, rows.first, cols.first, taps, ends[0], tiles, ends[1]))
        taps, tiles = ends
    return found


def _tiles(laid: list[Laid]) -> np.ndarray:
    """Those of all parts, whose kinds are counted on."""
    tiles, kinds = [], 0
    for part in laid:
        tiles += [(row, col, cols, kind + kinds) for row, col, cols, kind in part.tiles]
        kinds += len(part.shapes)
    return np.array(tiles, np.intp)
