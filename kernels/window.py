"""One sum of products per output position, over all images, channels and filters at once.

The first thing NumPy offers to whoever wrote the loops: the loops over positions stay, the rest becomes
array arithmetic. Each position makes a temporary of N x K x C/groups x R x S products.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kernels.arrays import crop, flat_position, grouped, pad, padded_zeros, winning_tap
from kernels.registry import everything
from kernels.spec import ConvSpec, PoolSpec, Spec

supports = everything

Window = tuple[slice, slice]


def positions(spec: Spec) -> Iterator[tuple[int, int, Window]]:
    """Each output position (oh, ow) and the rows and columns of the padded input that it sees."""
    for oh in range(spec.OH):
        top = oh * spec.stride[0]
        rows = slice(top, top + spec.rows.reach, spec.dilation[0])
        for ow in range(spec.OW):
            left = ow * spec.stride[1]
            yield oh, ow, (rows, slice(left, left + spec.cols.reach, spec.dilation[1]))


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y[:, :, oh, ow] = the sum of window * filter over c, r, s."""
    padded, filters = pad(spec, x), grouped(spec, w)
    for oh, ow, (rows, cols) in positions(spec):
        window = padded[:, :, rows, cols].reshape(spec.N, spec.groups, 1, -1, spec.R, spec.S)
        y[:, :, oh, ow] = (window * filters).sum(axis=(3, 4, 5)).reshape(spec.N, spec.K)
    if b is not None:
        y += b[:, None, None]


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """Each window of dx collects the sum of dy * filter over the filters."""
    collected, filters = padded_zeros(spec, dx.dtype), grouped(spec, w)
    for oh, ow, (rows, cols) in positions(spec):
        weights = dy[:, :, oh, ow].reshape(spec.N, spec.groups, -1, 1, 1, 1)
        collected[:, :, rows, cols] += (weights * filters).sum(axis=2).reshape(spec.N, spec.C, spec.R, spec.S)
    dx[...] = crop(spec, collected)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw collects the sum of dy * window over the images."""
    padded = pad(spec, x)
    dw[...] = 0
    for oh, ow, (rows, cols) in positions(spec):
        window = padded[:, :, rows, cols].reshape(spec.N, spec.groups, 1, -1, spec.R, spec.S)
        weights = dy[:, :, oh, ow].reshape(spec.N, spec.groups, -1, 1, 1, 1)
        dw += (weights * window).sum(axis=0).reshape(dw.shape)


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    dy.sum(axis=(0, 2, 3), out=db)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """y[:, :, oh, ow] = the maximum of the window."""
    padded = pad(spec, x, -np.inf)
    winner = np.empty(y.shape, np.int64)
    for oh, ow, (rows, cols) in positions(spec):
        window = padded[:, :, rows, cols].reshape(spec.N, spec.C, -1)
        y[:, :, oh, ow] = window.max(axis=-1)
        if indices is not None:
            winner[:, :, oh, ow] = winning_tap(window)
    if indices is not None:
        indices[...] = flat_position(spec, winner)


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """One position at a time, each dy goes to the x that won its window."""
    dx[...] = 0
    planes = dx.reshape(spec.N * spec.C, -1)
    every = np.arange(spec.N * spec.C)
    for oh, ow, _ in positions(spec):
        planes[every, indices[:, :, oh, ow].ravel()] += dy[:, :, oh, ow].ravel()


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """y[:, :, oh, ow] = the sum of the window over its number of taps."""
    padded = pad(spec, x)
    for oh, ow, (rows, cols) in positions(spec):
        y[:, :, oh, ow] = padded[:, :, rows, cols].sum(axis=(2, 3))
    y /= spec.divisors.astype(y.dtype)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Each window of dx collects its share of dy."""
    collected = padded_zeros(spec, dx.dtype)
    share = dy / spec.divisors.astype(dy.dtype)
    for oh, ow, (rows, cols) in positions(spec):
        collected[:, :, rows, cols] += share[:, :, oh, ow, None, None]
    dx[...] = crop(spec, collected)
