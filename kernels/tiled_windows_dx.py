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
from kernels.tiled_copy import lanes_of, size_of
from kernels.tiled_lay import most_numbers, split
from kernels.tiled_plan import shares
from kernels.tiled_record import Recorded, matrix, pointer
from kernels.tiled_tile import Shape, most_along, tile
from kernels.tiled_vectors import call_emitted, lanes, multiplications_a_cycle
from kernels.tiled_windows import UNFOLDED, Windows, has_whole_rows
from kernels.tiled_windows_emit import folder
from kernels.tiled_work import workspace, zeros

_DEPTH = 512
"""Filters that are summed up at a time: long sums are rounded more."""
_TILE = 50
"""Cycles that a tile takes besides its products."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """dx."""

    windows: Windows
    unit: int
    """Channels whose weights are whole vectors, as few as can be."""
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
    slices: int

    @classmethod
    def of(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut | None:
        """None for forward, and where rows are no whole vectors."""
        if op != "dx" or not has_whole_rows(spec, lanes(dtype)):
            return None
        units = spec.C // spec.groups // _unit(spec, dtype)
        return cls(spec, dtype, threads, min(shares(spec.N * spec.groups, threads), units))

    @property
    def channels(self) -> int:
        """Of a slice, at most."""
        unit = _unit(self.spec, self.dtype)
        return -(-(self.spec.C // self.spec.groups) // (unit * self.slices)) * unit

    @property
    def vectors(self) -> int:
        """Of a slice's weights of a filter, at most."""
        return self.channels * self.spec.R * self.spec.S // lanes(self.dtype)

    @property
    def along(self) -> set[int]:
        """How many of them are multiplied at a time."""
        each = _unit(self.spec, self.dtype) * self.spec.R * self.spec.S // lanes(self.dtype)
        least = self.spec.C // self.spec.groups // _unit(self.spec, self.dtype) // self.slices * each
        return set(split(least, most_along())) | set(split(self.vectors, most_along()))

    @property
    def numbers(self) -> int:
        """Windows that are multiplied at a time, at most."""
        return min(most_numbers(most_along()), self.spec.OH * self.spec.OW)

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self.spec.N * self.spec.groups * self.slices

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors."""
        spec, filters, windows = self.spec, self.spec.K // self.spec.groups, self.spec.OH * self.spec.OW
        tiles = -(-self.vectors // most_along()) * -(-windows // self.numbers) * -(-filters // _DEPTH)
        beside = _TILE * tiles + UNFOLDED * windows * spec.R * self.channels
        products = self.vectors * windows * filters
        return -(-self.tasks // self.threads) * (products + beside * multiplications_a_cycle())


def _unit(spec: ConvSpec, dtype: np.dtype) -> int:
    """Channels whose weights are whole vectors, as few as can be."""
    return lanes(dtype) // math.gcd(lanes(dtype), spec.R * spec.S)


def plan(cut: Cut) -> Plan:
    """How to compute it."""
    spec, dtype = cut.spec, cut.dtype
    windows = Windows.of(spec, dtype, cut.threads, cut.slices, cut.vectors * lanes(dtype))
    tiles = np.zeros((cut.numbers + 1, most_along() + 1), np.intp)
    for numbers in set(split(windows.count, cut.numbers)):
        for vectors in cut.along:
            tiles[numbers, vectors] = tile(Shape(1, numbers, 1, vectors), dtype)
    depth = min(windows.filters, _DEPTH)
    terms = np.outer(np.arange(depth), [windows.count, windows.weights])
    return Plan(
        windows, _unit(spec, dtype), depth, most_along(), cut.numbers, folder(spec.S, dtype),
        zeros(cut.numbers, dtype), terms, tiles,
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
    multiply_gradients(p, dy + unit * x.filters * x.count * size,
                       w + (unit % x.groups * x.filters * x.weights + first * x.taps) * size,
                       (end - first) * x.taps, rows, memory.dtype.type(0))  # fmt: skip
    planes = dx + (unit * x.channels + first) * x.plane * size
    numbers = carray(pointer(planes), ((end - first) * x.plane,), memory.dtype)
    for i in range(len(numbers)):
        numbers[i] = 0
    call_emitted(p.folder, planes, x.plane, rows, x.taps, end - first, x.table.address, x.table.rows,
                 0, 0, 0, 0, 0)  # fmt: skip


@helper
def multiply_gradients(p, dy, w, weights, rows, zero):
    """The rows of all windows: what so many weights of each filter give; addresses."""
    x, tiles = p.windows, matrix(p.tiles)
    size, wide = size_of(zero), lanes_of(zero)
    vectors = weights // wide
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
                             w + (begin * x.weights + at * wide) * size, 0, p.terms.address, 1, depth, to,
                             x.pitch, 0, along * wide, start)  # fmt: skip


def correlate(plan: Plan, dy: np.ndarray, w: np.ndarray, bias: np.ndarray, dx: np.ndarray) -> None:
    """dx from dy and w; there is no bias."""
    memory = workspace("work", plan.windows.memory, dy.dtype)
    correlate_gradients(plan.windows.operations, dy, w, dx, plan.record, memory)
