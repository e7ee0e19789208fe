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
from kernels.winograd_plan import Plan, plan

FILTERS = 16
"""Whose weights are transformed at a time: to dx, those of a channel lie side by side."""


@Kernel
def transform_weights(jobs, w, geometry, u):
    """u (positions, slices, groups * filters, depth) = the transformed weights."""
    for job in prange(jobs):
        transform_slice(job, w, geometry, u)


@helper
def transform_slice(job, w, geometry, u):
    """Those of some filters and one slice of channels."""
    g = geometry[0]
    size = w.itemsize
    filters = g.groups * g.filters
    c0, k0 = job % g.slices * g.depth, job // g.slices * FILTERS
    for c in range(c0, min(c0 + g.depth, g.channels), g.wide):
        for k in range(k0, min(k0 + FILTERS, filters)):
            first = k // g.filters * (len(w) // g.groups) + k % g.filters * g.filter_step + c * g.channel_step
            call_emitted(g.weights, w.ctypes.data + first * size, g.channel_step, g.channels - c,
                      u.ctypes.data + (c0 * filters + k * g.depth + c - c0) * size, g.u_step,
                      0, 0, 0, 0, 0, 0, 0)  # fmt: skip


@Kernel
def correlate(workers, images, source, u, bias, zeros, out, geometry, table, tiles, work):
    """out = source correlated with transformed weights u, plus bias."""
    for worker in prange(workers):
        correlate_share(worker, workers, images, source, u, bias, zeros, out, geometry, table, tiles, work)


@helper
def correlate_share(worker, workers, images, source, u, bias, zeros, out, geometry, table, tiles, work):
    """One worker's share of the tiles, and of the filters."""
    g = geometry[0]
    total = images * g.tiles_down * g.tiles_across
    share = worker // g.parts
    shares = workers // g.parts
    begin, end = share * total // shares, (share + 1) * total // shares
    part = worker % g.parts
    first_filter = part * g.panels // g.parts * g.rows
    last_filter = min((part + 1) * g.panels // g.parts * g.rows, g.filters)
    vectors = (end - begin + g.wide - 1) // g.wide
    blocks = (vectors + g.vectors - 1) // g.vectors
    for group in range(g.groups):
        for block in range(blocks):
            first = begin + block * vectors // blocks * g.wide
            last = min(begin + (block + 1) * vectors // blocks * g.wide, end)
            transform_data(worker, group, first, last, source, geometry, work)
            multiply(worker, group, first_filter, last_filter, last - first, u, zeros, geometry,
                     table, tiles, work)  # fmt: skip
            transform_result(worker, group, first_filter, last_filter, first, last, bias, out, geometry, work)


@helper
def transform_data(worker, group, first, last, source, geometry, work):
    """V of the tiles from `first` to `last`."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    planes = g.groups * g.channels
    for c in range(g.channels):
        plane = source.ctypes.data + (group * g.channels + c) * g.H * g.W * size
        transform_plane(g.data, plane, planes * g.H * g.W * size, g.H, g.W, g.top, g.left, first, last,
                        g.tiles_down, g.tiles_across, g.outputs, base + g.scratch * size, g.pitch,
                        base + c * g.v_row * size, g.v_step, size)  # fmt: skip


@helper
def transform_plane(
    address, plane, image_bytes, H, W, top, left, first, last, tiles_down, tiles_across, outputs,
    scratch, pitch, to, step, size,
):  # fmt: skip
    """The tiles of one channel from `first` to `last`, counted through all images, to consecutive places."""
    of_image = tiles_down * tiles_across
    at = first
    while at < last:
        image, number = at // of_image, at % of_image
        down, across = number // tiles_across, number % tiles_across
        count = min(tiles_across - across, last - at)
        # Whole vectors: what goes beyond the tiles lies where the next ones, or channels, go.
        call_emitted(address, plane + image * image_bytes, down * outputs - top, across * outputs - left,
                  H, W, count, scratch, pitch, to + (at - first) * size, step, 0, 0)  # fmt: skip
        at += count


@helper
def multiply(worker, group, first_filter, last_filter, count, u, zeros, geometry, table, tiles, work):
    """M = U V of some filters, position by position and slice by slice."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    filters = g.groups * g.filters
    vectors = (count + g.wide - 1) // g.wide
    for position in range(g.positions):
        for c in range(0, g.channels, g.depth):
            depth = min(g.depth, g.channels - c)
            v = base + (position * g.v_step + c * g.v_row) * size
            start = zeros.ctypes.data if c == 0 else 0
            for k in range(first_filter, last_filter, g.rows):
                address = tiles[min(g.rows, last_filter - k), vectors]
                filter = group * g.filters + k
                s = u.ctypes.data + (position * g.u_step + c * filters + filter * g.depth) * size
                to = base + (g.m + position * g.m_step + k * g.v_row) * size
                call_emitted(address, s, g.depth, v, 0, table.ctypes.data, 1, depth,
                          to, g.v_row, 0, vectors * g.wide, start)  # fmt: skip


@helper
def transform_result(worker, group, first_filter, last_filter, first, last, bias, out, geometry, work):
    """The outputs of the tiles from `first` to `last`, of some filters."""
    g = geometry[0]
    size = work.itemsize
    base = work.ctypes.data + worker * g.work * size
    of_image = g.tiles_down * g.tiles_across
    for k in range(first_filter, last_filter):
        filter = group * g.filters + k
        at = first
        while at < last:
            image, number = at // of_image, at % of_image
            down, across = number // g.tiles_across, number % g.tiles_across
            count = min(g.tiles_across - across, last - at)
            row, col = down * g.outputs, across * g.outputs
            place = ((image * g.groups * g.filters + filter) * g.OH + row) * g.OW + col
            call_emitted(g.result, base + (g.m + k * g.v_row + at - first) * size, g.m_step,
                      out.ctypes.data + place * size, g.OW, min(g.outputs, g.OH - row),
                      min(count * g.outputs, g.OW - col), bias.ctypes.data + filter * size,
                      0, 0, 0, 0, 0)  # fmt: skip
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
    workers = active()
    u = workspace("transformed weights", g.positions * g.u_step, w.dtype)
    work = workspace("work", workers * g.work, w.dtype)
    transform_weights(
        w.size * g.positions, g.slices * -(-g.groups * g.filters // FILTERS), w.reshape(-1), plan.record, u
    )
    correlate(
        flops // WORTH_A_LAUNCH, workers, len(source), source.reshape(-1), u, bias, zeros(g.rows, w.dtype),
        out.reshape(-1), plan.record, plan.table, plan.tiles, work,
    )  # fmt: skip
