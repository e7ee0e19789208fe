"""The `tiled` backend's forward of few images with many weights: these are used as they lie.

Packing weights takes as long as multiplying each by some pixels. Where there are few pixels, it is what
windows read that is laid out: a row for each, of as many numbers as a filter has weights (im2col: K.
Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document Processing",
2006). An output is the dot of two rows; vectors hold partial sums, of some filters by some windows at once.
Each worker has all windows of an image, and some filters: weights, which are more, are read by one core only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_plan import shares
from kernels.tiled_record import Recorded
from kernels.tiled_tile import WORTH_A_LAUNCH
from kernels.tiled_vectors import call_emitted, cost_of_others, lanes
from kernels.tiled_windows_emit import block, dots, unfolder
from kernels.tiled_work import whole_lines, workspace, zeros

UNFOLDED = 4
_BLOCK = 60
"""Cycles that a window's row of a channel takes, and a block of dots besides its products."""
_FAR = 16
_NEAR_BYTES = 512 * 1024
"""Cycles that a vector of weights takes for each image but the first, if they are more than so many bytes."""
_MOST_BYTES = 512 * 1024
"""What an image's windows may take: beyond, they leave the second-level cache no room for weights."""
_MOST_TAPS = 32
"""Of a row: a mask has a bit for each."""


