"""The `tiled` backend's forward and dx of small planes: vectors along images.

Some vectors of images are turned so that they lie side by side, and each pixel of the outputs is computed for
all of them at once, from the taps that lie inside the plane: nothing is padded, nothing is multiplied by the
padding's zeros, and rows may be as short as they like. The results are turned back.

Lanes along the batch are the layout of A. Krizhevsky's cuda-convnet (CHWN, 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_axis import AxisTaps, Correlation, Inside
from kernels.tiled_copy import lanes_of, turn, turner
from kernels.tiled_lay import cost_of_pixels, most_vectors
from kernels.tiled_pack import Packing
from kernels.tiled_plan import shares
from kernels.tiled_record import Recorded, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import whole_lines

_TILE = 100
_VECTOR = 1
_TURNED = 2
"""What a tile takes besides its taps, a vector of inputs for each tap, and a number that is turned, in
multiplications of vectors."""
_NEAR_BYTES = 512 * 1024
_FARTHER = 0.13
"""A task takes this much longer each time that its inputs and results double beyond so many bytes."""
_MOST_BYTES = 2 * 1024 * 1024
"""What inputs and results may take: beyond, they fit no second-level cache."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """A correlation of planes with images side by side; lengths and steps in elements."""

    packing: Packing
    inputs: int
    """Of an image and group."""
    outputs: int
    """Pixels of a plane."""
    images: int
    together: int
    """Images of a task: whole vectors. The last task may begin before its neighbour ends."""
    slices: int
    """Of the filters, so that few images give work to all threads."""
    workers: int
    tasks: int
    """Shared out among so many workers."""
    operations: int
    """In the sense of `Kernel`."""
    turner: int
    """The address of what turns squares."""
    results: int
    """Where a worker's results begin, behind its inputs."""
    of_worker: int
    """Elements of a worker's part of the workspace; these come behind what is packed."""
    memory: int
    """The workspace in all."""
    address: int
    """Of the compiled tile."""
    pixels: np.ndarray
    """Where each output's place among the inputs is, its first tap, and how many: intp (outputs, 3)."""
    table: np.ndarray
    """Where the weights and inputs of taps lie, as tiles take it: intp (taps, 2)."""


class _Cut(NamedTuple):
    """How a correlation is cut up, and the time of a thread for its share, in multiplications of vectors."""

    cost: float
    numbers: int
    vectors: int
    """Filters, and vectors of images, of a tile."""
    slices: int


