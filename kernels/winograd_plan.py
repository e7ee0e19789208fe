"""What the `winograd` backend decides once for each layer: which transform, and how the work is cut up.

Weights are transformed first, U (positions, filters, channels). Tiles of outputs are numbered through all
images, row by row, and dealt out to the workers in equal shares. A worker takes a block of its tiles at a
time: it transforms what they read, V (positions, channels, tiles); multiplies, M (positions, filters, tiles)
= U V for each position; and transforms these back. Vectors lie along tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import readonly, records
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_tile import Shape, registers, tile
from kernels.tiled_vectors import lanes
from kernels.winograd_transforms import Tile, data_transform, result_transform, weight_transform

DEPTH = 64
"""Channels that are multiplied at a time: V of four vectors of tiles then stays in the first-level cache."""
PAGE_BYTES = 4096


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
    outputs: int
    """Of a tile, along an axis."""
    positions: int
    """Products of a tile."""
    tiles_down: int
    tiles_across: int
    """Of an image."""
    rows: int
    """Filters that are multiplied at a time."""
    panels: int
    """That they come to."""
    parts: int
    """Of the panels: so many workers share the same tiles."""
    wide: int
    """Numbers in a vector."""
    vectors: int
    """Of tiles, in a block at most."""
    depth: int
    slices: int
    """Channels that are multiplied at a time, and how often that makes all."""
    u_step: int
    v_row: int
    v_step: int
    m_step: int
    """From a position to the next in U, V and M, and from a channel or filter to the next in V and M."""
    pitch: int
    """Of the rows of scratch that a transform needs."""
    m: int
    scratch: int
    work: int
    """Where M and scratch begin in a worker's part of the workspace, behind V, and its size."""
    data: int
    weights: int
    result: int
    """Addresses of the transforms."""
    filter_step: int
    channel_step: int
    """In the weights: dx has filters for channels."""


class Plan(NamedTuple):
    """One correlation, as the compiled loops take it."""

    geometry: Geometry
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
    wide = lanes(dtype)
    pitch = shape.pitch(across, wide)
    parts, vectors = _cut(spec.N * down * across, wide, threads)
    rows = min(registers() // 12 * 12 // vectors, 12, filters)
    slices = -(-channels // DEPTH)
    depth = -(-channels // (slices * wide)) * wide
    slices = -(-channels // depth)
    v_row = vectors * wide
    v_step = apart(channels * v_row, dtype)
    m_step = apart(filters * v_row, dtype)
    m = positions * v_step
    scratch = m + positions * m_step
    geometry = Geometry(
        groups=spec.groups, channels=channels, filters=filters, H=source[0], W=source[1], top=top, left=left,
        OH=target[0], OW=target[1], outputs=outputs, positions=positions,
        tiles_down=down, tiles_across=across, rows=rows, panels=-(-filters // rows), parts=parts,
        wide=wide, vectors=vectors, depth=depth, slices=slices,
        u_step=apart(spec.groups * filters * slices * depth, dtype),
        v_row=v_row, v_step=v_step, m_step=m_step, pitch=pitch,
        m=m, scratch=scratch, work=scratch + shape.height * pitch,
        data=data_transform(shape, dtype), weights=weight_transform(shape, op == "dx", dtype),
        result=result_transform(shape, dtype), filter_step=filter_step, channel_step=channel_step,
    )  # fmt: skip
    addresses = np.zeros((rows + 1, vectors + 1), np.intp)
    for numbers in {rows, filters % rows} - {0}:
        for along in range(1, vectors + 1):
            addresses[numbers, along] = tile(Shape(numbers, 1, 1, along), dtype)
    table = np.outer(np.arange(depth), [1, v_row])
    return Plan(geometry, records([geometry]), readonly(table), readonly(addresses))


def apart(count: int, dtype: np.dtype) -> int:
    """The step from one position to the next, of `count` numbers each: an odd number of pages and a vector.

    A transform stores into all positions in turn. At powers of 2 they would share few places of the caches,
    and few of the table of pages, which made transforms take twice to three times as long.
    """
    pages = count * dtype.itemsize // PAGE_BYTES + 1 | 1
    return pages * PAGE_BYTES // dtype.itemsize + lanes(dtype)


def _cut(tiles: int, wide: int, threads: int) -> tuple[int, int]:
    """Parts of the filters, and vectors of a block: a block is as wide as a register tile can be.

    Workers share tiles, and each has a part of the filters, where there is no such block for each of them.
    Wider blocks, which would read U less often, gained nothing: their V and M come from further away.
    """
    along = 4 if registers() > 12 else 2
    block = along * wide
    shares = max(n for n in range(1, threads + 1) if threads % n == 0 and (n == 1 or tiles >= n * block))
    return threads // shares, min(along, -(-tiles // (shares * wide)))
