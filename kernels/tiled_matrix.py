"""Products of matrices by register tiles, for Linear layers: compiled loops share their threads.

NumPy's BLAS has threads of its own: where they take turns with those of convolutions, either have to be woken
up, and BLAS shares small products badly.

A panel of columns of the second matrix is packed side by side, some rows at a time, and stays in the cache
while tiles go down the first one (K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import prange

from kernels.arrays import readonly
from kernels.jit import Kernel, helper
from kernels.threads import active
from kernels.tiled_copy import lanes_of, load_lanes, size_of, turn, turner
from kernels.tiled_lay import spans
from kernels.tiled_plan import shares
from kernels.tiled_record import Recorded, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import whole_lines, workspace, zeros

_DEPTH = 512
"""Products that are summed up at a time: long sums are rounded more."""
_MOST_VECTORS = 4
_MOST_NUMBERS = 8
"""Of a tile."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """A product (rows, depth) by (depth, columns); steps in elements."""

    depth: int
    columns: int
    row_step: int
    depth_step: int
    """In the first matrix."""
    turned: int
    """Whether the second one lies in memory the other way round."""
    panel: int
    """Columns of a panel: whole vectors."""
    most: int
    """Rows of it that are packed at a time."""
    slices: int
    """Of the rows of a product, so that few panels give work to all threads."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    of_worker: int
    memory: int
    """Elements of a worker's panel, and of all."""
    turner: int
    """The address of what turns squares."""
    zeros: np.ndarray
    """What sums begin at."""
    table: np.ndarray
    """Where numbers and vectors of a product's terms lie, as tiles take it: intp (most, 2)."""
    tiles: np.ndarray
    """First row, and the address of the tile: intp (tiles, 2)."""


@lru_cache(maxsize=256)
def plan(
    rows: int, depth: int, columns: int, upright: bool, turned: bool, dtype: np.dtype, threads: int
) -> Plan:
    """How to multiply; the first matrix is `upright` where its rows lie one behind the other."""
    wide = lanes(dtype)
    vectors = min(_MOST_VECTORS, -(-columns // wide))
    numbers = min(_MOST_NUMBERS, registers() // vectors)
    panel, most = vectors * wide, min(depth, _DEPTH)
    row_step, depth_step = (depth, 1) if upright else (1, rows)
    spread = list(spans(rows, numbers))
    shapes = {
        count: Shape(count, 1, 1, vectors) if upright else Shape(1, count, 1, vectors) for _, count in spread
    }
    panels = -(-columns // panel)
    slices = min(shares(panels, threads), len(spread))
    of_worker = whole_lines(most * panel)
    return Plan(
        depth=depth, columns=columns, row_step=row_step, depth_step=depth_step, turned=turned, panel=panel,
        most=most, slices=slices, workers=threads, tasks=panels * slices,
        operations=2 * rows * depth * columns // WORTH_A_LAUNCH, of_worker=of_worker,
        memory=threads * of_worker, turner=turner(dtype), zeros=zeros(numbers, dtype),
        table=np.array([(i * depth_step, i) for i in range(most)], np.intp),
        tiles=np.array([(first, tile(shapes[count], dtype)) for first, count in spread], np.intp),
    )  # fmt: skip


@Kernel
def multiply(a, b, out, plan, memory):
    """out = a times b, both by rows or by columns."""
    workers, tasks = plan[0].workers, plan[0].tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            multiply_panel(worker, task, a.ctypes.data, b.ctypes.data, out.ctypes.data, plan, memory)


@helper
def multiply_panel(worker, task, a, b, out, plan, memory):
    """One task of it: some rows times a panel; matrices by their addresses."""
    p = plan[0]
    tiles = matrix(p.tiles)
    size = memory.itemsize
    panel, piece = task // p.slices, task % p.slices
    column = panel * p.panel
    columns = min(p.panel, p.columns - column)
    packed = memory.ctypes.data + worker * p.of_worker * size
    for begin in range(0, p.depth, p.most):
        depth = min(p.most, p.depth - begin)
        pack_panel(b, begin, depth, column, columns, p, memory.dtype.type(0), packed)
        start = p.zeros.address if begin == 0 else 0
        for i in range(piece * len(tiles) // p.slices, (piece + 1) * len(tiles) // p.slices):
            row = tiles[i, 0]
            call_emitted(tiles[i, 1], a + (row * p.row_step + begin * p.depth_step) * size, p.row_step,
                         packed, 0, p.table.address, p.panel, depth,
                         out + (row * p.columns + column) * size, p.columns, 0, columns, start)  # fmt: skip


@helper
def pack_panel(b, begin, depth, column, columns, p, zero, packed):
    """Some rows of a panel; addresses."""
    size, wide = size_of(zero), lanes_of(zero)
    if p.turned:
        turn(
            zero, p.turner, b + (column * p.depth + begin) * size, columns, p.depth, depth, packed, p.panel, 1
        )
        return
    for i in range(depth):
        source, target = b + ((begin + i) * p.columns + column) * size, packed + i * p.panel * size
        for first in range(0, columns, wide):
            inside = (1 << min(wide, columns - first)) - 1
            load_lanes(zero, source + first * size, target + first * size, inside, 0, 0)


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (A, B) = a (A, D) times b (D, B), float32 or float64, all of one dtype; D is 1 or more.

    `out` is C-contiguous; so are a and b, or what they are the transposes of, else they are copied.
    """
    found = plan(*a.shape, b.shape[1], not _turned(a), _turned(b), out.dtype, active())
    memory = workspace("work", found.memory, out.dtype)
    multiply(found.operations, _in_rows(a), _in_rows(b), out, found.record, memory)


def _turned(array: np.ndarray) -> bool:
    """Whether its columns lie one behind the other, and not its rows."""
    flags = array.flags
    return flags.f_contiguous and not flags.c_contiguous


def _in_rows(array: np.ndarray) -> np.ndarray:
    """As it lies in memory."""
    return readonly(np.ascontiguousarray(array.T if _turned(array) else array).view())
