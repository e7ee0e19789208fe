"""What the `winograd` backend decides once for each layer: which transform, and how the work is cut up.

Tiles of outputs are numbered through all images, row by row, and dealt out to the workers in equal shares. A
worker takes a block of its tiles at a time: it transforms what they read, V (positions, channels, tiles); for
some filters at a time it multiplies, M (positions, filters, tiles) = U V for each position; and transforms
these back. Vectors lie along tiles.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import readonly
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_tile import Shape, registers, tile
from kernels.tiled_vectors import lanes
from kernels.winograd_transforms import KERNEL, data_transform, result_transform, weight_transform

BLOCK_BYTES = 1 << 20
"""What V and M of a block may take together: they are to stay in the second-level cache."""


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
    parts: int
    """Of the filters: so many workers share the same tiles."""
    rows: int
    """Filters that are multiplied at a time."""
    together: int
    """Filters in M."""
    wide: int
    vectors: int
    """Numbers in a vector, and vectors of tiles in a block at most."""
    along: int
    """Vectors that are multiplied at a time at most."""
    u_row: int
    u_step: int
    v_row: int
    v_step: int
    m_step: int
    """From a filter or channel to the next in U and V, and from a position to the next."""
    pitch: int
    """Of the rows of scratch that a transform needs."""
    v: int
    m: int
    scratch: int
    work: int
    """Where V, M and scratch begin in a worker's part of the workspace, and its size."""
    data: int
    weights: int
    result: int
    """Addresses of the transforms."""
    filter_step: int
    channel_step: int
    first_tap: int
    tap_step: int
    """In the weights: dx takes them turned, with filters for channels."""

    def record(self) -> np.ndarray:
        """As a structured array of one element, with these fields."""
        fields = np.dtype([(name, np.intp) for name in self._fields])
        return readonly(np.array([tuple(self)], fields))


class Plan(NamedTuple):
    """One correlation, as the compiled loops take it."""

    geometry: Geometry
    record: np.ndarray
    table: np.ndarray
    """Where channels lie in V: intp (channels,)."""
    tiles: np.ndarray
    """intp (along + 1,): the address of the register tile for so many vectors."""


def outputs_of_a_tile(OH: int, OW: int) -> int:
    """4, or 2 where that takes no more products: outputs so few that larger tiles would lie idle in part.

    In between, F(4 x 4) multiplies 2.25 times per output, F(2 x 2) 4 times; the latter rounds less.
    """
    products = {m: (m + KERNEL - 1) ** 2 * -(-OH // m) * -(-OW // m) for m in (2, 4)}
    return min(products, key=lambda m: products[m])


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Plan:
    """How to compute forward, or dx: a correlation of dy, padded by what is left of the kernel."""
    taps = KERNEL * KERNEL
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    filter_step, channel_step, first_tap, tap_step = channels * taps, taps, 0, 1
    source, target = (spec.H, spec.W), (spec.OH, spec.OW)
    top, left = spec.rows.before, spec.cols.before
    if op == "dx":
        filter_step, channel_step, first_tap, tap_step = channel_step, filter_step, taps - 1, -1
        channels, filters = filters, channels
        source, target = target, source
        top, left = KERNEL - 1 - top, KERNEL - 1 - left
    outputs = outputs_of_a_tile(*target)
    positions = (outputs + KERNEL - 1) ** 2
    down, across = (-(-size // outputs) for size in target)
    wide = lanes(dtype)
    parts = 1
    along = 4 if registers() > 12 else 2
    rows = min(6, filters)
    vectors = along
    together = filters
    u_row = -(-channels // wide) * wide
    v_row = vectors * wide
    v_step = channels * v_row + wide
    m_step = together * v_row + wide
    pitch = (-(-across // wide) * outputs + 2) * wide
    m = positions * v_step
    scratch = m + positions * m_step
    geometry = Geometry(
        groups=spec.groups, channels=channels, filters=filters, H=source[0], W=source[1], top=top, left=left,
        OH=target[0], OW=target[1], outputs=outputs, positions=positions,
        tiles_down=down, tiles_across=across, parts=parts, rows=rows, together=together, wide=wide,
        vectors=vectors, along=along,
        u_row=u_row, u_step=spec.groups * filters * u_row + wide, v_row=v_row, v_step=v_step, m_step=m_step,
        pitch=pitch, v=0, m=m, scratch=scratch, work=scratch + (outputs + KERNEL - 1) * pitch,
        data=data_transform(outputs, dtype), weights=weight_transform(outputs, dtype),
        result=result_transform(outputs, dtype),
        filter_step=filter_step, channel_step=channel_step, first_tap=first_tap, tap_step=tap_step,
    )  # fmt: skip
    addresses = [0] + [tile(Shape(rows, 1, 1, count), dtype) for count in range(1, along + 1)]
    return Plan(
        geometry,
        geometry.record(),
        readonly(np.arange(channels) * v_row),
        readonly(np.array(addresses, np.intp)),
    )
