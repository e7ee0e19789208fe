"""Where the `tiled` backend's tiles go: how a block of output rows and its filters are covered.

Two ways, by which side the vectors lie along:

* *pixels*: vectors of pixels of output rows, times the weights of some filters. Results are stored where they
  belong. Good where rows are long.
* *filters*: vectors of filters, times the pixels of some rows. Wastes nothing on short rows, but results are
  turned round after.

The weights of a panel, the filters that a tile computes, are packed side by side for each tap. Where a tile
or a panel does not fit, it begins earlier, and computes some outputs once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from kernels.tiled_pack import Panels
from kernels.tiled_tile import Shape, registers
from kernels.tiled_vectors import multiplications_a_cycle


class Laid(NamedTuple):
    """Tiles for one part of the outputs."""

    tiles: list[tuple[int, int, int, int]]
    """First output row in the block, first column, columns, and which row of `shapes`."""
    shapes: list[list[Shape]]
    """For each kind of tile, and each kind of panel."""
    cost: float
    """What a tap of all filters takes, in multiplications."""


MOST_NUMBERS = 8
"""Of a tile whose vectors lie along pixels."""
Size = tuple[int, int]
"""Rows and columns of outputs in a block, of one part of the outputs."""


def along_filters(width: int, filters: int, wide: int) -> bool:
    """Whether vectors lie along filters: where pixels would leave more lanes empty."""
    along_pixels = width / (-(-width // wide) * wide)
    return filters / (-(-filters // wide) * wide) * 0.9 > along_pixels


def lay_pixels(sizes: Sequence[Size], filters: int, wide: int, out_apart: int) -> tuple[Panels, list[Laid]]:
    """Vectors along the pixels of rows, numbers down the filters."""
    numbers = min(
        range(min(filters, MOST_NUMBERS), 0, -1),
        key=lambda each: (
            -(-filters // each) * sum(_vectors_of_a_tile(*size, each, wide)[0] for size in sizes)
        ),
    )
    panels = [(min(first, filters - numbers), numbers, 0, numbers) for first in range(0, filters, numbers)]
    return panels, [_pixel_tiles(*size, numbers, len(panels), wide, out_apart) for size in sizes]


def _vectors_of_a_tile(block: int, width: int, numbers: int, wide: int) -> tuple[float, int, int]:
    """The least cost, and the rows and vectors in a row that have it."""
    vectors = -(-width // wide)
    most = most_vectors(numbers)
    return min(
        (
            -(-block // down) * sum(cost_of_pixels(numbers, down * each) for each in split(vectors, along)),
            down,
            along,
        )
        for along in range(1, min(vectors, most) + 1)
        for down in range(1, min(block, 4, most // along) + 1 if along == vectors else 2)
    )


def most_vectors(numbers: int) -> int:
    """Of a tile of so many numbers: sums, the vectors that they are made of, and a number have a register."""
    return max(1, min(registers() // numbers, (registers() + 3) // (numbers + 1)))


def most_numbers(vectors: int) -> int:
    """Of a tile of so many vectors, likewise."""
    return max(1, min(MOST_NUMBERS, (registers() + 3) // vectors - 1))


def cost_of_pixels(numbers: int, vectors: int, operation: float = 0.5) -> float:
    """What a tap of a tile takes, in multiplications: these, or all operations, each of which takes so much.

    Two multiplications start in a cycle, of four operations. Some 13 are for the loop, as measured.
    """
    products = numbers * vectors
    return max(products, (products + numbers + vectors + 13) * operation)


def _pixel_tiles(block: int, width: int, numbers: int, panels: int, wide: int, out_apart: int) -> Laid:
    cost, down, along = _vectors_of_a_tile(block, width, numbers, wide)
    groups = split(-(-width // wide), along)
    counts = sorted(set(groups))
    starts = [0, *accumulate(groups)]
    tiles = [
        # Where there is room, the last one begins earlier, so that none of its lanes is empty.
        (min(first, block - down), at, min(width - at, count * wide), counts.index(count))
        for first in range(0, block, down)
        for begin, count in zip(starts, groups, strict=False)
        for at in [max(0, min(begin * wide, width - count * wide))]
    ]
    shapes = [[Shape(numbers, 1, down, count, out_apart=out_apart)] for count in counts]
    return Laid(tiles, shapes, cost * panels)


def lay_filters(
    sizes: Sequence[Size], filters: int, wide: int, apart: int, out_apart: int
) -> tuple[Panels, list[Laid]]:
    """Vectors along the filters, numbers over pixels, which are `apart` in the copy."""
    vectors = -(-filters // wide)
    together = min(
        range(1, min(vectors, 4) + 1),
        key=lambda each: sum(_pixels_of_a_tile(*size, vectors, each, wide)[0] for size in sizes),
    )
    groups = split(vectors, together)
    counts = sorted(set(groups))
    starts = np.cumsum([0, *groups[:-1]]) * wide
    panels = [
        (int(first), min(group * wide, filters - int(first)), counts.index(group), group * wide)
        for first, group in zip(starts, groups, strict=True)
    ]
    laid = []
    for block, width in sizes:
        cost, rows, cols = _pixels_of_a_tile(block, width, vectors, together, wide)
        tiles = [
            (min(first, block - rows), min(at, width - cols), cols, 0)
            for first in range(0, block, rows)
            for at in range(0, width, cols)
        ]
        shapes = [[Shape(rows, cols, 1, size, apart, True, out_apart) for size in counts]]
        laid.append(Laid(tiles, shapes, cost))
    return panels, laid


def _pixels_of_a_tile(
    block: int, width: int, vectors: int, together: int, wide: int
) -> tuple[float, int, int]:
    """The least cost, and the rows and columns that have it."""
    most = registers() // together
    return min(
        (_cost(block, width, vectors, rows, cols, together), rows, cols)
        for cols in range(1, min(width, wide, most) + 1)
        for rows in range(1, min(block, wide // cols, most // cols) + 1)
    )


def _cost(block: int, width: int, vectors: int, rows: int, cols: int, together: int) -> float:
    """What a tap takes: its tiles."""
    tiles = -(-block // rows) * -(-width // cols)
    return tiles * sum(_cost_of_filters(rows * cols, each) for each in split(vectors, together))


def _cost_of_filters(pixels: int, vectors: int) -> float:
    """What a tap of a tile takes, in multiplications: these, or the loads, and what is round them.

    A load takes 1.3 times as long, as measured, or 0.9 times where the only multiplication by a number reads
    it; weights come from further away than numbers. A number that no register is left for is read by each of
    its multiplications, which shows where two of them start in a cycle.
    """
    products = pixels * vectors
    loads = (1.3 if vectors > 1 else 0.9) * (pixels + 2 * vectors)
    if products + vectors > registers() + 3 and multiplications_a_cycle() == 2:
        loads = max(loads, products + vectors)
    return max(products, loads) + 2


def split(count: int, most: int) -> list[int]:
    """`count` as a sum of as few parts as can be, of at most `most`, as even as can be."""
    parts = -(-count // most)
    return [count // parts + (i < count % parts) for i in range(parts)]


def spans(total: int, most: int) -> Iterator[tuple[int, int]]:
    """`total` in even spans of at most `most`: where each begins, and its length."""
    first = 0
    for count in split(total, most):
        yield first, count
        first += count
