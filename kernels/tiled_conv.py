"""The `tiled` backend's forward and dx: what goes round the register tiles, compiled; and which way is taken.

See `tiled_plan` for how the work is cut up, and `tiled_tile` for the tiles. A task is a block of output rows
of one image and group, and a slice of the filters: it copies what it reads into its worker's part of the
workspace, and lays its tiles. Other ways are in `tiled_images`, `tiled_few`, `tiled_windows` and
`tiled_matrix`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange

from kernels import tiled_few, tiled_images, tiled_matrix, tiled_windows, tiled_windows_dx
from kernels.jit import Kernel, helper
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import Correlation
from kernels.tiled_copy import copy_block
from kernels.tiled_pack import pack_few, room_for
from kernels.tiled_plan import PART, Cut, Plan, plan
from kernels.tiled_record import column, entries, matrix
from kernels.tiled_vectors import call_emitted
from kernels.tiled_work import nothing


@Kernel
def correlate_blocks(source, w, bias, out, plan, memory):
    """out = source correlated with w, plus bias, if it is not empty; many weights are packed already."""
    pack_few(w, bias, plan[0].packing, memory)
    workers, tasks = plan[0].workers, plan[0].tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            lay_tiles(worker, task, source.ctypes.data, out.ctypes.data, plan, memory)


@helper
def lay_tiles(worker, task, source, out, plan, memory):
    """One task of it; `source` and `out` by their addresses."""
    p = plan[0]
    c, w = p.copy, p.packing
    parts = entries(p.parts, PART)
    tiles, panels, addresses = matrix(p.tiles), matrix(w.panels), matrix(p.addresses)
    size = memory.itemsize
    plane, down = p.out_height * p.out_width, p.step_down * p.out_width
    piece, block, unit = task % p.slices, task // p.slices % p.blocks, task // (p.slices * p.blocks)
    group = unit % w.groups
    origin = column(p.origins)[block]
    copied = memory.ctypes.data + (w.end + worker * p.of_worker) * size
    copy_block(memory.dtype.type(0), source + unit * c.channels * c.H * c.W * size, c.channels,
               origin * p.apart_down, c, copied)  # fmt: skip
    for n in range(piece * len(panels) // p.slices, (piece + 1) * len(panels) // p.slices):
        k, count = panels[n, 0], panels[n, 1]
        start = memory.ctypes.data + (w.bias + group * w.filters + k) * size
        packed = memory.ctypes.data + (group * w.of_group + panels[n, 4]) * size
        for part in parts:
            first = min(block * part.block, part.rows - part.block)
            taps, count_taps = p.table.address + part.taps * 16, part.end_of_taps - part.taps
            for i in range(part.tiles, part.end_of_tiles):
                row, col, width = tiles[i, 0], tiles[i, 1], tiles[i, 2]
                address = addresses[tiles[i, 3], panels[n, 2]]
                at = (first - origin + row) * p.row_step + col * p.apart_across
                to = out + (
                    (unit * w.filters + k) * plane
                    + (part.first_down + (first + row) * p.step_down) * p.out_width
                    + part.first_across + col * p.step_across
                ) * size  # fmt: skip
                if w.across_filters:
                    call_emitted(address, copied + at * size, p.row_step, packed, 0, taps, panels[n, 3],
                                 count_taps, to, plane, down, count, start)  # fmt: skip
                else:
                    call_emitted(address, packed, 1, copied + at * size, p.row_step, taps, 1,
                                 count_taps, to, plane, down, width, start)  # fmt: skip


def correlate(plan: Plan, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out = source correlated with w, plus bias, if it is not empty."""
    memory = room_for(plan, w, bias)
    correlate_blocks(plan.operations, source, w, bias, out, plan.record, memory)


class _Way(NamedTuple):
    """A way to correlate: its function, what that needs to know, whether it fills all outputs, its cost."""

    correlate: Callable[[Any, np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    plan: (
        Plan
        | tiled_windows.Plan
        | tiled_windows_dx.Plan
        | tiled_images.Plan
        | tiled_few.Plan
        | tiled_matrix.Plan
    )
    whole: bool
    cost: float


@lru_cache(maxsize=1024)
def way(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> _Way | None:
    """The one that costs least; None for dx where all windows lie in the padding."""
    if not Correlation.of(spec, op).parts:
        return None
    asked = spec, op, dtype, threads
    blocks = Cut.of(*asked)
    ways: list[tuple[Any, Any, Any, bool]] = [
        (tiled_few.Cut.of(*asked), tiled_few.correlate, tiled_few.plan, True),
        (tiled_windows.Cut.of(*asked), tiled_windows.correlate, tiled_windows.plan, True),
        (tiled_windows_dx.Cut.of(*asked), tiled_windows_dx.correlate, tiled_windows_dx.plan, True),
        (tiled_images.Cut.best(*asked), tiled_images.correlate, tiled_images.plan, True),
        (tiled_matrix.Cut.of_layer(*asked), tiled_matrix.correlate, tiled_matrix.plan, True),
        (blocks, correlate, plan, blocks.asked.whole),
    ]
    possible = (each for each in ways if each[0] is not None)
    cut, computes, planned, whole = min(possible, key=lambda each: each[0].cost)
    return _Way(computes, planned(cut), whole, cut.cost)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    _correlate("forward", spec, x, w, nothing(x.dtype) if b is None else b, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx; pixels that no window reads get zero."""
    _correlate("dx", spec, dy, w, nothing(dy.dtype), dx)


def _correlate(
    op: Op, spec: ConvSpec, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    found = way(spec, op, source.dtype, active())
    if found is None or not found.whole:
        out.fill(0)
    if found is not None:
        found.correlate(found.plan, source, w, bias, out)
