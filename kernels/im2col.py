"""The window matrix, then one matmul: convolution as the one operation that BLAS has perfected.

The matrix holds every input once for each window that covers it: R x S times the input at stride 1, and
R x S / (stride height x stride width) times in general (`ConvSpec.im2col_bytes` counts it exactly). That
is the price in memory and in copying; what it buys is the speed of a library's matrix product. Source:
K. Chellapilla, S. Puri, P. Simard, "High Performance Convolutional Neural Networks for Document
Processing", 2006, section 2; the name is Caffe's.
"""

from __future__ import annotations

import numpy as np

from kernels.arrays import crop, flat_position, grouped, pad, padded_zeros, tap, windows, winning_tap
from kernels.registry import everything
from kernels.spec import ConvSpec, PoolSpec, Spec

supports = everything


def image_columns(spec: ConvSpec, x: np.ndarray) -> np.ndarray:
    """The window matrix of each image: (N, groups, C/groups * R * S, OH * OW)."""
    view = windows(spec, pad(spec, x)).transpose(0, 1, 4, 5, 2, 3)
    return view.reshape(spec.N, spec.groups, -1, spec.OH * spec.OW)


def batch_columns(spec: ConvSpec, x: np.ndarray) -> np.ndarray:
    """The window matrix of the whole batch: (groups, C/groups * R * S, N * OH * OW)."""
    view = windows(spec, pad(spec, x)).transpose(1, 4, 5, 0, 2, 3)
    return view.reshape(spec.groups, spec.C // spec.groups * spec.R * spec.S, -1)


def col2im(spec: Spec, columns: np.ndarray, dx: np.ndarray) -> None:
    """Add each column (N, C, R, S, OH, OW) back onto the window that it came from."""
    collected = padded_zeros(spec, dx.dtype)
    for r in range(spec.R):
        for s in range(spec.S):
            tap(spec, collected, r, s)[...] += columns[:, :, r, s]
    dx[...] = crop(spec, collected)


def filter_matrix(spec: ConvSpec, w: np.ndarray) -> np.ndarray:
    """One row a filter: (groups, K/groups, C/groups * R * S)."""
    return grouped(spec, w).reshape(spec.groups, spec.K // spec.groups, -1)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = filters @ columns, image by image within one matmul, so that y comes out as (N, K, OH, OW)."""
    product = y.reshape(spec.N, spec.groups, spec.K // spec.groups, -1)
    np.matmul(filter_matrix(spec, w), image_columns(spec, x), out=product)
    if b is not None:
        y += b[:, None, None]


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """The columns' gradient is filters.T @ dy; col2im brings it home."""
    by_group = dy.reshape(spec.N, spec.groups, spec.K // spec.groups, -1)
    columns = np.matmul(filter_matrix(spec, w).swapaxes(1, 2), by_group)
    col2im(spec, columns.reshape(spec.N, spec.C, spec.R, spec.S, spec.OH, spec.OW), dx)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw = dy @ columns.T, summed over positions and images by the product itself."""
    by_filter = dy.reshape(spec.N, spec.K, -1).swapaxes(0, 1).reshape(spec.groups, spec.K // spec.groups, -1)
    np.matmul(by_filter, batch_columns(spec, x).swapaxes(1, 2), out=filter_matrix(spec, dw))


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
    col2im(spec, np.broadcast_to(share[:, :, None, None], shape), dx)
