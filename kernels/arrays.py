"""What backends share: padding, the view of all windows, arrays for compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from kernels.spec import ConvSpec, PoolSpec, Spec


def pad(spec: Spec, x: np.ndarray, fill: float = 0.0) -> np.ndarray:
    """x (N, C, H, W) with its padding, wide enough for every window; x itself where there is none."""
    tall, wide = _padded_shape(spec)
    if (tall, wide) == (spec.H, spec.W):
        return x
    padded = np.full((*x.shape[:2], tall, wide), fill, x.dtype)
    crop(spec, padded)[...] = x
    return padded


def padded_zeros(spec: Spec, dtype: np.dtype) -> np.ndarray:
    """Zeros of the shape of `pad(spec, x)`: where a backward pass collects dx and the padding's share."""
    return np.zeros((spec.N, spec.C, *_padded_shape(spec)), dtype)


def crop(spec: Spec, padded: np.ndarray) -> np.ndarray:
    """The view of `padded` (N, C, ...) that holds the input itself."""
    (top, _), (left, _) = spec.padding
    return padded[:, :, top : top + spec.H, left : left + spec.W]


def _padded_shape(spec: Spec) -> tuple[int, int]:
    return (
        max(spec.rows.before + spec.H, spec.rows.extent),
        max(spec.cols.before + spec.W, spec.cols.extent),
    )


def windows(spec: Spec, padded: np.ndarray) -> np.ndarray:
    """Every window of `pad(spec, x)` as a read-only view (N, C, OH, OW, R, S), without a copy.

    The strides are safe because `pad` makes room for the last tap of the last window.
    """
    n, c, h, w = padded.strides
    (sh, sw), (dh, dw) = spec.stride, spec.dilation
    return as_strided(
        padded,
        (spec.N, spec.C, spec.OH, spec.OW, spec.R, spec.S),
        (n, c, sh * h, sw * w, dh * h, dw * w),
        writeable=False,
    )


def tap(spec: Spec, padded: np.ndarray, r: int, s: int) -> np.ndarray:
    """What tap (r, s) of every window sees: the view (N, C, OH, OW) of `padded`."""
    (sh, sw), (dh, dw) = spec.stride, spec.dilation
    top, left = r * dh, s * dw
    return padded[:, :, top : top + spec.OH * sh : sh, left : left + spec.OW * sw : sw][
        :, :, : spec.OH, : spec.OW
    ]


def grouped(spec: ConvSpec, w: np.ndarray) -> np.ndarray:
    """w (K, C/groups, R, S) as (groups, K/groups, C/groups, R, S): a view."""
    return w.reshape(spec.groups, spec.K // spec.groups, *w.shape[1:])


def winning_tap(window: np.ndarray) -> np.ndarray:
    """Where the maximum stands along the last axis: the first of equals, but the last NaN, as in PyTorch."""
    winner: np.ndarray = window.argmax(axis=-1)
    nan = np.isnan(window)
    if nan.any():
        last = window.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        winner = np.where(nan.any(axis=-1), last, winner)
    return winner


def flat_position(spec: Spec, winner: np.ndarray) -> np.ndarray:
    """Positions in the H x W plane of the winning taps, both int64 (N, C, OH, OW).

    `winner` holds r * S + s. Padding is lower than everything, so it can win only a window of nothing
    but -inf, as its first tap; that window's first tap on the input takes its place.
    """
    r, s = np.divmod(winner, spec.S)
    first_r = spec.rows.valid().argmax(axis=1)[:, None]
    first_s = spec.cols.valid().argmax(axis=1)
    rows = np.arange(spec.OH)[:, None] * spec.stride[0] - spec.rows.before
    cols = np.arange(spec.OW) * spec.stride[1] - spec.cols.before
    ih = rows + np.maximum(r, first_r) * spec.dilation[0]
    iw = cols + np.maximum(s, first_s) * spec.dilation[1]
    position: np.ndarray = ih * spec.W + iw
    return position


def check_positions(indices: np.ndarray, spec: PoolSpec) -> None:
    """Raise ValueError unless all `indices` are positions in the H x W plane."""
    if indices.size and (indices.min() < 0 or indices.max() >= spec.H * spec.W):
        raise ValueError(
            f"indices lie in {indices.min()}..{indices.max()}; expected positions in the {spec.H}x{spec.W} "
            f"plane, 0..{spec.H * spec.W - 1}"
        )


def readonly(array: np.ndarray) -> np.ndarray:
    """`array`, no longer writeable: what backends get, so that no input can be modified.

    It also keeps Numba, to which a writeable array is another type, from compiling everything twice.
    """
    array.setflags(False)  # type: ignore[call-arg]  # by name it takes twice as long
    return array


def records(rows: Sequence[NamedTuple]) -> np.ndarray:
    """As a structured array; compiled loops take it as a pointer, where a tuple is converted at each call."""
    dtype = np.dtype([(name, np.intp) for name in rows[0]._fields])
    return readonly(np.array([tuple(row) for row in rows], dtype))
