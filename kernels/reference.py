"""What is right: every operation in float64, by a method that no backend uses.

Convolution is summed tap by tap, one matrix product over the channels for each (r, s); pooling likewise
compares or adds whole shifted planes. It is checked against the loops, SciPy and PyTorch, and is fast
enough to check every benchmark.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kernels.arrays import crop, grouped, pad, padded_zeros, tap
from kernels.spec import ConvSpec, PoolSpec, Spec

FLOAT64 = np.dtype(np.float64)


def _taps(spec: Spec) -> Iterator[tuple[int, int]]:
    return ((r, s) for r in range(spec.R) for s in range(spec.S))


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """y (N, K, OH, OW), float64."""
    padded, filters = pad(spec, x.astype(FLOAT64)), grouped(spec, w.astype(FLOAT64))
    y = np.zeros((spec.N, spec.groups, spec.K // spec.groups, spec.OH * spec.OW))
    for r, s in _taps(spec):
        seen = tap(spec, padded, r, s).reshape(spec.N, spec.groups, spec.C // spec.groups, -1)
        y += filters[..., r, s] @ seen
    y = y.reshape(spec.y_shape)
    return y if b is None else y + b[:, None, None]


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray) -> np.ndarray:
    """dx (N, C, H, W), float64."""
    filters = grouped(spec, w.astype(FLOAT64)).swapaxes(1, 2)
    flat = dy.astype(FLOAT64).reshape(spec.N, spec.groups, spec.K // spec.groups, -1)
    collected = padded_zeros(spec, FLOAT64)
    for r, s in _taps(spec):
        share = (filters[..., r, s] @ flat).reshape(spec.N, spec.C, spec.OH, spec.OW)
        tap(spec, collected, r, s)[...] += share
    return crop(spec, collected)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
    """dw (K, C/groups, R, S), float64."""
    padded = pad(spec, x.astype(FLOAT64))
    flat = dy.astype(FLOAT64).reshape(spec.N, spec.groups, spec.K // spec.groups, -1)
    dw = np.empty(spec.w_shape)
    for r, s in _taps(spec):
        seen = tap(spec, padded, r, s).reshape(spec.N, spec.groups, spec.C // spec.groups, -1)
        grouped(spec, dw)[..., r, s] = (flat @ seen.swapaxes(2, 3)).sum(axis=0)
    return dw


def conv_db(spec: ConvSpec, dy: np.ndarray) -> np.ndarray:
    """db (K,), float64."""
    db: np.ndarray = dy.astype(FLOAT64).sum(axis=(0, 2, 3))
    return db


def max_pool_forward(spec: PoolSpec, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y (N, C, OH, OW), float64, and the flat positions of the maxima, int64."""
    padded = pad(spec, x.astype(FLOAT64), -np.inf)
    y = np.full(spec.y_shape, -np.inf)
    indices = np.full(spec.y_shape, -1)
    rows, cols = spec.rows.taps(), spec.cols.taps()
    on_rows, on_cols = spec.rows.valid(), spec.cols.valid()
    for r, s in _taps(spec):
        value = tap(spec, padded, r, s)
        on_input = np.outer(on_rows[:, r], on_cols[:, s])
        wins = on_input & ((value > y) | np.isnan(value) | (indices < 0))
        y = np.where(wins, value, y)
        indices = np.where(wins, rows[:, r, None] * spec.W + cols[:, s], indices)
    return y, indices


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """dx (N, C, H, W), float64."""
    planes = spec.N * spec.C
    flat = indices.reshape(planes, -1) + np.arange(planes)[:, None] * (spec.H * spec.W)
    summed = np.bincount(flat.ravel(), weights=dy.astype(FLOAT64).ravel(), minlength=planes * spec.H * spec.W)
    return np.asarray(summed.reshape(spec.x_shape))


def avg_pool_forward(spec: PoolSpec, x: np.ndarray) -> np.ndarray:
    """y (N, C, OH, OW), float64."""
    padded = pad(spec, x.astype(FLOAT64))
    total = np.zeros(spec.y_shape)
    for r, s in _taps(spec):
        total += tap(spec, padded, r, s)
    return np.asarray(total / spec.divisors)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray) -> np.ndarray:
    """dx (N, C, H, W), float64."""
    share = dy.astype(FLOAT64) / spec.divisors
    collected = padded_zeros(spec, FLOAT64)
    for r, s in _taps(spec):
        tap(spec, collected, r, s)[...] += share
    return crop(spec, collected)
