"""What the `winograd` backend decides once for each layer: which transform, and how the work is cut up.

Weights are transformed, U (positions, filters, channels); what the tiles of outputs read is transformed, V
(positions, channels, tiles); both are multiplied, M (positions, filters, tiles) = U V for each position; and
M is transformed back. Tiles are numbered through all images, row by row. Vectors lie along tiles, or where
planes are small, and so rows of tiles short, along images (`winograd_images`).

Where there are more tiles than filters, all of U is made first, and workers share out the tiles. Each takes a
block of them at a time, whose V and M stay close. Where there are more filters, or not enough tiles for all,
V of a large block is made by all workers, and they share out the filters: each takes a panel of them at a
time, whose U and M stay close. So the larger of U and V is never in memory as a whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import readonly, records
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_copy import turner
from kernels.tiled_tile import Shape, most_along, registers, tile
from kernels.tiled_vectors import lanes
from kernels.winograd_transforms import (
    Tile,
    data_transform,
    images_data_transform,
    images_result_transform,
    result_transform,
    weight_transform,
)

DEPTH = 64
"""Channels that are multiplied at a time: V of four vectors of tiles then stays in the first-level cache."""
BLOCK_BYTES = 8 << 20
"""Of V that workers share, about: it stays in the last-level cache."""
PANEL_BYTES = 1 << 19
"""Of U of a panel of filters, about: it stays in the second-level cache."""
PAGE_BYTES = 4096
CLOSE_BYTES = 4 << 20
"""Of outputs: so many stay in the caches from one call to the next, more or less."""
BAND_BYTES = 1 << 18
"""Of V of a block whose vectors lie along images, about: no more than the second-level cache takes easily."""
MOST_WASTED = 1.1
MOST_WASTED_OF_SHORT = 1.4
"""What computing some images twice, and threads that wait, may cost where vectors lie along images; and where
rows of tiles would fill less than a quarter of a vector."""


class Geometry(NamedTuple):
    """Where the compiled loops find things; all in elements. They take it as a record, by a pointer."""

    groups: int
    channels: int
    filters: int
    """Of a group."""
    H: int
    W: int
    """Of the source."""
    top: int
    left: int
    """Padding before it; what is negative is cut off."""
    OH: int
    OW: int
    ahead: int
    """How far it is to outputs that are asked for: the next filter's, where all do not stay close, or 0."""
    outputs: int
    """Of a tile, along an axis."""
    beyond: int
    """Rows of inputs of a tile beyond its outputs."""
    positions: int
    """Products of a tile."""
    tiles_down: int
    tiles_across: int
    """Of an image."""
    rows: int
    """Filters that are multiplied at a time."""
    panel: int
    """Filters whose weights are transformed at a time, at most; all, where workers share out the tiles."""
    wide: int
    """Numbers in a vector."""
    vectors: int
    """Of tiles that are multiplied at a time, at most."""
    block: int
    """Tiles that are transformed at a time, at most."""
    band: int
    """The same, where vectors lie along images, in rows of tiles of each; otherwise 0."""
    depth: int
    slices: int
    """Channels that are multiplied at a time, and how often that makes all."""
    u_step: int
    v_row: int
    v_step: int
    m_step: int
    """From a position to the next in U, V and M, and from a channel or filter to the next in V and M."""
    pitch: int
    """Of the rows of scratch that a transform needs, or of turned inputs."""
    m: int
    scratch: int
    results: int
    work: int
    """Where M, scratch or turned inputs, and results to be turned begin in a worker's part of the workspace,
    behind its own V or U, and its size."""
    data: int
    weights: int
    result: int
    turner: int
    """Addresses of the transforms."""
    filter_step: int
    channel_step: int
    """In the weights: dx has filters for channels."""


class Plan(NamedTuple):
    """One correlation, as the compiled loops take it."""

    geometry: Geometry
    by_filters: bool
    """Whether workers share out the filters, not the tiles or images."""
    record: np.ndarray
    table: np.ndarray
    """Where the channels of a slice lie in U and V: intp (depth, 2)."""
    tiles: np.ndarray
    """intp (rows + 1, vectors + 1): the address of the register tile for so many filters and vectors."""


