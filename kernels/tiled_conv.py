"""The `tiled` backend's forward and dx: what goes round the register tiles, compiled.

See `tiled_plan` for how the work is cut up, and `tiled_tile` for the tiles. A task is a block of output rows
of one image and group, and a slice of the filters: it copies what it reads into its worker's part of the
workspace, and lays its tiles.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_copy import copy_chunk, size_of, turn, turner
from kernels.tiled_plan import Plan, plan
from kernels.tiled_tile import WORTH_A_LAUNCH
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import workspace, zeros


@helper
def copy_block(zero, source, channels, first, copy, phases_down, chunks, target):
    """The rows from position `first` on, of so many channels of one image, padded; addresses."""
    g = copy[0]
    size = size_of(zero)
    step, pitch = g.stride_across, g.pitch * size
    for c in range(channels):
        plane = source + c * g.H * g.W * size
        for i in range(len(phases_down)):
            for j in range(len(chunks)):
                for q in range(g.rows):
                    ih = (first + q + g.least) * g.stride_down + phases_down[i]
                    row = plane + ih * g.W * size
                    inside = 0 <= ih < g.H
                    for n in range(chunks.shape[1]):
                        one, two = chunks[j, n, 2], chunks[j, n, 3]
                        copy_chunk(zero, row + chunks[j, n, 0] * size, target + chunks[j, n, 1] * size,
                                   one if inside else 0, two if inside else 0, step)  # fmt: skip
                    target += pitch


@Kernel
def pack(w, groups, outer, outer_step, inner, vectors, panels, turner, packed):
    """packed = for each group and panel (outer, inner, filters of it); whole `vectors` are padded with zeros.

    Of each group, filter k has its weights at o * outer_step + k * inner, `inner` of them in a row.
    """
    size = w.itemsize
    zero = w.dtype.type(0)
    for job in prange(groups * len(panels) * outer):
        o, p, group = job % outer, job // outer % len(panels), job // (outer * len(panels))
        source = group * (len(w) // groups) + o * outer_step + panels[p, 0] * inner
        target = group * (len(packed) // groups) + panels[p, 4] + o * inner * panels[p, 3]
        turn(zero, turner, w.ctypes.data + source * size, panels[p, 1], inner, inner,
             packed.ctypes.data + target * size, panels[p, 3], vectors)  # fmt: skip


@Kernel
def correlate(
    workers, tasks, source, packed, bias, out, copy, geometry, parts, origins, phases_down, chunks, table,
    tiles, panels, addresses, work,
):  # fmt: skip
    """out = source correlated with `packed` weights, plus bias; all flat."""
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            lay_tiles(
                worker, task, source, packed, bias, out, copy, geometry, parts, origins, phases_down, chunks,
                table, tiles, panels, addresses, work,
            )  # fmt: skip


@helper
def lay_tiles(
    worker, task, source, packed, bias, out, copy, geometry, parts, origins, phases_down, chunks, table,
    tiles, panels, addresses, work,
):  # fmt: skip
    """One task of it."""
    g, c = geometry[0], copy[0]
    size = work.itemsize
    zero = work.dtype.type(0)
    plane, down = g.out_height * g.out_width, g.step_down * g.out_width
    piece, block, unit = task % g.slices, task // g.slices % g.blocks, task // (g.slices * g.blocks)
    origin = origins[block]
    copied = work.ctypes.data + worker * g.work * size
    copy_block(zero, source.ctypes.data + unit * c.channels * c.H * c.W * size, c.channels,
               origin * g.apart_down, copy, phases_down, chunks, copied)  # fmt: skip
    for p in range(piece * len(panels) // g.slices, (piece + 1) * len(panels) // g.slices):
        k, count = panels[p, 0], panels[p, 1]
        group = unit % g.groups
        start = bias.ctypes.data + (group * g.filters + k) * size
        w = packed.ctypes.data + (group * (len(packed) // g.groups) + panels[p, 4]) * size
        for n in range(len(parts)):
            part = parts[n]
            first = min(block * part.block, part.rows - part.block)
            taps, count_taps = table.ctypes.data + part.taps * 16, part.end_of_taps - part.taps
            for i in range(part.tiles, part.end_of_tiles):
                row, col, width = tiles[i, 0], tiles[i, 1], tiles[i, 2]
                address = addresses[tiles[i, 3], panels[p, 2]]
                at = (first - origin + row) * g.row_step + col * g.apart_across
                to = out.ctypes.data + (
                    (unit * g.filters + k) * plane
                    + (part.first_down + (first + row) * g.step_down) * g.out_width
                    + part.first_across + col * g.step_across
                ) * size  # fmt: skip
                if g.across_filters:
                    call_emitted(address, copied + at * size, g.row_step, w, 0, taps, panels[p, 3],
                                 count_taps, to, plane, down, count, start)  # fmt: skip
                else:
                    call_emitted(address, w, 1, copied + at * size, g.row_step, taps, 1,
                                 count_taps, to, plane, down, width, start)  # fmt: skip


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    found = plan(spec, "forward", x.dtype, active())
    assert found is not None
    wide = lanes(x.dtype)
    bias = zeros(spec.K, x.dtype) if b is None else b if spec.K // spec.groups % wide == 0 else _padded(b)
    _correlate(found, spec.flops, x, w, bias, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx, all phases from one copy of dy; pixels that no window reads get zero."""
    found = plan(spec, "dx", dy.dtype, active())
    if found is None or not found.whole:
        dx.fill(0)
    if found is not None:
        _correlate(found, spec.flops, dy, w, zeros(spec.C, dy.dtype), dx)


def _correlate(
    found: Plan, flops: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    workers = active()
    packed = workspace("weights", found.packed, w.dtype)
    pack(w.size, w.reshape(-1), *found.packing, found.vectors, found.panels, turner(w.dtype), packed)
    correlate(
        flops // WORTH_A_LAUNCH, workers, len(source) * found.tasks_per_image, source.reshape(-1), packed,
        bias, out.reshape(-1), found.copy, found.geometry, found.parts, found.origins, found.phases_down,
        found.chunks, found.table, found.tiles, found.panels, found.addresses,
        workspace("work", workers * found.work, source.dtype),
    )  # fmt: skip


def _padded(bias: np.ndarray) -> np.ndarray:
    """The bias with zeros behind it: a tile reads whole vectors of it."""
    return np.concatenate([bias, zeros(0, bias.dtype)])
