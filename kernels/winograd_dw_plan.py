"""What the `winograd` backend decides once for each dw: how tiles, filters and positions are cut up.

The transforms of x, V (positions, tiles, channels), and of dy, E (positions, tiles, filters), are made by all
workers, who share out the tiles. Then they share out the positions, each of which is a product of matrices,
summed over the tiles: dU (positions, filters, channels). So nothing is transformed twice, and each of the
three is made, and used, a matrix at a time. Blocks of tiles follow each other, and their sums are added,
where V and E of all would not stay close; a few filters follow others where dU is what is large.
"""

from __future__ import annotations

from collections.abc import Set
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import readonly, records
from kernels.axis import Pair
from kernels.spec import ConvSpec
from kernels.tiled_copy import turner
from kernels.tiled_tile import Shape, most_along, registers, tile
from kernels.tiled_vectors import lanes
from kernels.winograd_plan import LONGEST, apart, counts_of, tile_for
from kernels.winograd_transforms import gradient_transform, pixels_transform, weight_gradient_transform

DEPTH = 64
"""Tiles that are multiplied at a time: four vectors of each stay in the first-level cache."""
BLOCK_BYTES = 4 << 20
"""Of V and E of a block, about: they come back from the last-level cache, or a nearer one."""
SUMS_BYTES = 14 << 20
"""Of dU, about, at most, unless V of all tiles is more than the following."""
DATA_BYTES = 64 << 20
STRETCH = 16 * DEPTH
"""Tiles, about, whose products are summed by themselves: one sum over all of many would be rounded more."""
PIECE_PIXELS = 64
"""Of a row that are turned at a time, at most: they stay in the first-level cache."""


class Side(NamedTuple):
    """One of the two that are transformed, x or dy; all in elements."""

    channels: int
    """Of a group; of dy, its filters."""
    H: int
    W: int
    seen_down: int
    seen_across: int
    """Rows and columns, from the first on, that windows reach."""
    top: int
    left: int
    """Padding before it; what is negative is cut off."""
    step_down: int
    step_across: int
    """Pixels from a tile to the next."""
    rows: int
    """That a tile reads."""
    beyond: int
    """Columns that a tile shares with the next."""
    piece: int
    """Tiles of a row that are turned at a time, at most."""
    pitch: int
    """From a row of turned pixels to the next."""
    transform: int
    """Its address."""
    row: int
    step: int
    """In the transforms, from a tile to the next, and from a position to the next."""


class Geometry(NamedTuple):
    """Where the compiled loops find things; all in elements. They take it as a record, by a pointer."""

    groups: int
    positions: int
    tiles_down: int
    tiles_across: int
    """Of an image."""
    block: int
    """Tiles that are transformed at a time, at most."""
    stretch: int
    """Tiles, of whole blocks, whose products are summed by themselves."""
    panel: int
    """Filters of a group whose sums there are at a time, at most."""
    along_filters: int
    """Whether vectors of sums lie along filters; else along channels."""
    wide: int
    vectors: int
    rows: int
    """Numbers in a vector; vectors of the one, and numbers of the other, that are multiplied at a time."""
    du_row: int
    du_step: int
    """In dU (groups, positions, the other, the one), from a row to the next, and from a position."""
    k_row: int
    """Filters of a group, filled up to whole vectors, as they lie in db's sums (wide, groups, k_row)."""
    sums: int
    work: int
    """Where these begin in a worker's part of the workspace, behind what is turned; and its size."""
    taps: int
    """Weights of a filter and channel."""
    back: int
    turner: int
    """Addresses of transforms."""


