"""Nested loops over every index: the formula, written out. Slow, and the oracle for the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from kernels.registry import everything
from kernels.spec import ConvSpec, PoolSpec, Spec

supports = everything


def taps(spec: Spec, oh: int, ow: int) -> Iterator[tuple[int, int, int, int]]:
    """The taps (r, s) of the window at (oh, ow) that fall on the input, and where: (ih, iw)."""
    (top, _), (left, _) = spec.padding
    for r in range(spec.R):
        ih = oh * spec.stride[0] - top + r * spec.dilation[0]
        if 0 <= ih < spec.H:
            for s in range(spec.S):
                iw = ow * spec.stride[1] - left + s * spec.dilation[1]
                if 0 <= iw < spec.W:
                    yield r, s, ih, iw


def first_channel(spec: ConvSpec, k: int) -> int:
    """The first input channel that filter k sees: its group's."""
    return k // (spec.K // spec.groups) * (spec.C // spec.groups)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y[n, k, oh, ow] = b[k] + the sum over c, r, s of w[k, c, r, s] * x[n, c, ih, iw]."""
    for n in range(spec.N):
        for k in range(spec.K):
            first = first_channel(spec, k)
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    total = y.dtype.type(0) if b is None else b[k]
                    for c in range(spec.C // spec.groups):
                        for r, s, ih, iw in taps(spec, oh, ow):
                            total += w[k, c, r, s] * x[n, first + c, ih, iw]
                    y[n, k, oh, ow] = total


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """Every product w * x of the forward pass sends w * dy back to its x."""
    dx[...] = 0
    for n in range(spec.N):
        for k in range(spec.K):
            first = first_channel(spec, k)
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    for c in range(spec.C // spec.groups):
                        for r, s, ih, iw in taps(spec, oh, ow):
                            dx[n, first + c, ih, iw] += w[k, c, r, s] * dy[n, k, oh, ow]


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """Every product w * x of the forward pass sends x * dy back to its w."""
    dw[...] = 0
    for n in range(spec.N):
        for k in range(spec.K):
            first = first_channel(spec, k)
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    for c in range(spec.C // spec.groups):
                        for r, s, ih, iw in taps(spec, oh, ow):
                            dw[k, c, r, s] += x[n, first + c, ih, iw] * dy[n, k, oh, ow]


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[n, k, oh, ow] over n, oh, ow."""
    db[...] = 0
    for n in range(spec.N):
        for k in range(spec.K):
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    db[k] += dy[n, k, oh, ow]


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """The largest x of each window; the first of equals wins, and any NaN does."""
    for n in range(spec.N):
        for c in range(spec.C):
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    best, where = None, 0
                    for _, _, ih, iw in taps(spec, oh, ow):
                        value = x[n, c, ih, iw]
                        if best is None or value > best or np.isnan(value):
                            best, where = value, ih * spec.W + iw
                    y[n, c, oh, ow] = best
                    if indices is not None:
                        indices[n, c, oh, ow] = where


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy goes to the x that won its window."""
    dx[...] = 0
    for n in range(spec.N):
        for c in range(spec.C):
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    ih, iw = divmod(int(indices[n, c, oh, ow]), spec.W)
                    dx[n, c, ih, iw] += dy[n, c, oh, ow]


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The sum of each window, divided by the number of its taps."""
    divisors = spec.divisors.astype(x.dtype)
    for n in range(spec.N):
        for c in range(spec.C):
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    total = y.dtype.type(0)
                    for _, _, ih, iw in taps(spec, oh, ow):
                        total += x[n, c, ih, iw]
                    y[n, c, oh, ow] = total / divisors[oh, ow]


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Each dy is shared out evenly among the taps of its window."""
    divisors = spec.divisors.astype(dy.dtype)
    dx[...] = 0
    for n in range(spec.N):
        for c in range(spec.C):
            for oh in range(spec.OH):
                for ow in range(spec.OW):
                    for _, _, ih, iw in taps(spec, oh, ow):
                        dx[n, c, ih, iw] += dy[n, c, oh, ow] / divisors[oh, ow]
