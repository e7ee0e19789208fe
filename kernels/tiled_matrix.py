"""Products of matrices by register tiles: Linear layers, and convolutions of 1 x 1 taps at stride 1.

NumPy's BLAS has threads of its own: where they take turns with those of convolutions, either have to be woken
up, and BLAS shares small products badly.

A panel of columns of the second matrix is packed side by side, some rows at a time, and stays in the cache
while tiles go down the first one (K. Goto, R. van de Geijn, "Anatomy of High-Performance Matrix
Multiplication", ACM TOMS 34, 2008). Panels are as even as can be. Where rows of the matrix lie one behind the
other, the first tile packs a panel as it goes, and the tiles below it ask for the next one: memory is busy
while they multiply.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import carray, prange

from kernels.arrays import readonly
from kernels.jit import Kernel, helper
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_axis import Correlation
from kernels.tiled_copy import lanes_of, load_lanes, size_of, turn, turner
from kernels.tiled_lay import MOST_NUMBERS, cost_of_pixels, most_numbers, spans, split
from kernels.tiled_plan import COPIED_VECTOR, TILE, is_pointwise, shares
from kernels.tiled_record import Recorded, matrix, pointer
from kernels.tiled_tile import WORTH_A_LAUNCH, Shape, most_along, tile
from kernels.tiled_vectors import call_emitted, lanes
from kernels.tiled_work import nothing, whole_lines, workspace, zeros

_DEPTH = 512
"""Products that are summed up at a time: long sums are rounded more."""
_STRIP_BYTES = 64 * 1024
"""Of panels that are packed at a time, about: outputs that lie further on in a row go to the same pages."""
_CLOSE_BYTES = 4 << 20
"""Of outputs: of more, some have to come from memory before they are written to."""


class Product(NamedTuple):
    """(rows, depth) by (depth, columns), as often as there are units: images and groups, say."""

    rows: int
    depth: int
    columns: int
    upright: bool
    """Whether rows of the first matrix lie one behind the other."""
    turned: bool = False
    """Whether columns of the second one do."""
    units: int = 1
    groups: int = 1
    """First matrices: each unit takes the next one, and after the last the first again."""
    images: int = 1
    """Products whose sum is wanted; of each image the matrices of all groups lie side by side."""


@dataclass(frozen=True, eq=False)
class Plan(Recorded):
    """How to multiply; steps in elements."""

    rows: int
    depth: int
    columns: int
    groups: int
    turned: int
    """As in `Product`."""
    row_step: int
    depth_step: int
    """In the first matrix."""
    images: int
    """As in `Product`."""
    together: int
    """Images whose products are summed up at a time."""
    a_image: int
    b_image: int
    """From an image to the next."""
    most: int
    """Rows of a panel that are packed at a time, of an image."""
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
    """What sums begin at, where there is no bias."""
    table: np.ndarray
    """Where numbers and vectors of a product's terms lie, as tiles take it: intp (together * most, 2)."""
    panels: np.ndarray
    """First column, columns of whole vectors, which of the tiles, and which of those that pack, if one does:
    intp (panels, 4)."""
    strips: int
    """Ranges of panels, each packed at a time."""
    tiles: np.ndarray
    """First row, and the addresses of the tiles for the widths of panels, and, where a slice begins, of those
    that pack: intp (tiles, 1 + 2 * widths)."""