class Plan(NamedTuple):
    """dw of one layer, as the compiled loops take it."""

    geometry: Geometry
    data: Side
    gradient: Side
    record: np.ndarray
    sides: np.ndarray
    """Both, as records."""
    table: np.ndarray
    """Where tiles lie in the transforms of numbers and of vectors: intp (DEPTH, 2)."""
    tiles: np.ndarray
    """intp (rows + 1, vectors + 1): the address of the register tile for so many numbers and vectors."""


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, dtype: np.dtype) -> Plan:
    """How to compute dw."""
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    before = spec.rows.before, spec.cols.before
    seen = spec.rows.touched, spec.cols.touched
    sources = (before[0], spec.H), (before[1], spec.W)
    size = spec.OH, spec.OW
    # Where there are several, long ones save less than their many sums cost.
    most = (LONGEST if size[0] <= LONGEST else 4, LONGEST if size[1] <= LONGEST else 4)
    shape = tile_for(size, (spec.R, spec.S), spec.stride, sources, most)
    down, across = (-(-number // axis.outputs) for number, axis in zip(size, shape, strict=True))
    tiles = spec.N * down * across
    wide = lanes(dtype)
    c_row, k_row = _filled(channels, wide), _filled(filters, wide)
    matrix_bytes = shape.positions * spec.groups * dtype.itemsize
    panel, block, sums_bytes = filters, tiles, filters * c_row * matrix_bytes
    if sums_bytes > SUMS_BYTES and tiles * c_row * matrix_bytes <= DATA_BYTES:
        panel = _filled(-(-filters // -(-sums_bytes // SUMS_BYTES)), wide)
    else:
        block_bytes = max(BLOCK_BYTES, sums_bytes // 2)  # all sums are read and written for each block
        block = -(-tiles // -(-tiles * (c_row + k_row) * matrix_bytes // block_bytes))
    along_filters = panel == filters and k_row * channels < c_row * filters  # so fewer lanes are empty
    e_row = _filled(panel, wide)
    data = _side((spec.H, spec.W), seen, before, shape.inputs, shape.steps, across, channels, wide)._replace(
        transform=pixels_transform(shape, dtype), row=c_row, step=apart(block * c_row, dtype)
    )
    outputs = shape.down.outputs, shape.across.outputs
    gradient = _side(size, size, (0, 0), outputs, outputs, across, filters, wide)._replace(
        transform=gradient_transform(shape, dtype), row=e_row, step=apart(block * e_row, dtype)
    )
    numbers, du_row = (channels, k_row) if along_filters else (panel, c_row)
    strips = -(-du_row // (most_along() * wide))
    vectors = -(-du_row // (strips * wide))
    rows = _rows(vectors, numbers)
    sums = max(side.rows * side.pitch for side in (data, gradient))
    geometry = Geometry(
        groups=spec.groups, positions=shape.positions, tiles_down=down, tiles_across=across, block=block,
        stretch=_filled(STRETCH, block), panel=panel, along_filters=along_filters, wide=wide, vectors=vectors,
        rows=rows, du_row=du_row, du_step=apart(numbers * du_row, dtype), k_row=k_row, sums=sums,
        work=sums + wide * spec.groups * k_row, taps=spec.R * spec.S,
        back=weight_gradient_transform(shape, dtype), turner=turner(dtype, asks=True),
    )  # fmt: skip
    table = np.outer(np.arange(DEPTH), (c_row, e_row) if along_filters else (e_row, c_row))
    counts = counts_of(numbers, rows) | counts_of(filters % panel, rows)
    return Plan(
        geometry, data, gradient, records([geometry]), records([data, gradient]), readonly(table),
        _tiles(rows, vectors, counts, dtype),
    )  # fmt: skip


def _filled(count: int, unit: int) -> int:
    """So many, or some more, in whole units."""
    return -(-count // unit) * unit


def _side(
    size: Pair, seen: Pair, before: Pair, reads: Pair, steps: Pair, tiles: int, channels: int, wide: int
) -> Side:
    """Of so many tiles in a row, each of which reads pixels, and lies some steps from the next."""
    beyond = reads[1] - steps[1]
    piece = min(tiles, max(1, (PIECE_PIXELS - beyond) // steps[1]))
    return Side(
        channels=channels, H=size[0], W=size[1], seen_down=seen[0], seen_across=seen[1], top=before[0],
        left=before[1], step_down=steps[0], step_across=steps[1], rows=reads[0], beyond=beyond, piece=piece,
        pitch=(piece * steps[1] + beyond) * wide, transform=0, row=0, step=0,
    )  # fmt: skip


def _rows(vectors: int, numbers: int) -> int:
    """Numbers of a register tile of so many vectors."""
    return min(registers() // 12 * 12 // vectors, 12, numbers)


def _tiles(rows: int, vectors: int, counts: Set[int], dtype: np.dtype) -> np.ndarray:
    """The compiled register tiles, as in `Plan.tiles`: of so many numbers, side by side, `rows` at most."""
    addresses = np.zeros((rows + 1, vectors + 1), np.intp)
    for numbers in counts:
        for along in range(1, vectors + 1):
            addresses[numbers, along] = tile(Shape(1, numbers, 1, along), dtype)
    return readonly(addresses)
