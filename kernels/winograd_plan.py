"""What the `winograd` backend decides once for each layer: which transform, and how the work is cut up.

Weights are transformed, U (positions, filters, channels); what the tiles of outputs read is transformed, V
(positions, channels, tiles); both are multiplied, M (positions, filters, tiles) = U V for each position; and
M is transformed back. Tiles are numbered through all images, row by row. Vectors lie along tiles, or where
planes are small, and so rows of tiles short, along images (`winograd_images`).

Where U is small, all of it is made first, and workers share out the tiles: each takes a few vectors of them
at a time, whose V stays close. Where U is large, or there are not enough tiles for all, V of a large block is
made by all workers, and they share out the filters: each takes a few of them at a time, whose U stays close
(`winograd_filters`). So the larger of U and V is never in memory as a whole, and M is never in memory at all
(`winograd_at_once`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np

from kernels.arrays import readonly, records
from kernels.axis import Pair
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.tiled_copy import turner
from kernels.tiled_tile import most_along
from kernels.tiled_vectors import lanes
from kernels.tiled_work import PAGE_BYTES, whole_lines
from kernels.winograd_at_once import MOST_ALONG, Sums, filters_at_once, results_of_images, results_of_tiles
from kernels.winograd_transforms import (
    Axis,
    DxAxis,
    Tile,
    data_transform,
    pixels_transform,
    weight_transform,
)

DEPTH = 64
"""Channels whose products are one sum, at most: one sum over all of many would be rounded more."""
BLOCK_BYTES = 8 << 20
"""Of V that workers share, about: it stays in the last-level cache."""
PANEL_BYTES = 3 << 17
"""Of U of some filters, and as many channels, about: it stays in the second-level cache."""
OWN_BYTES = 5 << 17
"""Of V that is a worker's own, at most: it stays in the second-level cache."""
BAND_BYTES = 1 << 18
"""The same where vectors lie along images, about: turned images, and results, stay there, too."""
ROW_BYTES = 5 << 18
"""There, of V of a row of tiles, at most; twice as much where U is close."""
FAR_BYTES = 5 << 20
"""Of U, at most, that is close enough to be read for a few vectors of tiles at a time."""
CLOSE_BYTES = 4 << 20
"""Of outputs: so many stay in the caches from one call to the next, more or less."""
MOST_WASTED = 1.1
MOST_WASTED_OF_SHORT = 1.4
"""What computing some images twice, and threads that wait, may cost where vectors lie along images; and where
rows of tiles would fill less than a quarter of a vector."""
LONGEST = 7
"""Outputs of a phase of a tile along an axis, at a stride, at most."""
MOST_ACROSS = 4
"""The same across: transforms of more hold more vectors than there are registers."""
AnyAxis = TypeVar("AnyAxis", Axis, DxAxis)


class Geometry(NamedTuple):
    """Where the compiled loops find things; all in elements. They take it as a record, by a pointer."""

    groups: int
    channels: int
    filters: int
    """Of a group."""
    H: int
    W: int
    """Of the source."""
    top: int
    left: int
    """Padding before it; what is negative is cut off."""
    OH: int
    OW: int
    asks: int
    """Whether outputs are asked for: where all of them do not stay close."""
    outputs_down: int
    outputs_across: int
    """Of a tile."""
    step_down: int
    step_across: int
    """Inputs from a tile to the next."""
    beyond: int
    """Rows of inputs that a tile shares with the next."""
    positions: int
    """Products of a tile."""
    tiles_down: int
    tiles_across: int
    """Of an image."""
    wide: int
    """Numbers in a vector."""
    pitch: int
    """Of the rows of scratch that a transform needs, or of turned inputs."""
    data: int
    weights: int
    turner: int
    """Addresses of the transforms."""
    group_step: int
    filter_step: int
    channel_step: int
    """In the weights: dx has filters for channels."""
    rows: int
    """Filters that are multiplied at a time."""
    vectors: int
    """Of tiles that are multiplied, or where workers share out the tiles, transformed at a time, at most."""
    along: int
    """Where workers share out the tiles, vectors that are multiplied at a time, at most."""
    depth: int
    """Channels of a slice, whose products are one sum."""
    together: int
    """Where workers share out the tiles, channels that are transformed at a time, at most."""
    v_row: int
    v_step: int
    """In V, from a channel to the next, and from a position."""
    scratch: int
    """Where scratch or turned inputs begin in a worker's part of the workspace, behind V, or U and M."""
    work: int
    """The size of that part."""
    band: int = 0
    """Where vectors lie along images: rows of tiles of each that are transformed at a time, at most."""
    results: int = 0
    """There, where results to be turned begin."""
    v_tile: int = 0
    """There, in V, from a tile to the next."""
    own: int = 0
    """There, where a worker has its own U of a few filters at a time; 0 if workers share all of U."""
    block: int = 0
    """Where workers share out the filters: tiles that are transformed at a time, at most."""