def cost(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> float:
    """The time of a thread for its share, in multiplications of vectors; infinite for few or large images."""
    asked = Correlation.of(spec, op)
    if lanes(dtype) > spec.N or _room(asked, 1, lanes(dtype), dtype) > _MOST_BYTES:
        return math.inf
    return _cut(spec, asked, dtype, threads).cost


def _room(asked: Correlation, numbers: int, together: int, dtype: np.dtype) -> int:
    """Bytes of a task's inputs and results."""
    return (asked.inputs + numbers * math.prod(asked.plane)) * together * dtype.itemsize


def plan(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Plan:
    """How to compute forward, or dx; there are at least as many images as lanes."""
    asked = Correlation.of(spec, op)
    cut = _cut(spec, asked, dtype, threads)
    together = cut.vectors * lanes(dtype)
    firsts = range(0, asked.filters, cut.numbers)
    panels = [(min(first, asked.filters - cut.numbers), cut.numbers, 0, cut.numbers) for first in firsts]
    packing = Packing.of(asked, spec.groups, panels, False, dtype)
    pixels, table = _taps(asked, cut.numbers, together)
    inputs, outputs = asked.inputs, len(pixels)
    results = whole_lines(inputs * together)
    of_worker = results + whole_lines(cut.numbers * outputs * together)
    return Plan(
        packing=packing, inputs=inputs, outputs=outputs, images=spec.N, together=together, slices=cut.slices,
        workers=threads, tasks=-(-spec.N // together) * spec.groups * cut.slices,
        operations=spec.flops // WORTH_A_LAUNCH, turner=turner(dtype),
        results=results, of_worker=of_worker, memory=packing.end + threads * of_worker,
        address=tile(Shape(1, cut.numbers, 1, cut.vectors), dtype), pixels=pixels, table=table,
    )  # fmt: skip


def _cut(spec: ConvSpec, asked: Correlation, dtype: np.dtype, threads: int) -> _Cut:
    """The one that costs least."""
    wide, outputs = lanes(dtype), math.prod(asked.plane)
    inside = asked.channels * _inside(asked.rows) * _inside(asked.cols)

    def cut(numbers: int, vectors: int) -> _Cut:
        together = vectors * wide
        panels = -(-asked.filters // numbers)
        tasks = -(-spec.N // together) * spec.groups
        slices = min(shares(tasks, threads), panels)
        tiles = inside * (cost_of_pixels(numbers, vectors) + _VECTOR * vectors) + _TILE * outputs
        task = (
            -(-panels // slices) * (tiles + _TURNED * numbers * outputs * together)
            + _TURNED * asked.inputs * together
        )
        room = _room(asked, numbers, together, dtype)
        if room > _MOST_BYTES:
            return _Cut(math.inf, numbers, vectors, slices)
        far = 1 + _FARTHER * max(0.0, math.log2(room / _NEAR_BYTES))
        return _Cut(-(-tasks * slices // threads) * task * far, numbers, vectors, slices)

    return min(
        cut(numbers, vectors)
        for numbers in range(1, min(asked.filters, registers()) + 1)
        for vectors in range(1, min(most_vectors(numbers), spec.N // wide) + 1)
    )


def _inside(parts: tuple[AxisTaps, ...]) -> int:
    """Taps along an axis, of all outputs, that lie inside."""
    return sum(len(inside) for part in parts for _, inside in part.inside())


def _taps(asked: Correlation, numbers: int, together: int) -> tuple[np.ndarray, np.ndarray]:
    """`Plan.pixels` and `Plan.table`; outputs that read the same taps share their rows of the table."""
    width, taps = asked.cols[0].size, min(asked.per_filter, asked.per_channel)
    plane = asked.rows[0].size * width
    channels = np.arange(asked.channels)[:, None]
    pixels = np.zeros((*asked.plane, 3), np.intp)
    table = [np.empty((0, 2), np.intp)]
    kinds: dict[tuple[Inside, Inside], tuple[int, int]] = {}
    for rows, cols in asked.parts:
        for (i, down), (j, along) in product(rows.inside(), cols.inside()):
            if (down, along) not in kinds:
                pairs = list(product(down, along))
                order = np.array([r * asked.kernel + s for (_, r), (_, s) in pairs], np.intp)
                places = np.array([r * width + s for (r, _), (s, _) in pairs], np.intp)
                weights, inputs = channels * taps + order, channels * plane + places
                kinds[down, along] = sum(map(len, table)), weights.size
                table.append(np.column_stack([weights.ravel() * numbers, inputs.ravel() * together]))
            place = (i * rows.stride * width + j * cols.stride) * together
            pixels[i * rows.step + rows.first, j * cols.step + cols.first] = place, *kinds[down, along]
    return pixels.reshape(-1, 3), np.concatenate(table)


@Kernel
def correlate_images(source, out, plan, memory):
    """out = source correlated with what is packed, plus bias."""
    workers, tasks = plan[0].workers, plan[0].tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            compute_images(worker, task, source.ctypes.data, out.ctypes.data, plan, memory)


@helper
def compute_images(worker, task, source, out, plan, memory):
    """One task of it; `source` and `out` by their addresses."""
    p = plan[0]
    w, pixels = p.packing, matrix(p.pixels)
    panels = matrix(w.panels)
    zero = memory.dtype.type(0)
    size = memory.itemsize
    piece, group, block = task % p.slices, task // p.slices % w.groups, task // (p.slices * w.groups)
    unit = min(block * p.together, p.images - p.together) * w.groups + group
    copied = memory.ctypes.data + (w.end + worker * p.of_worker) * size
    results = copied + p.results * size
    turn(zero, p.turner, source + unit * p.inputs * size, p.together, w.groups * p.inputs, p.inputs,
         copied, p.together, 1)  # fmt: skip
    for n in range(piece * len(panels) // p.slices, (piece + 1) * len(panels) // p.slices):
        k, count = panels[n, 0], panels[n, 1]
        start = memory.ctypes.data + (w.bias + group * w.filters + k) * size
        packed = memory.ctypes.data + (group * w.of_group + panels[n, 4]) * size
        for i in range(p.outputs):
            call_emitted(p.address, packed, 1, copied + pixels[i, 0] * size, 0,
                         p.table.address + pixels[i, 1] * 16, 1, pixels[i, 2],
                         results + i * p.together * size, p.outputs * p.together, 0,
                         p.together, start)  # fmt: skip
        to = out + (unit * w.filters + k) * p.outputs * size
        apart = w.groups * w.filters * p.outputs
        for first in range(0, p.together, lanes_of(zero)):
            turn(zero, p.turner, results + first * size, count * p.outputs, p.together, lanes_of(zero),
                 to + first * apart * size, apart, 0)  # fmt: skip