class Cut(NamedTuple):
    """How a product is cut up, as `threads` share it."""

    product: Product
    dtype: np.dtype
    threads: int
    panels: list[int]
    """Vectors of each."""
    strips: int
    slices: int

    @classmethod
    def of(cls, product: Product, dtype: np.dtype, threads: int) -> Cut:
        panels = split(-(-product.columns // lanes(dtype)), most_along())
        panel_bytes = min(product.depth * product.images, _DEPTH) * panels[0] * lanes(dtype) * dtype.itemsize
        fitting = max(1, min(_STRIP_BYTES // panel_bytes, product.units * len(panels) // (4 * threads)))
        strips = -(-len(panels) // fitting)
        slices = min(shares(product.units * strips, threads), -(-product.rows // MOST_NUMBERS))
        return cls(product, dtype, threads, panels, strips, slices)

    @classmethod
    def of_layer(cls, spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Cut | None:
        """Forward or dx as weights by pixels; None where outputs have other inputs than their own place's."""
        if not is_pointwise(spec):
            return None
        asked = Correlation.of(spec, op)
        sizes = asked.filters, asked.channels, asked.plane[0] * asked.plane[1]
        product = Product(*sizes, op == "forward", units=spec.N * spec.groups, groups=spec.groups)
        return cls.of(product, dtype, threads)

    @classmethod
    def of_dw(cls, spec: ConvSpec, dtype: np.dtype, threads: int) -> Cut | None:
        """dw as dy by x turned, summed over the images; None as in `of_layer`."""
        if not is_pointwise(spec):
            return None
        sizes = spec.K // spec.groups, spec.H * spec.W, spec.C // spec.groups
        return cls.of(Product(*sizes, True, True, spec.groups, spec.groups, spec.N), dtype, threads)

    @property
    def tasks(self) -> int:
        """Of all threads."""
        return self.product.units * self.strips * self.slices

    @property
    def cost(self) -> float:
        """The time of a thread for its share, in multiplications of vectors, as in `tiled_plan`."""
        depth = self.product.depth * self.product.images
        rounds = -(-self.product.images // self.together) * -(-self.product.depth // _DEPTH)
        products = sum(
            cost_of_pixels(numbers, vectors) * depth + TILE * rounds
            for vectors in self.panels
            for _, numbers in self.spans
        )
        copied = (
            COPIED_VECTOR * depth * sum(vectors for n, vectors in enumerate(self.panels) if not self.packs(n))
        )
        task = (products / self.slices + copied) / self.strips
        return -(-self.tasks // self.threads) * task

    def packs(self, panel: int) -> bool:
        """Whether the first tile of a panel packs it: where its vectors lie in the matrix as they are."""
        whole = self.product.columns % lanes(self.dtype) == 0
        return not self.product.turned and (whole or panel < len(self.panels) - 1)

    @property
    def together(self) -> int:
        """Images whose products are summed up at a time."""
        return max(1, min(self.product.images, _DEPTH // self.product.depth))

    @property
    def spans(self) -> list[tuple[int, int]]:
        """The rows of tiles."""
        return list(spans(self.product.rows, most_numbers(self.panels[0])))


def plan(cut: Cut) -> Plan:
    """How to multiply."""
    product, dtype = cut.product, cut.dtype
    wide = lanes(dtype)
    most = min(product.depth, _DEPTH)
    row_step, depth_step = (product.depth, 1) if product.upright else (1, product.rows)
    widths = sorted(set(cut.panels))
    far = product.units * product.rows * product.columns * dtype.itemsize > _CLOSE_BYTES
    shapes = [
        [
            Shape(*(count, 1) if product.upright else (1, count), 1, each, asks=not product.turned, far=far)
            for each in widths
        ]
        for _, count in cut.spans
    ]
    packers = [piece * len(shapes) // cut.slices for piece in range(cut.slices) if cut.packs(0)]
    tiles = [
        (
            first,
            *(tile(shape, dtype) for shape in row),
            *(tile(shape._replace(packs=True, asks=False), dtype) if i in packers else 0 for shape in row),
        )
        for i, ((first, _), row) in enumerate(zip(cut.spans, shapes, strict=True))
    ]
    firsts = np.cumsum([0, *cut.panels[:-1]])
    panels = [
        (
            first * wide,
            vectors * wide,
            1 + widths.index(vectors),
            1 + len(widths) + widths.index(vectors) if cut.packs(n) else 0,
        )
        for n, (first, vectors) in enumerate(zip(firsts, cut.panels, strict=True))
    ]
    of_worker = whole_lines(cut.together * most * -(-len(panels) // cut.strips) * cut.panels[0] * wide)
    a_image, b_image = (product.groups * product.depth * each for each in (product.rows, product.columns))
    operations = 2 * product.units * product.images * product.rows * product.depth * product.columns
    return Plan(
        rows=product.rows, depth=product.depth, columns=product.columns, groups=product.groups,
        turned=product.turned, row_step=row_step, depth_step=depth_step, images=product.images,
        together=cut.together, a_image=a_image, b_image=b_image, most=most, slices=cut.slices,
        workers=cut.threads, tasks=cut.tasks, operations=operations // WORTH_A_LAUNCH, of_worker=of_worker,
        memory=cut.threads * of_worker, turner=turner(dtype), zeros=zeros(MOST_NUMBERS, dtype),
        table=np.array(
            [(n * a_image + i * depth_step, n * most + i) for n in range(cut.together) for i in range(most)],
            np.intp,
        ),
        panels=np.array(panels, np.intp), strips=cut.strips, tiles=np.array(tiles, np.intp),
    )  # fmt: skip


@Kernel
def multiply(a, b, bias, out, row_sums, plan, memory):
    """out = a times b, both by rows or by columns; each row of a group from its bias on, if there is one.

    `row_sums` (groups * rows), unless empty: those of a, where it is upright.
    """
    workers, tasks = plan[0].workers, plan[0].tasks
    for worker in prange(workers):
        for task in range(worker * tasks // workers, (worker + 1) * tasks // workers):
            multiply_strip(worker, task, a, b.ctypes.data, bias, out.ctypes.data, row_sums, plan, memory)


@helper
def multiply_strip(worker, task, a, b, bias, out, row_sums, plan, memory):
    """One task of it: some rows times some panels."""
    p = plan[0]
    panels, tiles = matrix(p.panels), matrix(p.tiles)
    size, wide = memory.itemsize, lanes_of(memory.dtype.type(0))
    piece, strip, unit = task % p.slices, task // p.slices % p.strips, task // (p.slices * p.strips)
    group = unit % p.groups
    first, last = strip * len(panels) // p.strips, (strip + 1) * len(panels) // p.strips
    upper, lower = piece * len(tiles) // p.slices, (piece + 1) * len(tiles) // p.slices
    column = panels[first, 0]
    packed = memory.ctypes.data + worker * p.of_worker * size
    target = out + unit * p.rows * p.columns * size
    for image in range(0, p.images, p.together):
        images = min(p.together, p.images - image)
        numbers = a.ctypes.data + (image * p.a_image + group * p.rows * p.depth) * size
        source = b + (image * p.b_image + unit * p.depth * p.columns) * size
        for begin in range(0, p.depth, p.most):
            depth = min(p.most, p.depth - begin)
            terms = images * depth
            fresh = image == 0 and begin == 0
            # From a panel to the one that comes after it: further down, to the right, or of the next unit.
            further = p.columns * p.most
            if begin + depth == p.depth:
                further = p.columns * (p.depth - begin) - column
                if last < len(panels):
                    further = panels[last, 0] - column - p.columns * begin
            for n in range(first, last):
                if not panels[n, 3]:
                    to = packed + (panels[n, 0] - column) * terms * size
                    pack_panel(source, images, begin, depth, panels[n, 0], panels[n, 1], p,
                               memory.dtype.type(0), to)  # fmt: skip
            for i in range(upper, lower):
                row = tiles[i, 0]
                start = 0
                if fresh:
                    start = bias.ctypes.data + (group * p.rows + row) * size if len(bias) else p.zeros.address
                s = numbers + (row * p.row_step + begin * p.depth_step) * size
                for n in range(first, last):
                    at, width, which = panels[n, 0], panels[n, 1], panels[n, 2]
                    there = source + (begin * p.columns + at) * size
                    v, v_step = packed + (at - column) * terms * size, width
                    # The first tile packs; the second one asks for the next panel's first vectors, and so on.
                    last_number = min(i - upper, width // wide) * wide - 1
                    beside = there + (further + last_number) * size
                    if i == upper and panels[n, 3]:
                        which = panels[n, 3]
                        v, v_step, beside = there, p.columns, v
                    call_emitted(tiles[i, which], s, p.row_step, v, p.columns, p.table.address, v_step, terms,
                                 target + (row * p.columns + at) * size, p.columns, beside,
                                 min(width, p.columns - at), start)  # fmt: skip
            if len(row_sums) and strip == 0:
                above, below = tiles[upper, 0], tiles[lower, 0] if lower < len(tiles) else p.rows
                sums = row_sums[group * p.rows + above : group * p.rows + below]
                place = numbers + (above * p.depth + begin) * size
                add_rows(place, images, depth, fresh, p, sums)


@helper
def pack_panel(b, images, begin, depth, column, width, p, zero, packed):
    """Some rows of a panel, image by image; addresses."""
    size, wide = size_of(zero), lanes_of(zero)
    columns = min(width, p.columns - column)
    for image in range(images):
        source = b + image * p.b_image * size
        if p.turned:
            turn(zero, p.turner, source + (column * p.depth + begin) * size, columns, p.depth, depth, packed,
                 width, 1, 0)  # fmt: skip
            packed += depth * width * size
            continue
        for i in range(begin, begin + depth):
            row = source + (i * p.columns + column) * size
            for first in range(0, columns, wide):
                inside = (1 << min(wide, columns - first)) - 1
                load_lanes(zero, row + first * size, packed + first * size, inside, 0, 0)
            packed += width * size


@helper
def add_rows(address, images, count, fresh, p, sums):
    """sums += those of so many numbers of each row, which follow each other from an address on."""
    size = sums.itemsize
    for row in range(len(sums)):
        total = sums.dtype.type(0) if fresh else sums[row]
        for image in range(images):
            place = pointer(address + (image * p.a_image + row * p.depth) * size)
            numbers = carray(place, (count,), sums.dtype)
            part = sums.dtype.type(0)
            for i in range(count):
                part += numbers[i]
            total += part
        sums[row] = total


def correlate(plan: Plan, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray) -> None:
    """out = source correlated with w of 1 x 1 taps, plus bias, if it is not empty."""
    memory, no_sums = workspace("work", plan.memory, out.dtype), np.empty(0, out.dtype)
    multiply(plan.operations, w, source, bias, out, no_sums, plan.record, memory)


def conv_dw_db(plan: Plan, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw = the sum of dy times x turned; and db, unless it is empty."""
    memory = workspace("work", plan.memory, dw.dtype)
    multiply(plan.operations, dy, x, nothing(dw.dtype), dw, db, plan.record, memory)


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (A, B) = a (A, D) times b (D, B), float32 or float64, all of one dtype; D is 1 or more.

    `out` is C-contiguous; so are a and b, or what they are the transposes of, else they are copied.
    """
    (rows, depth), columns = a.shape, b.shape[1]
    product = Product(rows, depth, columns, not _turned(a), _turned(b))
    correlate(_planned(product, out.dtype, active()), _in_rows(b), _in_rows(a), nothing(out.dtype), out)


@lru_cache(maxsize=256)
def _planned(product: Product, dtype: np.dtype, threads: int) -> Plan:
    return plan(Cut.of(product, dtype, threads))


def _turned(array: np.ndarray) -> bool:
    """Whether its columns lie one behind the other, and not its rows."""
    flags = array.flags
    return flags.f_contiguous and not flags.c_contiguous


def _in_rows(array: np.ndarray) -> np.ndarray:
    """As it lies in memory."""
    return readonly(np.ascontiguousarray(array.T if _turned(array) else array).view())