def tile_for(OH: int, OW: int, R: int, S: int) -> Tile:
    """Of 4 x 4 outputs, or of 2 x 2 where that takes no more products: where outputs are few.

    In between, F(4 x 4, 3 x 3) multiplies 2.25 times per output, F(2 x 2, 3 x 3) 4 times, but rounds less.
    """
    tiles = [Tile(outputs, R, S) for outputs in (2, 4)]
    return min(tiles, key=lambda tile: tile.positions * -(-OH // tile.outputs) * -(-OW // tile.outputs))


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Plan:
    """How to compute forward, or dx: a correlation of dy, padded by what is left of the kernel."""
    taps = spec.R * spec.S
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    filter_step, channel_step = channels * taps, taps
    source, target = (spec.H, spec.W), (spec.OH, spec.OW)
    top, left = spec.rows.before, spec.cols.before
    if op == "dx":
        filter_step, channel_step = channel_step, filter_step
        channels, filters = filters, channels
        source, target = target, source
        top, left = spec.R - 1 - top, spec.S - 1 - left
    shape = tile_for(*target, spec.R, spec.S)
    outputs, positions = shape.outputs, shape.positions
    down, across = (-(-size // outputs) for size in target)
    tiles = spec.N * down * across
    wide = lanes(dtype)
    slices = -(-channels // DEPTH)
    depth = -(-channels // (slices * wide)) * wide
    slices = -(-channels // depth)
    filter_bytes = positions * channels * dtype.itemsize
    along = most_along()
    band = band_of(spec.N, down, across, wide, filter_bytes, threads) if filters <= tiles else 0
    by_filters = not band and tiles < max(filters, threads * along * wide)
    if band:
        v_row = block = band * across * wide
        pitch = (across * outputs + shape.S - 1) * wide
        turned, results = (band * outputs + shape.R - 1) * pitch, (band * outputs * target[1] + 1) * wide
    else:
        blocks = -(-tiles * spec.groups * filter_bytes // BLOCK_BYTES)
        block = -(-tiles // (blocks * wide)) * wide if by_filters else along * wide
        v_row = block + (wide if by_filters else 0)  # several workers store whole vectors at once
        pitch = shape.pitch(across, wide)
        turned, results = shape.height * pitch, 0
    vectors = min(along, block // wide)
    rows = rows_of(vectors, filters)
    panel = (
        panel_of(filters, rows, PANEL_BYTES // filter_bytes, threads) if by_filters else spec.groups * filters
    )
    u_step = apart(panel * slices * depth, dtype)
    v_step = apart((spec.groups if by_filters else 1) * channels * v_row, dtype)
    m_step = apart(min(panel, filters) * v_row, dtype)
    m = positions * (u_step if by_filters else v_step)
    scratch = m + positions * m_step
    plane = target[0] * target[1]
    results_bytes = spec.N * spec.groups * filters * plane * dtype.itemsize
    data, result = (
        (images_data_transform, images_result_transform) if band else (data_transform, result_transform)
    )
    geometry = Geometry(
        groups=spec.groups, channels=channels, filters=filters, H=source[0], W=source[1], top=top, left=left,
        OH=target[0], OW=target[1], ahead=plane if results_bytes > CLOSE_BYTES else 0, outputs=outputs,
        beyond=shape.R - 1, positions=positions,
        tiles_down=down, tiles_across=across, rows=rows, panel=panel, wide=wide, vectors=vectors,
        block=block, band=band, depth=depth, slices=slices, u_step=u_step, v_row=v_row, v_step=v_step,
        m_step=m_step, pitch=pitch, m=m, scratch=scratch, results=scratch + turned,
        work=scratch + turned + results, data=data(shape, dtype),
        weights=weight_transform(shape, op == "dx", dtype), result=result(shape, dtype), turner=turner(dtype),
        filter_step=filter_step, channel_step=channel_step,
    )  # fmt: skip
    table = np.outer(np.arange(depth), [1, v_row])
    addresses = tile_addresses(rows, vectors, filters, dtype)
    return Plan(geometry, by_filters, records([geometry]), readonly(table), addresses)


def band_of(images: int, down: int, across: int, wide: int, filter_bytes: int, threads: int) -> int:
    """Rows of tiles of a block whose vectors lie along images; 0 where that does not pay.

    It does where rows of tiles would leave more than half of a vector empty, and images, and threads, hardly.
    """
    if images < wide or across * 2 >= wide:
        return 0
    fitting = max(1, BAND_BYTES // (filter_bytes * across * wide))
    blocks = -(-images // wide)
    bands = min(down, max(-(-down // fitting), -(-threads // blocks)))
    band = -(-down // bands)
    jobs = blocks * -(-down // band)
    longest = -(-jobs // threads) * band * wide
    allowed = MOST_WASTED_OF_SHORT if across * 4 < wide else MOST_WASTED
    return band if longest * threads <= allowed * images * down else 0


def rows_of(vectors: int, filters: int) -> int:
    """Filters of a register tile of so many vectors."""
    return min(registers() // 12 * 12 // vectors, 12, filters)


def tile_addresses(rows: int, vectors: int, filters: int, dtype: np.dtype) -> np.ndarray:
    """The compiled register tiles that `filters` take, `rows` at a time, as in `Plan.tiles`."""
    addresses = np.zeros((rows + 1, vectors + 1), np.intp)
    for numbers in {rows, filters % rows} - {0}:
        for along in range(1, vectors + 1):
            addresses[numbers, along] = tile(Shape(numbers, 1, 1, along), dtype)
    return readonly(addresses)


def apart(count: int, dtype: np.dtype) -> int:
    """The step from one position to the next, of `count` numbers each: an odd number of pages and a vector.

    A transform stores into all positions in turn. At powers of 2 they would share few places of the caches,
    and few of the table of pages, which made transforms take twice to three times as long.
    """
    pages = count * dtype.itemsize // PAGE_BYTES + 1 | 1
    return pages * PAGE_BYTES // dtype.itemsize + lanes(dtype)


def panel_of(filters: int, rows: int, fitting: int, threads: int) -> int:
    """Filters of a panel, about `fitting`: of whole tiles of `rows`, as many panels for each worker."""
    panels = -(-filters // (max(fitting, 12) * threads)) * threads
    return min(-(-filters // (panels * rows)) * rows, filters)