class Plan(NamedTuple):
    """One correlation, as the compiled loops take it."""

    geometry: Geometry
    by_filters: bool
    """Whether workers share out the filters, not the tiles or images."""
    record: np.ndarray
    results: np.ndarray
    """intp (rows + 1, along + 1, 2): the addresses of what makes results of so many filters and vectors, and
    of what adds to them."""


def tiles_have_strides(spec: ConvSpec) -> bool:
    """Whether tiles have the stride itself: 2, if no phase has more than two taps."""
    axes = zip((spec.R, spec.S), spec.stride, strict=True)
    return all(stride == 1 or (stride == 2 and taps in (3, 4)) for taps, stride in axes)


def tile_for(
    size: Pair, taps: Pair, stride: Pair = (1, 1), sources: tuple[Pair, Pair] | None = None,
    most: Pair = (LONGEST, LONGEST),
) -> Tile:  # fmt: skip
    """The one with the fewest products for so many outputs; of those that take as many, the smallest.

    Of many, F(4 x 4, 3 x 3) multiplies 2.25 times for each output, F(2 x 2, 3 x 3) 4 times, but rounds less.
    `sources`: the padding before the inputs, and how many there are, of each axis, if tiles may be closed.
    `most`: outputs down and across, at most.
    """
    axes = []
    for i in range(2):
        possible = [Axis(number, taps[i], stride[i]) for number in _outputs(stride[i], most[i])]
        if sources and 2 < size[i] < 8:
            alone = Axis(size[i], taps[i], stride[i], closed=True)
            possible += [alone] * alone.is_closed(*sources[i])
        axes.append(_with_fewest_products(possible, size[i]))
    return Tile(*axes)


def dx_tile_for(spec: ConvSpec) -> tuple[Tile, Pair]:
    """The same for dx at a stride, and the padding before dy."""
    axes, padding = [], []
    for axis, most in ((spec.rows, LONGEST), (spec.cols, MOST_ACROSS)):
        stride = axis.stride
        before, phase = divmod(axis.before, stride)
        outputs = [number * stride for number in _outputs(stride, most)]
        if stride > 1 and outputs[0] <= axis.size <= outputs[-1]:
            outputs.append(axis.size)
        possible = [DxAxis(number, axis.kernel, stride, phase) for number in outputs]
        best = _with_fewest_products(possible, axis.size)
        axes.append(best)
        padding.append(-before - best.first)
    return Tile(*axes), (padding[0], padding[1])


def _outputs(stride: int, most: int) -> list[int]:
    """How many outputs of a phase tiles may have along an axis."""
    return [number for number in ((2, 4) if stride == 1 else (2, 4, LONGEST)) if number <= most]


