"""The window matrix, then one matmul: convolution as the one operation that BLAS has perfected.

The matrix holds every input once for each window that covers it: R x S times the input at stride 1, and
R x S / (stride height x stride width) times in general (`ConvSpec.im2col_bytes` counts it exactly). That
is the price in copying; what it buys is the speed of a library's matrix product. A strip of it at a time, of
some images or some rows of one, stays in the cache between the two, and bounds the price in memory. Source:
K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document
Processing", 2006, section 2; the name is Caffe's.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.arrays import crop, flat_position, grouped, pad, padded_zeros, tap, windows, winning_tap
from kernels.registry import everything
from kernels.spec import ConvSpec, PoolSpec, Spec

supports = everything


STRIP_BYTES = 4 << 20
"""Of window matrix at a time: more leaves the cache, less is a product too small for BLAS.

Beside large filters it is twice their size: each product reads them, or adds to their gradient.
"""


class Strip(NamedTuple):
    """Images whose windows are laid out at a time, or one, and which of their output rows."""

    spec: ConvSpec
    """Of these images alone."""
    images: slice
    rows: tuple[slice, ...]


@lru_cache(maxsize=1024)
def strips(spec: ConvSpec, itemsize: int) -> tuple[Strip, ...]:
    """The batch in strips of window matrix, of a row of outputs at least."""
    strip_bytes = max(STRIP_BYTES, 2 * math.prod(spec.w_shape) * itemsize)
    row_bytes = spec.C * spec.R * spec.S * spec.OW * itemsize
    count = max(1, strip_bytes // (row_bytes * spec.OH))
    height = max(1, min(spec.OH, strip_bytes // row_bytes))
    rows = tuple(slice(first, min(first + height, spec.OH)) for first in range(0, spec.OH, height))
    images = [slice(first, min(first + count, spec.N)) for first in range(0, spec.N, count)]
    return tuple(Strip(replace(spec, N=each.stop - each.start), each, rows) for each in images)


def image_columns(spec: ConvSpec, view: np.ndarray) -> np.ndarray:
    """The window matrix of each image, from some rows of `windows`: (N, groups, C/groups * R * S, -1)."""
    N, _, rows, *_ = view.shape
    return view.transpose(0, 1, 4, 5, 2, 3).reshape(N, spec.groups, -1, rows * spec.OW)


def batch_columns(spec: ConvSpec, view: np.ndarray) -> np.ndarray:
    """The window matrix of all images, from some rows of `windows`: (groups, C/groups * R * S, -1)."""
    return view.transpose(1, 4, 5, 0, 2, 3).reshape(spec.groups, spec.C // spec.groups * spec.R * spec.S, -1)


def col2im(spec: Spec, columns: np.ndarray, padded: np.ndarray, rows: slice = slice(None)) -> None:
    """Add each column (N, C, R, S, rows, OW) onto the window of `padded` that it came from."""
    for r in range(spec.R):
        for s in range(spec.S):
            tap(spec, padded, r, s)[:, :, rows] += columns[:, :, r, s]


def filter_matrix(spec: ConvSpec, w: np.ndarray) -> np.ndarray:
    """One row a filter: (groups, K/groups, C/groups * R * S)."""
    return grouped(spec, w).reshape(spec.groups, spec.K // spec.groups, -1)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = filters @ columns, image by image within one matmul, so that y comes out as (N, K, OH, OW)."""
    filters = filter_matrix(spec, w)
    for part, images, row_strips in strips(spec, x.itemsize):
        view = windows(part, pad(part, x[images]))
        product = y[images].reshape(part.N, spec.groups, spec.K // spec.groups, -1)
        for rows in row_strips:
            pixels = slice(rows.start * spec.OW, rows.stop * spec.OW)
            np.matmul(filters, image_columns(part, view[:, :, rows]), out=product[..., pixels])
    if b is not None:
        y += b[:, None, None]


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """The columns' gradient is filters.T @ dy; col2im brings it home."""
    filters = filter_matrix(spec, w).swapaxes(1, 2)
    for part, images, row_strips in strips(spec, dy.itemsize):
        by_group = dy[images].reshape(part.N, spec.groups, spec.K // spec.groups, -1)
        padded = padded_zeros(part, dx.dtype)
        for rows in row_strips:
            product = np.matmul(filters, by_group[..., rows.start * spec.OW : rows.stop * spec.OW])
            col2im(part, product.reshape(part.N, spec.C, spec.R, spec.S, -1, spec.OW), padded, rows)
            del product  # before the next one is made
        dx[images] = crop(part, padded)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw = dy @ columns.T, summed over positions and images by the product itself, and over strips."""
    total = filter_matrix(spec, dw)
    total[...] = 0
    for part, images, row_strips in strips(spec, x.itemsize):
        view = windows(part, pad(part, x[images]))
        for rows in row_strips:
            by_filter = dy[images, :, rows].swapaxes(0, 1).reshape(spec.groups, spec.K // spec.groups, -1)
            total += np.matmul(by_filter, batch_columns(part, view[:, :, rows]).swapaxes(1, 2))


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    dy.sum(axis=(0, 2, 3), out=db)


def pool_columns(spec: PoolSpec, x: np.ndarray, fill: float) -> np.ndarray:
    """One row a tap: (N, C, R * S, OH, OW)."""
    view = windows(spec, pad(spec, x, fill)).transpose(0, 1, 4, 5, 2, 3)
    return view.reshape(spec.N, spec.C, -1, spec.OH, spec.OW)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """The maximum of each column."""
    columns = pool_columns(spec, x, -np.inf)
    columns.max(axis=2, out=y)
    if indices is not None:
        indices[...] = flat_position(spec, winning_tap(np.moveaxis(columns, 2, -1)))


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy is summed up at the x that won its window: with a known place, no columns are needed."""
    planes, size = spec.N * spec.C, spec.H * spec.W
    flat = indices.reshape(planes, -1) + np.arange(planes)[:, None] * size
    dx.reshape(-1)[...] = np.bincount(flat.ravel(), weights=dy.ravel(), minlength=planes * size)


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The mean of each column."""
    pool_columns(spec, x, 0).sum(axis=2, out=y)
    y /= spec.divisors.astype(y.dtype)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """The same share of dy in every row of its column; then col2im."""
    share = dy / spec.divisors.astype(dy.dtype)
    shape = (spec.N, spec.C, spec.R, spec.S, spec.OH, spec.OW)
    padded = padded_zeros(spec, dx.dtype)
    col2im(spec, np.broadcast_to(share[:, :, None, None], shape), padded)
    dx[...] = crop(spec, padded)
