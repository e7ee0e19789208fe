"""Backends against SciPy's correlation: an oracle that shares no code and no thought with this package."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from kernel_cases import integers
from scipy.signal import convolve, correlate

LAYERS = {
    "dense": ((2, 3, 6, 7), (4, 3, 3, 3), 1, 0),
    "not square": ((1, 2, 5, 8), (3, 2, 4, 1), 1, 0),
    "padding": ((2, 2, 5, 4), (2, 2, 3, 2), 1, (2, 1)),
    "stride": ((2, 2, 8, 7), (3, 2, 2, 3), (3, 2), 0),
    "stride and padding": ((1, 3, 7, 6), (2, 3, 3, 3), 2, 1),
    "kernel is input": ((2, 2, 3, 4), (2, 2, 3, 4), 1, 0),
}


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def padded(x: np.ndarray, padding: tuple[int, int]) -> np.ndarray:
    ph, pw = padding
    return np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))


@pytest.mark.parametrize(("x_shape", "w_shape", "stride", "padding"), LAYERS.values(), ids=LAYERS)
def test_conv2d(on, x_shape, w_shape, stride, padding) -> None:
    """A strided output is every stride-th of the dense one."""
    x, w, (sh, sw) = integers(x_shape, seed=1), integers(w_shape, seed=2), pair(stride)
    wide = padded(x, pair(padding))
    expected = np.array(
        [[correlate(image, filter_, "valid", "direct")[0, ::sh, ::sw] for filter_ in w] for image in wide]
    )
    on.same(on.conv2d(x, w, stride=stride, padding=padding), expected)


@pytest.mark.parametrize(("x_shape", "w_shape", "stride", "padding"), LAYERS.values(), ids=LAYERS)
def test_conv2d_backward(on, x_shape, w_shape, stride, padding) -> None:
    """dx is dy, spread out by the stride, fully convolved with the filters; dw correlates x with it."""
    x, w, (sh, sw), (ph, pw) = (
        integers(x_shape, seed=1),
        integers(w_shape, seed=2),
        pair(stride),
        pair(padding),
    )
    wide = padded(x, (ph, pw))
    N, C, H, W = wide.shape
    K, _, R, S = w_shape
    spread = np.zeros((N, K, H - R + 1, W - S + 1))
    dy = integers(spread[:, :, ::sh, ::sw].shape, seed=3)
    spread[:, :, ::sh, ::sw] = dy

    collected, dw = np.zeros_like(wide), np.zeros_like(w)
    for n, c, k in itertools.product(range(N), range(C), range(K)):
        collected[n, c] += convolve(spread[n, k], w[k, c], "full", "direct")
        dw[k, c] += correlate(wide[n, c], spread[n, k], "valid", "direct")
    result = on.conv2d_backward(dy, x, w, stride=stride, padding=padding)
    on.same(result.dx, collected[:, :, ph : H - ph, pw : W - pw])
    on.same(result.dw, dw)
    on.same(result.db, dy.sum(axis=(0, 2, 3)))


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_conv1d(on, mode) -> None:
    """NumPy's three modes are three paddings."""
    x, w = integers((2, 3, 9), seed=4), integers((4, 3, 5), seed=5)
    expected = np.array(
        [[sum(np.correlate(x[n, c], w[k, c], mode) for c in range(3)) for k in range(4)] for n in range(2)]
    )
    padding = {"valid": "valid", "same": "same", "full": 4}[mode]
    on.same(on.conv1d(x, w, padding=padding), expected)
