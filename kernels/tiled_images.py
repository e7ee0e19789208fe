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
from kernels.tiled_axis import Correlation, Inside
from kernels.tiled_copy import lanes_of, turn, turner
from kernels.tiled_lay import cost_of_pixels, most_vectors
from kernels.tiled_pack import Packing, pack_few, room_for
from kernels.tiled_plan import packing_cost, shares
from kernels.tiled_record import Recorded, matrix
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, registers, tile
from kernels.tiled_vectors import call_emitted, cost_of_others, lanes, multiplications_a_cycle
from kernels.tiled_work import whole_lines

_TILE = 100
_VECTOR = 1
_TURNED = 2
"""What a tile takes besides its taps, a vector of inputs for each tap, and a number that is turned, in
multiplications of vectors, of which two start in a cycle."""
_NEAR_BYTES = 512 * 1024
_FARTHER = 0.13
"""A task takes this much longer each time that its inputs and results double beyond so many bytes."""
_AHEAD = 64
"""Inputs, by which what is asked for is ahead of what is turned."""
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
    results: int
    """Where a worker's results begin, behind its inputs."""
    of_worker: int
    """Elements of a worker's part of the workspace; these come behind what is packed."""
    memory: int
    """The workspace in all."""
    address: int
    """Of the compiled tile."""
    turner: int
    """Of what turns inputs."""
    pixels: np.ndarray
    """Where each output's place among the inputs is, its first tap, and how many: intp (outputs, 3)."""
    table: np.ndarray
    """Where the weights and inputs of taps lie, as tiles take it: intp (taps, 2)."""


class Cut(NamedTuple):
    """How a correlation is cut up, as `threads` share it."""

    spec: ConvSpec
    asked: Correlation
    inside: int
    """Taps of all outputs of a filter that lie inside the planes."""
    dtype: np.dtype
    threads: int
    numbers: int
    vectors: int
    """Filters, and vectors of images, of a tile."""

    @classmethod
    def best(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut | None:
        """The one that costs least; None where images are too few for a vector, or too large."""
        asked = Correlation.of(spec, op)
        inside = asked.channels * int(spec.rows.valid().sum()) * int(spec.cols.valid().sum())
        cuts = (
            cls(spec, asked, inside, dtype, threads, numbers, vectors)
            for numbers in range(1, min(asked.filters, registers()) + 1)
            for vectors in range(1, min(most_vectors(numbers), spec.N // lanes(dtype)) + 1)
        )
        return min((cut for cut in cuts if cut.room <= _MOST_BYTES), key=lambda cut: cut.cost, default=None)

    @property
    def together(self) -> int:
        """Images of a task."""
        return self.vectors * lanes(self.dtype)

    @property
    def outputs(self) -> int:
        """Pixels of a plane."""
        return math.prod(self.asked.plane)

    @property
    def firsts(self) -> range:
        """The first filter of each panel, but for the last one's, which may begin earlier."""
        return range(0, self.asked.filters, self.numbers)

    @property
    def slices(self) -> int:
        """Of the filters, so that few images give work to all threads."""
        return min(shares(self._blocks, self.threads), len(self.firsts))

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self._blocks * self.slices

    @property
    def _blocks(self) -> int:
        return -(-self.spec.N // self.together) * self.spec.groups

    @property
    def room(self) -> int:
        """Bytes of a task's inputs and results."""
        return (self.asked.inputs + self.numbers * self.outputs) * self.together * self.dtype.itemsize

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors."""
        beside = cost_of_others() / 2
        operation = multiplications_a_cycle() / 4
        tap = cost_of_pixels(self.numbers, self.vectors, operation) + 2 * operation * _VECTOR * self.vectors
        results = _TURNED * self.numbers * self.together
        panel = self.inside * tap + beside * (_TILE + results) * self.outputs
        inputs = beside * _TURNED * self.asked.inputs * self.together
        task = -(-len(self.firsts) // self.slices) * panel + inputs
        far = 1 + _FARTHER * max(0.0, math.log2(self.room / _NEAR_BYTES))
        share = -(-self.tasks // self.threads) * task * far
        return share + packing_cost(self.asked, self.spec.groups, self.threads)


def plan(cut: Cut) -> Plan:
    """How to compute forward, or dx."""
    spec, asked, dtype, together, numbers = cut.spec, cut.asked, cut.dtype, cut.together, cut.numbers
    panels = [(min(first, asked.filters - numbers), numbers, 0, numbers) for first in cut.firsts]
    packing = Packing.of(asked, spec.groups, panels, False, dtype)
    pixels, table = _taps(asked, numbers, together)
    results = whole_lines(asked.inputs * together)
    of_worker = results + whole_lines(numbers * cut.outputs * together)
    return Plan(
        packing=packing, inputs=asked.inputs, outputs=cut.outputs, images=spec.N, together=together,
        slices=cut.slices, workers=cut.threads, tasks=cut.tasks, operations=spec.flops // WORTH_A_LAUNCH,
        results=results, of_worker=of_worker, memory=packing.end + cut.threads * of_worker,
        address=tile(Shape(1, numbers, 1, cut.vectors), dtype),
        turner=turner(dtype, asks=True), pixels=pixels, table=table,
    )  # fmt: skip


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
def correlate_images(source, w, bias, out, plan, memory):
    """out = source correlated with w, plus bias, if it is not empty; many weights are packed already."""
    pack_few(w, bias, plan[0].packing, memory)
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
         copied, p.together, 1, _AHEAD)  # fmt: skip
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
            turn(zero, w.turner, results + first * size, count * p.outputs, p.together, lanes_of(zero),
                 to + first * apart * size, apart, 0, 0)  # fmt: skip


def correlate(plan: Plan, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out = source correlated with w, plus bias, if it is not empty."""
    memory = room_for(plan, w, bias)
    correlate_images(plan.operations, source, w, bias, out, plan.record, memory)
