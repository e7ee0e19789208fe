"""The axes of a correlation, to the `tiled` backend: which inputs outputs read, and from what copy.

Forward and dx are both correlations of a padded source with taps: dx at stride s falls into s parts along
each axis, one for each phase of its pixels, on dy at stride 1 (V. Dumoulin, F. Visin, "A guide to convolution
arithmetic for deep learning", 2016).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from kernels.axis import Axis
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_record import Recorded

BLOCK_BYTES = 256 * 1024
"""What the copied rows of a block may take: they are to stay in the second-level cache."""


Inside = tuple[tuple[int, int], ...]
"""Of an output, the offsets that lie inside its inputs, and the taps that they belong to."""


class AxisTaps(NamedTuple):
    """Output i reads inputs i * stride + offsets, and goes to i * step + first."""

    size: int
    out: int
    stride: int
    offsets: tuple[int, ...]
    taps: tuple[int, ...]
    """Which tap of the kernel each offset belongs to."""
    step: int
    first: int

    def inside(self) -> Iterator[tuple[int, Inside]]:
        """Each output, and what it reads inside."""
        for i in range(self.out):
            yield (
                i,
                tuple(
                    (offset, tap)
                    for offset, tap in zip(self.offsets, self.taps, strict=True)
                    if 0 <= i * self.stride + offset < self.size
                ),
            )


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
            offsets, taps = zip(*pairs, strict=True)
            yield AxisTaps(axis.out, out, 1, offsets, taps, axis.stride, phase)


class Correlation(NamedTuple):
    """Forward, or dx, as correlations of the planes of a source with weights."""

    rows: tuple[AxisTaps, ...]
    cols: tuple[AxisTaps, ...]
    channels: int
    filters: int
    """Of a group: of the source, and of the outputs."""
    plane: tuple[int, int]
    per_filter: int
    per_channel: int
    """Weights from one to the next."""
    kernel: int
    """Columns of taps."""

    @classmethod
    def of(cls, spec: ConvSpec, op: Op) -> Correlation:
        channels, filters, taps = spec.C // spec.groups, spec.K // spec.groups, spec.R * spec.S
        if op == "forward":
            rows, cols = (forward_taps(spec.rows),), (forward_taps(spec.cols),)
            return cls(rows, cols, channels, filters, (spec.OH, spec.OW), channels * taps, taps, spec.S)
        phases = tuple(dx_taps(spec.rows)), tuple(dx_taps(spec.cols))
        return cls(*phases, filters, channels, (spec.H, spec.W), taps, channels * taps, spec.S)

    @property
    def parts(self) -> list[tuple[AxisTaps, AxisTaps]]:
        return list(product(self.rows, self.cols))

    @property
    def whole(self) -> bool:
        """Whether every output is in some part."""
        return sum(rows.out * cols.out for rows, cols in self.parts) == self.plane[0] * self.plane[1]

    @property
    def inputs(self) -> int:
        """Of an image and group."""
        return self.channels * self.rows[0].size * self.cols[0].size

    @property
    def weights(self) -> int:
        """Of a filter."""
        return self.channels * min(self.per_filter, self.per_channel)


class CopiedAxis(NamedTuple):
    """One axis of the copy that outputs read from: padded, and dealt out by position modulo `stride`.

    Position q of a phase holds input (q + least) * stride + phase. Output i reads `halo` positions beyond
    i * apart.
    """

    size: int
    stride: int
    phases: tuple[int, ...]
    least: int
    halo: int
    apart: int

    @classmethod
    def of(cls, parts: Sequence[AxisTaps], dealt: bool) -> CopiedAxis:
        """What all parts read; `dealt` so that neighbours side by side are read by outputs side by side."""
        stride = parts[0].stride if dealt else 1
        offsets = [offset for part in parts for offset in part.offsets]
        groups = [offset // stride for offset in offsets]
        phases = tuple(sorted({offset % stride for offset in offsets}))
        apart = parts[0].stride // stride
        return cls(parts[0].size, stride, phases, min(groups), max(groups) - min(groups), apart)

    def positions(self, outputs: int) -> int:
        """Those of a phase that so many outputs side by side read."""
        return (outputs - 1) * self.apart + 1 + self.halo

    def place(self, offset: int) -> tuple[int, int]:
        """Which of `phases`, and the position in it, output 0 reads at `offset`."""
        return self.phases.index(offset % self.stride), offset // self.stride - self.least

    def chunks(self, positions: int, wide: int) -> np.ndarray:
        """How rows, `positions` long, are copied by vectors, phase by phase: intp (phases * vectors, 4).

        Of each vector: where its first input lies in a row of inputs (before the row, in the padding), where
        it goes to, and the masks of the inputs in it; two for stride 2, since every second number of two
        vectors is taken.
        """
        return np.array(
            [self._chunk(phase, first, wide) for phase in self.phases for first in range(0, positions, wide)],
            np.intp,
        )

    def _chunk(self, phase: int, first: int, wide: int) -> tuple[int, int, int, int]:
        source = (first + self.least) * self.stride + phase
        bits = sum(1 << i for i in range(wide) if 0 <= source + i * self.stride < self.size)
        if self.stride != 2:
            return source, first, bits, 0
        both = sum(1 << 2 * i for i in range(wide) if bits >> i & 1)
        return source, first, both & ((1 << wide) - 1), both >> wide


@dataclass(frozen=True, eq=False)
class Copy(Recorded):
    """What one block of one image and group is copied to; all in elements."""

    channels: int
    """Of a group."""
    H: int
    W: int
    """Of the source."""
    stride_down: int
    stride_across: int
    least: int
    """The first group of `stride_down` rows that is copied for output row 0."""
    rows: int
    pitch: int
    plane: int
    """Rows and columns of a phase, and elements of it."""
    channel: int
    """Elements of all phases of a channel."""
    phases: np.ndarray
    """Of rows: intp."""
    chunks: np.ndarray
    """As in `CopiedAxis`."""
    vectors: int
    """Of a row of a phase."""

    @classmethod
    def of(
        cls, down: CopiedAxis, across: CopiedAxis, channels: int, rows: int, width: int, wide: int
    ) -> Copy:
        """For so many rows and columns of outputs, by vectors of so many numbers."""
        copied, pitch = down.positions(rows), across.positions(width)
        plane = copied * pitch
        return cls(
            channels, down.size, across.size, down.stride, across.stride, down.least,
            copied, pitch, plane, len(down.phases) * len(across.phases) * plane,
            np.array(down.phases, np.intp), across.chunks(pitch, wide), -(-pitch // wide),
        )  # fmt: skip

    def places(self, down: CopiedAxis, across: CopiedAxis, rows: AxisTaps, cols: AxisTaps) -> list[int]:
        """Where output 0 reads for each tap, row by row, in a channel's copy."""
        return [
            (i * len(across.phases) + j) * self.plane + r * self.pitch + s
            for (i, r), (j, s) in product(map(down.place, rows.offsets), map(across.place, cols.offsets))
        ]


def blocks_that_fit(
    down: CopiedAxis, across: CopiedAxis, channels: int, rows: int, width: int, dtype: np.dtype
) -> int:
    """Blocks of an image's output rows: as few as fit."""
    row_bytes = channels * len(down.phases) * len(across.phases) * across.positions(width) * dtype.itemsize
    fit = max(1, (BLOCK_BYTES // row_bytes - 1 - down.halo) // down.apart + 1)
    return -(-rows // fit)
