"""The `numba` backend's pooling: a row of outputs at a time, tap by tap: the inner loop runs along rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba import prange

from kernels.arrays import readonly
from kernels.axis import Axis
from kernels.jit import Kernel
from kernels.numba_rows import add_gathered, add_spread, fill, keep_larger, keep_where
from kernels.spec import PoolSpec


@lru_cache(maxsize=1024)
def table(axis: Axis) -> np.ndarray:
    """For each tap, int64 (kernel, 3): the outputs that it serves, first and end, and the first's input."""
    valid = axis.valid()
    begin = valid.argmax(axis=0)
    end = np.where(valid.any(axis=0), begin + valid.sum(axis=0), begin)
    start = np.clip(axis.taps()[begin, np.arange(axis.kernel)], 0, axis.size)
    return readonly(np.stack([begin, end, start], axis=1))


@Kernel
def max_windows(x, H, W, OH, OW, down, across, sh, sw, y, indices):
    """y = the maximum of each window of x, both flat; its position in indices, unless that is empty."""
    for plane in prange(len(y) // (OH * OW)):
        for oh in range(OH):
            row = (plane * OH + oh) * OW
            fill(y, row, OW, -np.inf)
            if indices.size:
                fill(indices, row, OW, -1)
            for r in range(len(down)):
                if down[r, 0] <= oh < down[r, 1]:
                    position = (down[r, 2] + (oh - down[r, 0]) * sh) * W
                    for s in range(len(across)):
                        at, count = row + across[s, 0], across[s, 1] - across[s, 0]
                        here = position + across[s, 2]
                        begin = plane * H * W + here
                        if indices.size:
                            keep_where(x, begin, sw, y, indices, at, count, here)
                        else:
                            keep_larger(x, begin, sw, y, at, count)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """The first maximum of each window, or its last NaN."""
    positions = np.empty(0, np.int64) if indices is None else indices.reshape(-1)
    max_windows(spec.flops, x.reshape(-1), *_geometry(spec), y.reshape(-1), positions)


def _geometry(spec: PoolSpec) -> tuple[Any, ...]:
    return spec.H, spec.W, spec.OH, spec.OW, table(spec.rows), table(spec.cols), *spec.stride


@Kernel
def scatter(dy, indices, dx):
    """dx (N, C, H * W): each dy (N, C, outputs) is added at its index."""
    N, C, outputs = dy.shape
    for nc in prange(N * C):
        n, c = nc // C, nc % C
        dx[n, c] = 0
        for i in range(outputs):
            dx[n, c, indices[n, c, i]] += dy[n, c, i]


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy goes to the x that won its window."""
    planes = spec.N, spec.C, -1
    scatter(dx.size, dy.reshape(planes), indices.reshape(planes), dx.reshape(planes))


@Kernel
def average_windows(x, H, W, OH, OW, down, across, sh, sw, divisors, y):
    """y = the sum of each window of x, both flat, over divisors (OH, OW)."""
    for plane in prange(len(y) // (OH * OW)):
        for oh in range(OH):
            row = (plane * OH + oh) * OW
            fill(y, row, OW, 0)
            for r in range(len(down)):
                if down[r, 0] <= oh < down[r, 1]:
                    ih = down[r, 2] + (oh - down[r, 0]) * sh
                    for s in range(len(across)):
                        begin = (plane * H + ih) * W + across[s, 2]
                        count = across[s, 1] - across[s, 0]
                        add_gathered(x, begin, sw, y, row + across[s, 0], count)
            for ow in range(OW):
                y[row + ow] /= divisors[oh, ow]


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The sum of each window, over its number of taps."""
    divisors = readonly(spec.divisors.astype(x.dtype))
    average_windows(spec.flops, x.reshape(-1), *_geometry(spec), divisors, y.reshape(-1))


@Kernel
def share_windows(dy, H, W, OH, OW, down, across, sh, sw, divisors, dx):
    """dx: each dy, both flat, over its divisor, is added to every tap of its window."""
    for plane in prange(len(dy) // (OH * OW)):
        fill(dx, plane * H * W, H * W, 0)
        share = np.empty(OW, dx.dtype)
        for oh in range(OH):
            for ow in range(OW):
                share[ow] = dy[(plane * OH + oh) * OW + ow] / divisors[oh, ow]
            for r in range(len(down)):
                if down[r, 0] <= oh < down[r, 1]:
                    ih = down[r, 2] + (oh - down[r, 0]) * sh
                    for s in range(len(across)):
                        at = (plane * H + ih) * W + across[s, 2]
                        add_spread(share, across[s, 0], dx, at, sw, across[s, 1] - across[s, 0])


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Each dy is shared out evenly among the taps of its window."""
    divisors = readonly(spec.divisors.astype(dy.dtype))
    share_windows(spec.flops, dy.reshape(-1), *_geometry(spec), divisors, dx.reshape(-1))