@dataclass(frozen=True, eq=False)
class Windows(Recorded):
    """A layer's windows, and what workers share out, forward and in dx; lengths and steps in elements."""

    groups: int
    channels: int
    filters: int
    """Of a group."""
    plane: int
    """Inputs of a channel."""
    count: int
    """Of an image."""
    taps: int
    weights: int
    """Of a filter and channel, and of a filter."""
    pitch: int
    """From a window's row to the next one's."""
    slices: int
    """Of an image and group, so that few images give work to all threads."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    of_worker: int
    memory: int
    """Elements of a worker's rows, and of all."""
    table: np.ndarray
    """Where a window's row lies in a plane, and among the windows, and its mask: intp (any, 3)."""

    @classmethod
    def of(
        cls, spec: ConvSpec, dtype: np.dtype, threads: int, slices: int, width: int, beside: int = 0
    ) -> Windows:
        """Whose rows hold `width` numbers; a worker needs some more `beside` them."""
        channels, taps, count = spec.C // spec.groups, spec.R * spec.S, spec.OH * spec.OW
        pitch = width + lanes(dtype)  # not a power of 2: rows would share few places of the cache
        of_worker = whole_lines(count * pitch + beside)
        return cls(
            groups=spec.groups, channels=channels, filters=spec.K // spec.groups, plane=spec.H * spec.W,
            count=count, taps=taps, weights=channels * taps, pitch=pitch, slices=slices, workers=threads,
            tasks=spec.N * spec.groups * slices, operations=spec.flops // WORTH_A_LAUNCH,
            of_worker=of_worker, memory=threads * of_worker, table=rows_of_windows(spec, pitch),
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """A forward convolution."""

    windows: Windows
    vectors: int
    """Of a row."""
    filters_at_once: int
    windows_at_once: int
    """Of a block."""
    dots: int
    unfolder: int
    """Addresses of what is compiled."""


class Cut(NamedTuple):
    """How it is cut up, as `threads` share it."""

    spec: ConvSpec
    dtype: np.dtype
    threads: int
    slices: int

    @classmethod
    def of(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut | None:
        """None for dx; and where filters are no whole vectors, windows too few for a block, or too large."""
        filters, at_once, windows = spec.K // spec.groups, block(dtype), spec.OH * spec.OW
        windows_bytes = windows * spec.C // spec.groups * spec.R * spec.S * dtype.itemsize
        if op != "forward" or not rows_are_copied(spec) or not has_whole_vectors(spec, lanes(dtype)):
            return None
        if filters < at_once.filters or windows < at_once.windows or windows_bytes > _MOST_BYTES:
            return None
        slices = min(shares(spec.N * spec.groups, threads), filters // at_once.filters)
        return cls(spec, dtype, threads, slices)

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self.spec.N * self.spec.groups * self.slices

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors."""
        spec, at_once, tasks = self.spec, block(self.dtype), -(-self.tasks // self.threads)
        channels, filters, windows = spec.C // spec.groups, spec.K // spec.groups, spec.OH * spec.OW
        weights = channels * spec.R * spec.S
        blocks = -(-filters // (self.slices * at_once.filters)) * -(-windows // at_once.windows)
        beside = tasks * (_BLOCK * blocks + UNFOLDED * windows * spec.R * channels)
        read = filters // self.slices * weights
        if read * self.dtype.itemsize > _NEAR_BYTES:
            beside += (tasks - 1) * _FAR * read // lanes(self.dtype)
        return tasks * blocks * weights + beside * cost_of_others()


def rows_are_copied(spec: ConvSpec) -> bool:
    """Whether a window's rows can be: their taps are neighbours, and not too many."""
    return spec.dilation[1] == 1 and spec.S <= _MOST_TAPS


def has_whole_vectors(spec: ConvSpec, wide: int) -> bool:
    """Whether a filter's weights are so many."""
    return spec.C // spec.groups * spec.R * spec.S % wide == 0


def rows_of_windows(spec: ConvSpec, pitch: int) -> np.ndarray:
    """Where each row of a window lies in a plane, and among the windows of a channel, and its mask."""
    rows, cols = spec.rows.taps(), spec.cols.taps()
    inside = spec.rows.valid()
    masks = (spec.cols.valid() << np.arange(spec.S)).sum(axis=1)
    return np.array(
        [
            (
                rows[i, r] * spec.W + cols[j, 0],
                (i * spec.OW + j) * pitch + r * spec.S,
                masks[j] * inside[i, r],
            )
            for i in range(spec.OH)
            for j in range(spec.OW)
            for r in range(spec.R)
        ],
        np.intp,
    )


def plan(cut: Cut) -> Plan:
    """How to compute it."""
    spec, dtype, at_once = cut.spec, cut.dtype, block(cut.dtype)
    weights = spec.C // spec.groups * spec.R * spec.S
    return Plan(
        Windows.of(spec, dtype, cut.threads, cut.slices, weights), weights // lanes(dtype), at_once.filters,
        at_once.windows, dots(dtype), unfolder(spec.S, dtype),
    )  # fmt: skip


@Kernel
def correlate_windows(source, w, bias, out, plan, memory):
    """out = source correlated with w, plus bias."""
    workers, tasks = plan[0].windows.workers, plan[0].windows.tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            multiply_windows(worker, task, source.ctypes.data, w.ctypes.data, bias.ctypes.data,
                             out.ctypes.data, plan, memory)  # fmt: skip


@helper
def multiply_windows(worker, task, source, w, bias, out, plan, memory):
    """One task of it: some filters of an image and group; arrays by their addresses."""
    p = plan[0]
    x = p.windows
    size = memory.itemsize
    piece, unit = task % x.slices, task // x.slices
    first = unit % x.groups * x.filters
    rows = memory.ctypes.data + worker * x.of_worker * size
    call_emitted(p.unfolder, source + unit * x.channels * x.plane * size, x.plane, rows, x.taps, x.channels,
                 x.table.address, x.table.rows, 0, 0, 0, 0, 0)  # fmt: skip
    begin, end = piece * x.filters // x.slices, (piece + 1) * x.filters // x.slices
    for filter in range(begin, end, p.filters_at_once):
        k = min(filter, end - p.filters_at_once)
        for window in range(0, x.count, p.windows_at_once):
            at = min(window, x.count - p.windows_at_once)
            to = out + ((unit * x.filters + k) * x.count + at) * size
            call_emitted(p.dots, w + (first + k) * x.weights * size, x.weights, rows + at * x.pitch * size,
                         x.pitch, p.vectors, bias + (first + k) * size, to, x.count, 0, 0, 0, 0)  # fmt: skip


def correlate(plan: Plan, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out = source correlated with w, plus bias, if it is not empty."""
    x = plan.windows
    memory = workspace("work", x.memory, source.dtype)
    if not len(bias):
        bias = zeros(x.groups * x.filters, source.dtype)
    correlate_windows(x.operations, source, w, bias, out, plan.record, memory)
