"""The `tiled` backend's dx of few images with many weights: these are used as they lie (see `tiled_windows`).

What a window's inputs get is a row of as many numbers as a filter has weights: the sum over all filters of
weights times the window's gradient. Vectors lie along weights, and numbers are gradients of some windows:
register tiles read both as they are. Each row is then added to the inputs that its window reads (col2im).
Workers share out the channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import carray, prange

from kernels.jit import Kernel, helper
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_copy import lanes_of, load_lanes, size_of
from kernels.tiled_lay import most_numbers, split
from kernels.tiled_plan import shares
from kernels.tiled_record import Recorded, matrix, pointer
from kernels.tiled_tile import Shape, most_along, tile
from kernels.tiled_vectors import call_emitted, lanes, multiplications_a_cycle
from kernels.tiled_windows import UNFOLDED, Windows, has_whole_vectors, rows_are_copied
from kernels.tiled_windows_emit import folder
from kernels.tiled_work import workspace, zeros

_DEPTH = 512
"""Filters that are summed up at a time: long sums are rounded more."""
_TILE = 50
_COPIED = 4
"""Cycles that a tile takes besides its products, and a vector of weights that is copied."""
_MOST_BYTES = 1024 * 1024
"""What a worker's windows of an image may take: they are to stay in the second-level cache."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """dx."""

    windows: Windows
    unit: int
    """Channels of which each slice has some."""
    copies: int
    """Whether weights are copied: where a filter's are no whole vectors."""
    row: int
    """From a filter's weights to the next one's, as tiles read them."""
    depth: int
    vectors: int
    numbers: int
    """Filters, vectors of weights and windows that are multiplied at a time, at most."""
    folder: int
    """The address of what adds rows to planes."""
    zeros: np.ndarray
    """What sums begin at."""
    terms: np.ndarray
    """Where numbers and vectors of the filters lie, as tiles take it: intp (depth, 2)."""
    tiles: np.ndarray
    """intp (numbers + 1, vectors + 1): the addresses of the tiles."""