def _with_fewest_products(possible: Sequence[AnyAxis], size: int) -> AnyAxis:
    """The first axis with the fewest products for so many outputs."""
    return min(possible, key=lambda axis: axis.products * -(-size // axis.outputs))


@lru_cache(maxsize=1024)
def plan(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> Plan:
    """How to compute forward, or dx: a correlation of dy, padded by what is left of the kernel."""
    taps = spec.R * spec.S
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    filter_step, channel_step = channels * taps, taps
    source, target = (spec.H, spec.W), (spec.OH, spec.OW)
    top, left = spec.rows.before, spec.cols.before
    if op == "dx":
        filter_step, channel_step = channel_step, filter_step
        channels, filters = filters, channels
        source, target = target, source
    strided = op == "dx" and spec.stride != (1, 1)
    if strided:
        shape, (top, left) = dx_tile_for(spec)
    else:
        if op == "dx":
            top, left = spec.R - 1 - top, spec.S - 1 - left
        sources = (top, source[0]), (left, source[1])
        shape = tile_for(target, (spec.R, spec.S), spec.stride, sources, (LONGEST, MOST_ACROSS))
    down, across = (-(-size // axis.outputs) for size, axis in zip(target, shape, strict=True))
    tiles = spec.N * down * across
    wide = lanes(dtype)
    plane = target[0] * target[1]
    results_bytes = spec.N * spec.groups * filters * plane * dtype.itemsize
    layer = Geometry(
        groups=spec.groups, channels=channels, filters=filters, H=source[0], W=source[1], top=top, left=left,
        OH=target[0], OW=target[1], asks=int(results_bytes > CLOSE_BYTES),
        outputs_down=shape.down.outputs, outputs_across=shape.across.outputs, step_down=shape.down.step,
        step_across=shape.across.step, beyond=shape.down.overlap, positions=shape.positions,
        tiles_down=down, tiles_across=across, wide=wide, pitch=shape.pitch(across, wide),
        data=data_transform(shape, dtype), weights=0, turner=0, group_step=filters * channels * taps,
        filter_step=filter_step, channel_step=channel_step, rows=0, vectors=0, along=0,
        depth=depth_of(channels, wide), together=channels, v_row=0, v_step=0, scratch=0, work=0,
    )  # fmt: skip
    turned = op == "dx" and not strided  # tiles for a stride turn each phase themselves
    vector_bytes = shape.positions * channels * wide * dtype.itemsize
    weight_bytes = shape.positions * filters * channels * spec.groups * dtype.itemsize
    far = weight_bytes > FAR_BYTES
    fits = vector_bytes * across <= (ROW_BYTES if far else 2 * ROW_BYTES)
    band = band_of(spec.N, down, across, wide, vector_bytes, threads)
    if band and fits and not (far and filters > 2 * tiles):
        jobs = -(-spec.N // wide) * -(-down // band)
        return _by_images(layer, shape, turned, dtype, band, own=jobs <= threads)
    if far or tiles < max(filters // 2, threads * most_along() * wide):
        return _by_filters(layer, shape, turned, dtype, tiles, threads)
    return _by_tiles(layer, shape, turned, dtype)


def _by_images(layer: Geometry, shape: Tile, turned: bool, dtype: np.dtype, band: int, own: bool) -> Plan:
    """Workers share out the images, and bands of each; `own`: each transforms weights for itself.

    What one has transformed, another fetches from its cache: that takes longer.
    """
    wide, across = layer.wide, layer.tiles_across
    along = min(across, MOST_ALONG)
    rows = filters_at_once(along, layer.filters)
    v_step = (layer.channels | 1) * wide  # even steps would leave half of the places of the caches empty
    v_tile = layer.positions * v_step
    pitch = (across * layer.step_across + shape.across.overlap) * wide
    scratch = band * across * v_tile
    results = scratch + (band * layer.step_down + layer.beyond) * pitch
    end = results + (rows * band * layer.outputs_down * layer.OW + 1) * wide
    own_weights = own * whole_lines(weights_size(layer, rows, layer.channels))
    geometry = layer._replace(
        band=band, rows=rows, along=along, v_tile=v_tile, v_step=v_step, v_row=wide, pitch=pitch,
        scratch=scratch, results=results, own=own * end, work=end + own_weights,
        turner=turner(dtype, asks=True), data=pixels_transform(shape, dtype),
        weights=weight_transform(shape, turned, dtype),
    )  # fmt: skip
    addresses = np.zeros((rows + 1, along + 1, 2), np.intp)
    for vectors in counts_of(across, along):
        for filters in counts_of(layer.filters, rows):
            sums = Sums(shape, filters, vectors, geometry.depth)
            addresses[filters, vectors, 0] = results_of_images(sums, dtype)
    return Plan(geometry, False, records([geometry]), readonly(addresses))


def _by_tiles(layer: Geometry, shape: Tile, turned: bool, dtype: np.dtype) -> Plan:
    """Workers share out the tiles."""
    wide, depth, along = layer.wide, layer.depth, MOST_ALONG
    rows = filters_at_once(along, layer.filters)
    slice_bytes = layer.positions * depth * wide * dtype.itemsize
    slices = -(-layer.channels // depth)
    parts = -(-slices // max(1, OWN_BYTES // (along * slice_bytes)))
    together = -(-slices // parts) * depth
    vectors = max(along, min(most_along(), OWN_BYTES * depth // (together * slice_bytes)))
    v_row = vectors * wide
    v_step = apart(together // depth * (depth * v_row + wide), dtype)
    scratch = layer.positions * v_step
    geometry = layer._replace(
        rows=rows, along=along, vectors=vectors, together=together, v_step=v_step, v_row=v_row,
        scratch=scratch, work=scratch + shape.down.products * layer.pitch,
        weights=weight_transform(shape, turned, dtype),
    )  # fmt: skip
    return Plan(geometry, False, records([geometry]), _results(geometry, shape, parts > 1, dtype))


def _by_filters(
    layer: Geometry, shape: Tile, turned: bool, dtype: np.dtype, tiles: int, threads: int
) -> Plan:
    """Workers share out the filters."""
    wide, channels, filters, positions = layer.wide, layer.channels, layer.filters, layer.positions
    depth = depth_of(channels, wide, threads)
    slices = -(-channels // depth)
    along = min(MOST_ALONG, -(-tiles // wide))
    rows = filters_at_once(along, filters, threads)
    slice_bytes = positions * depth * dtype.itemsize
    parts = max(1, round(slices * rows * slice_bytes / PANEL_BYTES))
    together = -(-slices // parts)
    v_row = along * wide
    v_step = apart(together * (depth * v_row + wide), dtype)
    v_tile = layer.groups * positions * v_step
    blocks = -(-tiles // v_row * v_tile * dtype.itemsize // BLOCK_BYTES)
    block = -(-tiles // (blocks * v_row)) * v_row
    scratch = positions * rows * together * depth
    geometry = layer._replace(
        rows=rows, along=along, block=block, depth=depth, together=together * depth, v_row=v_row,
        v_step=v_step, v_tile=v_tile, scratch=scratch, work=scratch + shape.down.products * layer.pitch,
        weights=weight_transform(shape, turned, dtype),
    )  # fmt: skip
    return Plan(geometry, True, records([geometry]), _results(geometry, shape, parts > 1, dtype))


def _results(g: Geometry, shape: Tile, added: bool, dtype: np.dtype) -> np.ndarray:
    """The addresses of what makes results of tiles, as in `Plan.results`; if `added`, of what adds, too."""
    addresses = np.zeros((g.rows + 1, g.along + 1, 2), np.intp)
    for filters in counts_of(g.filters, g.rows):
        for along in range(1, g.along + 1):
            for adds in range(1 + added):
                sums = Sums(shape, filters, along, g.depth)
                addresses[filters, along, adds] = results_of_tiles(sums, bool(adds), dtype)
    return readonly(addresses)


def band_of(images: int, down: int, across: int, wide: int, vector_bytes: int, threads: int) -> int:
    """Rows of tiles of a block whose vectors lie along images; 0 where that does not pay.

    It does where rows of tiles would leave more than half of a vector empty, and images, and threads, hardly.
    """
    if images < wide or across * 2 >= wide:
        return 0
    fitting = max(1, BAND_BYTES // (vector_bytes * across))
    blocks = -(-images // wide)
    bands = min(down, max(-(-down // fitting), -(-threads // blocks)))
    band = -(-down // bands)
    jobs = blocks * -(-down // band)
    longest = -(-jobs // threads) * band * wide
    allowed = MOST_WASTED_OF_SHORT if across * 4 < wide else MOST_WASTED
    return band if longest * threads <= allowed * images * down else 0


def depth_of(channels: int, wide: int, shares: int = 1) -> int:
    """Channels of a slice: whole vectors, `DEPTH` at most, about as many in each; slices for some shares."""
    slices = -(-channels // (DEPTH * shares)) * shares
    return -(-channels // (slices * wide)) * wide


def weights_size(g: Geometry, filters: int, channels: int) -> int:
    """Of U of some filters: all slices of the channels take the same place."""
    return g.positions * filters * -(-channels // g.depth) * g.depth


def counts_of(filters: int, rows: int) -> set[int]:
    """How many are multiplied at a time, if `rows` at most."""
    return {rows, filters % rows} - {0}


def apart(count: int, dtype: np.dtype) -> int:
    """The step from one position to the next, of `count` numbers each: an odd number of pages and a vector.

    A transform stores into all positions in turn. At powers of 2 they would share few places of the caches,
    and few of the table of pages, which made transforms take twice to three times as long.
    """
    pages = count * dtype.itemsize // PAGE_BYTES + 1 | 1
    return pages * PAGE_BYTES // dtype.itemsize + lanes(dtype)
