"""What the `winograd` backend decides once for each dw: how tiles, filters and channels are cut up.

Each worker has its own sums dU (positions, filters, channels). Where there are many tiles, it computes a part
of the filters and of the channels for all tiles, a block of tiles at a time. Where there are more filters
than tiles, dU is what is large: a worker takes a panel of filters at a time, through all tiles, so that its
dU stays in the cache until it is transformed back; the transforms of the data are made once, for all.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import readonly, records
from kernels.spec import ConvSpec
from kernels.tiled_copy import turner
from kernels.tiled_tile import most_along
from kernels.tiled_vectors import lanes
from kernels.winograd_plan import PANEL_BYTES, apart, panel_of, rows_of, steps_of, tile_addresses, tile_for
from kernels.winograd_transforms import data_transform, gradient_transform, weight_gradient_transform

BLOCK = 64
"""Tiles that are multiplied at a time, and transformed, where filters are not shared out alone."""
STRETCH = 32 * BLOCK
"""Tiles whose products are summed by themselves: one sum over all of many tiles would be rounded more."""
FEW = 4 * BLOCK
"""Tiles whose transforms stay close anyway."""
CLOSE_BYTES = 12 << 20
"""Of the transforms of the data, where panels of filters may be narrow, and read them often."""
WIDE_PANEL_BYTES = 6 * PANEL_BYTES
"""Of dU of a panel where they are more: they come from far away, and are read less often."""
TURNED_BYTES = 2 * CLOSE_BYTES
"""Of the transforms of the data, at most, where all panels read them."""
SUMS_BYTES = 1 << 20
"""Of all sums, at most, where each worker has its own: they stay in its second-level cache."""


class Geometry(NamedTuple):
    """Where the compiled loops find things; all in elements. They take it as a record, by a pointer."""

    groups: int
    channels: int
    filters: int
    """Of a group."""
    H: int
    W: int
    top: int
    left: int
    OH: int
    OW: int
    outputs_down: int
    outputs_across: int
    """Of a tile."""
    step_down: int
    step_across: int
    """Inputs from a tile to the next."""
    positions: int
    tiles_down: int
    tiles_across: int
    rows: int
    """Filters that are multiplied at a time."""
    panel: int
    """Filters whose sums a worker has at a time, at most, where workers share out nothing else."""
    tile_parts: int
    """Among how many workers tiles are shared out: each has sums of its own, of all filters and channels."""
    filter_parts: int
    """Where they share out filters and channels: among how many the filters."""
    wide: int
    along: int
    channel_parts: int
    """Numbers in a vector, vectors of channels that are multiplied at a time, workers that share them."""
    c_row: int
    """Channels, filled up to whole vectors."""
    turned_row: int
    """From a tile to the next in the turned transforms: an odd number of vectors, for the caches."""
    du_step: int
    v_step: int
    e_step: int
    turned_step: int
    """From a position to the next: in dU, the transforms of some channels, those of dy, the turned ones."""
    e_row: int
    """From a filter to the next in the transforms of dy."""
    pitch: int
    e: int
    own: int
    scratch: int
    db: int
    work: int
    """Where parts of a worker's workspace begin, and its size. `own`: what is turned, or its dU. `db`: its
    sums of dy, (groups * filters, wide)."""
    taps: int
    """Weights of a filter and channel."""
    data: int
    gradient: int
    back: int
    turner: int
    """Addresses of the transforms."""


class Plan(NamedTuple):
    """dw of one layer, as the compiled loops take it."""

    geometry: Geometry
    by_filters: bool
    """Whether workers share out the filters alone, and a panel of them goes through all tiles."""
    record: np.ndarray
    table: np.ndarray
    """Where tiles lie in both transforms, one of them turned: intp (BLOCK, 2)."""
    tiles: np.ndarray
    """intp (rows + 1, along + 1): the address of the register tile for so many filters and vectors."""


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype, threads: int) -> Plan:
    """How to compute dw."""
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    shape = tile_for((spec.OH, spec.OW), (spec.R, spec.S))
    positions = shape.positions
    down, across = -(-spec.OH // shape.down.outputs), -(-spec.OW // shape.across.outputs)
    wide = lanes(dtype)
    along = min(most_along(), -(-channels // wide))
    rows = rows_of(along, filters)
    c_row = -(-channels // wide) * wide
    turned_row = (c_row // wide | 1) * wide
    tiles = spec.N * down * across
    pitch = shape.pitch(across, wide)
    filter_bytes = positions * c_row * dtype.itemsize
    data_bytes = tiles * spec.groups * filter_bytes
    by_filters = tiles <= max(filters, FEW) and tiles <= STRETCH and data_bytes <= TURNED_BYTES
    fitting = (PANEL_BYTES if data_bytes <= CLOSE_BYTES else WIDE_PANEL_BYTES) // filter_bytes
    panel = panel_of(filters, rows, fitting, threads) if by_filters else filters
    sums = spec.groups * filters * filter_bytes
    tile_parts = threads if tiles >= threads * BLOCK and sums <= SUMS_BYTES else 1
    filter_parts = 1 if tile_parts > 1 else _filter_parts(channels, filters, along * wide, threads)
    e_row = (-(-tiles // wide) + 1) * wide if by_filters else BLOCK
    data_row = (spec.groups * tiles if by_filters else BLOCK) * turned_row
    sums_row = (panel if by_filters else spec.groups * filters) * c_row
    v_step, e_step = apart(wide * BLOCK, dtype), apart(panel * e_row, dtype)
    turned_step, du_step = apart(data_row, dtype), apart(sums_row, dtype)
    e = positions * v_step
    own = e + positions * e_step
    scratch = own + positions * (du_step if by_filters else turned_step)
    db = scratch + shape.down.products * pitch
    geometry = Geometry(
        groups=spec.groups, channels=channels, filters=filters, H=spec.H, W=spec.W, top=spec.rows.before,
        left=spec.cols.before, OH=spec.OH, OW=spec.OW, **steps_of(shape), positions=positions,
        tiles_down=down, tiles_across=across, rows=rows, panel=panel, tile_parts=tile_parts,
        filter_parts=filter_parts, channel_parts=threads // (tile_parts * filter_parts), wide=wide,
        along=along, c_row=c_row,
        turned_row=turned_row, du_step=du_step, v_step=v_step, e_step=e_step, turned_step=turned_step,
        e_row=e_row, pitch=pitch, e=e, own=own, scratch=scratch, db=db, work=db + spec.K * wide,
        taps=spec.R * spec.S, data=data_transform(shape, dtype), gradient=gradient_transform(shape, dtype),
        back=weight_gradient_transform(shape, dtype), turner=turner(dtype),
    )  # fmt: skip
    table = np.outer(np.arange(BLOCK), [1, turned_row])
    addresses = tile_addresses(rows, along, filters, dtype)
    return Plan(geometry, by_filters, records([geometry]), readonly(table), addresses)


def _filter_parts(channels: int, filters: int, strip: int, threads: int) -> int:
    """Among how many workers filters are shared out; the rest of `threads` is for channels.

    Workers with other filters of the same channels transform the same data, and the other way round: the
    fewer the better. But no part of the channels should be narrower than a register tile.
    """
    divisors = (n for n in range(1, threads + 1) if threads % n == 0)
    allowed = [n for n in divisors if n == threads or channels * n >= strip * threads]
    return min(allowed, key=lambda n: channels * n + filters * (threads // n))
