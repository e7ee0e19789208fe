"""The `winograd` backend's convolutions: the loops around transforms and products, compiled.

See `winograd_plan` for how the work is cut up, and `winograd_transforms` for the method.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels.jit import Kernel, helper
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_tile import WORTH_A_LAUNCH
from kernels.tiled_vectors import call_emitted
from kernels.tiled_work import workspace, zeros
from kernels.winograd_images import correlate_bands
from kernels.winograd_plan import Plan, plan
from kernels.winograd_products import FILTERS, multiply, transform_slice, transform_weights


@Kernel
def correlate_tiles(workers, images, source, u, bias, zeros, out, geometry, table, tiles, work):
    """out = source correlated with transformed weights u, plus bias. Workers share out tiles, or images."""
    for worker in prange(workers):
        if geometry[0].band:
            correlate_bands(
                worker, workers, images, source, u, bias, zeros, out, geometry, table, tiles, work
            )
        else:
            correlate_share(
                worker, workers, images, source, u, bias, zeros, out, geometry, table, tiles, work
            )


@helper
def correlate_share(worker, workers, images, source, u, bias, zeros, out, geometry, table, tiles, work):
    """One worker's share of the tiles."""
    g = geometry[0]
    size = work.itemsize
    v = work.ctypes.data + worker * g.work * size
    m, scratch = v + g.m * size, v + g.scratch * size
    total = images * g.tiles_down * g.tiles_across
    begin, end = worker * total // workers, (worker + 1) * total // workers
    vectors = (end - begin + g.wide - 1) // g.wide
    blocks = (vectors + g.vectors - 1) // g.vectors
    for group in range(g.groups):
        for block in range(blocks):
            first = begin + block * vectors // blocks * g.wide
            last = min(begin + (block + 1) * vectors // blocks * g.wide, end)
            for c in range(g.channels):
                transform_channel(group * g.channels + c, first, last, source, geometry, scratch,
                                  v + c * g.v_row * size)  # fmt: skip
            multiply(g.filters, last - first, u.ctypes.data + group * g.filters * g.depth * size, v, zeros,
                     geometry, table, tiles, m)  # fmt: skip
            transform_result(group * g.filters, g.filters, first, last, bias, out, geometry, m)


@Kernel
def correlate_filters(workers, images, source, w, bias, zeros, out, geometry, table, tiles, v, work):
    """out = source correlated with w, plus bias. Workers share out the filters."""
    g = geometry[0]
    total = images * g.tiles_down * g.tiles_across
    for first in range(0, total, g.block):
        last = min(first + g.block, total)
        for worker in prange(workers):
            transform_share(worker, workers, first, last, source, geometry, v, work)
        for worker in prange(workers):
            correlate_panels(
                worker, workers, first, last, w, bias, zeros, out, geometry, table, tiles, v, work
            )


@helper
def transform_share(worker, workers, first, last, source, geometry, v, work):
    """V of the tiles from `first` to `last`, of a share of the channels."""
    g = geometry[0]
    size = work.itemsize
    scratch = work.ctypes.data + (worker * g.work + g.scratch) * size
    channels = g.groups * g.channels
    for c in range(worker * channels // workers, (worker + 1) * channels // workers):
        transform_channel(c, first, last, source, geometry, scratch, v.ctypes.data + c * g.v_row * size)


@helper
def correlate_panels(worker, workers, first, last, w, bias, zeros, out, geometry, table, tiles, v, work):
    """Outputs of the tiles from `first` to `last`, of a share of the filters."""
    g = geometry[0]
    size = work.itemsize
    u = work.ctypes.data + worker * g.work * size
    m = u + g.m * size
    panels = (g.filters + g.panel - 1) // g.panel
    jobs = g.groups * panels
    for job in range(worker * jobs // workers, (worker + 1) * jobs // workers):
        group, k = job // panels, job % panels * g.panel
        filters = min(g.panel, g.filters - k)
        k += group * g.filters
        for c in range(0, g.channels, g.depth):
            transform_slice(k, k + filters, c, w, geometry, u + c * g.panel * size)
        multiply(filters, last - first, u, v.ctypes.data + group * g.channels * g.v_row * size, zeros,
                 geometry, table, tiles, m)  # fmt: skip
        transform_result(k, filters, first, last, bias, out, geometry, m)


@helper
def transform_channel(c, first, last, source, geometry, scratch, v):
    """V of the tiles from `first` to `last` of one channel."""
    g = geometry[0]
    size = source.itemsize
    plane = g.H * g.W * size
    transform_plane(g.data, source.ctypes.data + c * plane, g.groups * g.channels * plane, g.H, g.W, g.top,
                    g.left, first, last, g.tiles_down, g.tiles_across, g.outputs, scratch, g.pitch,
                    v, g.v_step, 0, size)  # fmt: skip


@helper
def transform_plane(
    address, plane, image_bytes, H, W, top, left, first, last, tiles_down, tiles_across, outputs,
    scratch, pitch, to, step, sums, size,
):  # fmt: skip
    """The tiles of one channel from `first` to `last`, counted through all images, to consecutive places.

    Gradients are added to a vector of sums, too.
    """
    of_image = tiles_down * tiles_across
    at = first
    while at < last:
        image, number = at // of_image, at % of_image
        down, across = number // tiles_across, number % tiles_across
        count = min(tiles_across - across, last - at)
        # Whole vectors: what goes beyond the tiles lies where the next ones, or channels, go.
        call_emitted(address, plane + image * image_bytes, down * outputs - top, across * outputs - left,
                  H, W, count, scratch, pitch, to + (at - first) * size, step, sums, 0)  # fmt: skip
        at += count


@helper
def transform_result(first_filter, filters, first, last, bias, out, geometry, m):
    """The outputs of the tiles from `first` to `last`, of some filters."""
    g = geometry[0]
    size = out.itemsize
    of_image = g.tiles_down * g.tiles_across
    for k in range(filters):
        filter = first_filter + k
        at = first
        while at < last:
            image, number = at // of_image, at % of_image
            down, across = number // g.tiles_across, number % g.tiles_across
            count = min(g.tiles_across - across, last - at)
            row, col = down * g.outputs, across * g.outputs
            place = ((image * g.groups * g.filters + filter) * g.OH + row) * g.OW + col
            call_emitted(g.result, m + (k * g.v_row + at - first) * size, g.m_step,
                      out.ctypes.data + place * size, g.OW, min(g.outputs, g.OH - row),
                      min(count * g.outputs, g.OW - col), bias.ctypes.data + filter * size,
                      g.ahead, 0, 0, 0, 0)  # fmt: skip
            at += count


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    found = plan(spec, "forward", x.dtype, active())
    _correlate(found, spec.flops, x, w, zeros(spec.K, x.dtype) if b is None else b, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy, padded, correlated with w turned by 180 degrees, filters and channels exchanged."""
    found = plan(spec, "dx", dy.dtype, active())
    _correlate(found, spec.flops, dy, w, zeros(spec.C, dy.dtype), dx)


def _correlate(
    plan: Plan, flops: int, source: np.ndarray, w: np.ndarray, bias: np.ndarray, out: np.ndarray
) -> None:
    g = plan.geometry
    workers, images = active(), len(source)
    source, w, y = source.reshape(-1), w.reshape(-1), out.reshape(-1)
    start = zeros(g.rows, w.dtype)
    work = workspace("work", workers * g.work, w.dtype)
    cost = flops // WORTH_A_LAUNCH
    if plan.by_filters:
        v = workspace("transformed data", g.positions * g.v_step, w.dtype)
        correlate_filters(
            cost, workers, images, source, w, bias, start, y, plan.record, plan.table, plan.tiles, v, work
        )
    else:
        u = workspace("transformed weights", g.positions * g.u_step, w.dtype)
        jobs = g.slices * -(-g.panel // FILTERS)
        transform_weights(w.size * g.positions, jobs, w, plan.record, u)
        correlate_tiles(
            cost, workers, images, source, u, bias, start, y, plan.record, plan.table, plan.tiles, work
        )
