"""Strided windows, then einsum: the formula as one expression, and no window is ever copied.

The windows are a view of x, whose strides let neighbours overlap. einsum walks it as it lies, without
BLAS: `optimize=True` would find a tensordot, which copies the windows into im2col's matrix first. What
can be chosen is its inner loop: the filters are laid last in memory, so that it runs along them. That is
slow for few filters, but asks for no more memory than the output once over.
"""

from __future__ import annotations

import numpy as np

from kernels.arrays import flat_position, grouped, pad, windows, winning_tap
from kernels.axis import Axis
from kernels.registry import everything
from kernels.spec import ConvSpec, PoolSpec

supports = everything


def conv_windows(spec: ConvSpec, x: np.ndarray) -> np.ndarray:
    """The windows of x as a view (N, groups, C/groups, OH, OW, R, S)."""
    view = windows(spec, pad(spec, x))
    return view.reshape(spec.N, spec.groups, -1, *view.shape[2:])


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y[n, g, k, h, w] = the sum over c, r, s of window * filter."""
    filters_last = np.ascontiguousarray(grouped(spec, w).transpose(0, 2, 3, 4, 1))
    product = np.einsum("ngchwrs,gcrsk->nghwk", conv_windows(spec, x), filters_last)
    y.reshape(spec.N, spec.groups, -1, spec.OH, spec.OW)[...] = product.transpose(0, 1, 4, 2, 3)
    if b is not None:
        y += b[:, None, None]


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx is the stride-1 convolution of dy, spread out by the stride, with the filters turned round.

    Source: V. Dumoulin, F. Visin, "A guide to convolution arithmetic for deep learning", 2016, section 4.
    """
    turned = grouped(spec, w)[..., ::-1, ::-1]
    channels_last = np.ascontiguousarray(turned.transpose(0, 1, 3, 4, 2))
    backward = ConvSpec(
        N=spec.N,
        C=spec.K,
        H=spec.H + spec.rows.reach - 1,
        W=spec.W + spec.cols.reach - 1,
        K=spec.C,
        R=spec.R,
        S=spec.S,
        dilation=spec.dilation,
        groups=spec.groups,
    )
    view = conv_windows(backward, spread(spec, dy))
    product = np.einsum("ngkhwrs,gkrsc->nghwc", view, channels_last)
    dx.reshape(spec.N, spec.groups, -1, spec.H, spec.W)[...] = product.transpose(0, 1, 4, 2, 3)


def spread(spec: ConvSpec, dy: np.ndarray) -> np.ndarray:
    """dy with stride - 1 zeros between its elements, and room for the filters around it."""
    wide = np.zeros((spec.N, spec.K, spec.H + spec.rows.reach - 1, spec.W + spec.cols.reach - 1), dy.dtype)
    to_rows, from_rows = _landing(spec.rows)
    to_cols, from_cols = _landing(spec.cols)
    wide[:, :, to_rows, to_cols] = dy[:, :, from_rows, from_cols]
    return wide


def _landing(axis: Axis) -> tuple[slice, slice]:
    """Where outputs land in the spread array, and which ones: windows wholly on padding have no place."""
    offset = axis.reach - 1 - axis.before
    first = max(0, -(offset // axis.stride))
    last = min(axis.out - 1, (axis.size + axis.reach - 2 - offset) // axis.stride)
    start = offset + first * axis.stride
    count = max(0, last - first + 1)
    return slice(start, start + count * axis.stride, axis.stride), slice(first, first + count)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw[g, k, c, r, s] = the sum over n, h, w of dy * window."""
    by_group = dy.reshape(spec.N, spec.groups, -1, spec.OH, spec.OW)
    filters_last = np.ascontiguousarray(by_group.transpose(0, 1, 3, 4, 2))
    product = np.einsum("ngchwrs,nghwk->gcrsk", conv_windows(spec, x), filters_last)
    grouped(spec, dw)[...] = product.transpose(0, 4, 1, 2, 3)


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[n, k, h, w] over n, h, w."""
    np.einsum("nkhw->k", dy, out=db)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """The maximum over the windows' two inner axes (einsum itself only adds and multiplies)."""
    view = windows(spec, pad(spec, x, -np.inf))
    view.max(axis=(-2, -1), out=y)
    if indices is not None:
        indices[...] = flat_position(spec, winning_tap(view.reshape(*y.shape, -1)))


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy is added at the index of the x that won its window."""
    dx[...] = 0
    planes = spec.N * spec.C
    flat = indices.reshape(planes, -1) + np.arange(planes)[:, None] * (spec.H * spec.W)
    np.add.at(dx.reshape(-1), flat.ravel(), dy.ravel())


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The sum over the windows' two inner axes, over their number of taps."""
    np.einsum("nchwrs->nchw", windows(spec, pad(spec, x)), out=y)
    y /= spec.divisors.astype(y.dtype)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Rows and columns apart: dx = rows' x share x columns, with 0/1 matrices of which window sees what."""
    share = dy / spec.divisors.astype(dy.dtype)
    np.einsum(
        "nchw,hi,wj->ncij",
        share,
        _sees(spec.rows, dx.dtype),
        _sees(spec.cols, dx.dtype),
        optimize=True,
        out=dx,
    )


def _sees(axis: Axis, dtype: np.dtype) -> np.ndarray:
    """1 where a window's taps fall on an input, else 0: (out, size)."""
    sees = np.zeros((axis.out, axis.size), dtype)
    outputs, _ = np.nonzero(axis.valid())
    sees[outputs, axis.taps()[axis.valid()]] = 1
    return sees