class Cut(NamedTuple):
    """How it is cut up, as `threads` share it."""

    spec: ConvSpec
    dtype: np.dtype
    threads: int
    unit: int
    """Channels of which each slice has some."""
    slices: int

    @classmethod
    def of(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut | None:
        """None for forward, and where windows are too large, or their rows are."""
        if op != "dx" or not rows_are_copied(spec):
            return None
        channels, unit = spec.C // spec.groups, lanes(dtype) // math.gcd(lanes(dtype), spec.R * spec.S)
        if channels % unit:
            unit = channels
        cut = cls(spec, dtype, threads, unit, min(shares(spec.N * spec.groups, threads), channels // unit))
        windows_bytes = spec.OH * spec.OW * cut.vectors(cut.sizes[1]) * lanes(dtype) * dtype.itemsize
        return cut if windows_bytes <= _MOST_BYTES else None

    @property
    def copies(self) -> bool:
        """Whether weights are copied, so that each filter has whole vectors."""
        return not has_whole_vectors(self.spec, lanes(self.dtype))

    @property
    def sizes(self) -> tuple[int, int]:
        """Channels of a slice: at least, and at most."""
        units = self.spec.C // self.spec.groups // self.unit
        return units // self.slices * self.unit, -(-units // self.slices) * self.unit

    def vectors(self, channels: int) -> int:
        """Of a filter's weights of so many channels."""
        return -(-channels * self.spec.R * self.spec.S // lanes(self.dtype))

    @property
    def along(self) -> set[int]:
        """How many vectors are multiplied at a time."""
        return {along for each in self.sizes for along in split(self.vectors(each), most_along())}

    @property
    def numbers(self) -> int:
        """Windows that are multiplied at a time, at most."""
        return min(most_numbers(max(self.along)), self.spec.OH * self.spec.OW)

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self.spec.N * self.spec.groups * self.slices

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors."""
        spec, filters, windows = self.spec, self.spec.K // self.spec.groups, self.spec.OH * self.spec.OW
        channels = self.sizes[1]
        vectors = self.vectors(channels)
        tiles = -(-vectors // most_along()) * -(-windows // self.numbers) * -(-filters // _DEPTH)
        beside = _TILE * tiles + UNFOLDED * windows * spec.R * channels
        beside += _COPIED * filters * vectors * self.copies
        products = vectors * windows * filters
        return -(-self.tasks // self.threads) * (products + beside * multiplications_a_cycle())


def plan(cut: Cut) -> Plan:
    """How to compute it."""
    spec, dtype, wide = cut.spec, cut.dtype, lanes(cut.dtype)
    filters, width = spec.K // spec.groups, cut.vectors(cut.sizes[1]) * wide
    copied = filters * width if cut.copies else 0
    windows = Windows.of(spec, dtype, cut.threads, cut.slices, width, copied)
    tiles = np.zeros((cut.numbers + 1, most_along() + 1), np.intp)
    for numbers in set(split(windows.count, cut.numbers)):
        for vectors in cut.along:
            tiles[numbers, vectors] = tile(Shape(1, numbers, 1, vectors), dtype)
    depth, row = min(filters, _DEPTH), width if cut.copies else windows.weights
    return Plan(
        windows, cut.unit, cut.copies, row, depth, most_along(), cut.numbers, folder(spec.S, dtype),
        zeros(cut.numbers, dtype), np.outer(np.arange(depth), [windows.count, row]), tiles,
    )  # fmt: skip


@Kernel
def correlate_gradients(dy, w, dx, plan, memory):
    """dx = dy times w, added where windows lie."""
    workers, tasks = plan[0].windows.workers, plan[0].windows.tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            add_windows(worker, task, dy.ctypes.data, w.ctypes.data, dx.ctypes.data, plan, memory)


@helper
def add_windows(worker, task, dy, w, dx, plan, memory):
    """One task of it: some channels of an image and group; arrays by their addresses."""
    p = plan[0]
    x = p.windows
    size = memory.itemsize
    piece, unit = task % x.slices, task // x.slices
    units = x.channels // p.unit
    first, end = piece * units // x.slices * p.unit, (piece + 1) * units // x.slices * p.unit
    rows = memory.ctypes.data + worker * x.of_worker * size
    zero = memory.dtype.type(0)
    weights = w + (unit % x.groups * x.filters * x.weights + first * x.taps) * size
    if p.copies:
        copied = rows + x.count * x.pitch * size
        copy_weights(p, weights, copied, zero)
        weights = copied
    multiply_gradients(p, dy + unit * x.filters * x.count * size, weights, (end - first) * x.taps, rows, zero)
    planes = dx + (unit * x.channels + first) * x.plane * size
    numbers = carray(pointer(planes), ((end - first) * x.plane,), memory.dtype)
    for i in range(len(numbers)):
        numbers[i] = 0
    call_emitted(p.folder, planes, x.plane, rows, x.taps, end - first, x.table.address, x.table.rows,
                 0, 0, 0, 0, 0)  # fmt: skip


@helper
def copy_weights(p, source, target, zero):
    """All of a group, a row of whole vectors for each filter; addresses."""
    size, wide = size_of(zero), lanes_of(zero)
    for k in range(p.windows.filters):
        of_filter, row = source + k * p.windows.weights * size, target + k * p.row * size
        for i in range(0, p.row, wide):
            inside = (1 << min(wide, p.windows.weights - i)) - 1
            load_lanes(zero, of_filter + i * size, row + i * size, inside, 0, 0)


@helper
def multiply_gradients(p, dy, w, weights, rows, zero):
    """The rows of all windows: what so many weights of each filter give; addresses."""
    x, tiles = p.windows, matrix(p.tiles)
    size, wide = size_of(zero), lanes_of(zero)
    vectors = (weights + wide - 1) // wide
    panels = (vectors + p.vectors - 1) // p.vectors
    blocks = (x.count + p.numbers - 1) // p.numbers
    for panel in range(panels):
        at = panel * vectors // panels
        along = (panel + 1) * vectors // panels - at
        for begin in range(0, x.filters, p.depth):
            depth, start = min(p.depth, x.filters - begin), p.zeros.address if begin == 0 else 0
            for block in range(blocks):
                n = block * x.count // blocks
                count = (block + 1) * x.count // blocks - n
                to = rows + (n * x.pitch + at * wide) * size
                call_emitted(tiles[count, along], dy + (begin * x.count + n) * size, 1,
                             w + (begin * p.row + at * wide) * size, 0, p.terms.address, 1, depth, to,
                             x.pitch, 0, along * wide, start)  # fmt: skip


def correlate(plan: Plan, dy: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
    """dx from dy and w; there is no bias."""
    memory = workspace("work", plan.windows.memory, dy.dtype)
    correlate_gradients(plan.windows.operations, dy, w, dx, plan.record, memory)
