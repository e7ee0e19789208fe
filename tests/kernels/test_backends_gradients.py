"""Gradients against central differences of a random weighing of the outputs, in float64.

Each operation is linear in what is moved (max pooling as long as no maximum changes place), so that
central differences have no truncation error whatever the step; only rounding is left, some 1e-15 times the
values, far below the tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

STEP = 0.25
TOLERANCE = 1e-12


def slope(function: Callable[[], np.ndarray], weights: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """The derivative of (weights * function()).sum() for each element of `moved`, which function reads."""
    result = np.empty_like(moved)
    for index in np.ndindex(*moved.shape):
        value, ends = moved[index], []
        for moved[index] in (value + STEP, value - STEP):
            ends.append(float((weights * function()).sum()))
        moved[index] = value
        result[index] = (ends[0] - ends[1]) / (2 * STEP)
    return result


def assert_close(on, result: np.ndarray, expected: np.ndarray) -> None:
    """Within rounding, or within what the backend's method is allowed."""
    allowed = max(TOLERANCE, on.backend.tolerance * np.abs(expected).max())
    np.testing.assert_allclose(result, expected, rtol=0, atol=allowed)


CONV2D = {
    "plain": ((2, 2, 4, 3), (3, 2, 2, 2), {}),
    "stride, padding": ((1, 2, 4, 5), (2, 2, 3, 2), {"stride": (2, 3), "padding": (1, 2)}),
    "dilation, sides": ((1, 2, 5, 4), (2, 2, 2, 2), {"dilation": (3, 2), "padding": ((2, 0), (1, 0))}),
    "groups": ((2, 4, 3, 4), (4, 2, 2, 3), {"groups": 2, "padding": "same"}),
}
CONV1D = {
    "plain": ((2, 2, 6), (3, 2, 3), {}),
    "causal": ((1, 2, 7), (2, 1, 2), {"padding": (3, 0), "dilation": 3, "groups": 2, "stride": 2}),
    "unbatched": ((2, 6), (2, 2, 3), {"padding": "same"}),
}


def check_convolution(on, kind, x_shape, w_shape, geometry) -> None:
    rng = np.random.default_rng(5)
    forward, backward = getattr(on, kind), getattr(on, f"{kind}_backward")
    x, w, b = (rng.standard_normal(shape) for shape in (x_shape, w_shape, w_shape[:1]))

    def function() -> np.ndarray:
        return forward(x, w, b, **geometry)

    dy = rng.standard_normal(function().shape)
    gradients = backward(dy, x, w, **geometry)
    for gradient, moved in zip(gradients, (x, w, b), strict=True):
        assert_close(on, gradient, slope(function, dy, moved))


@pytest.mark.parametrize(("x_shape", "w_shape", "geometry"), CONV2D.values(), ids=CONV2D)
def test_conv2d(on, x_shape, w_shape, geometry) -> None:
    check_convolution(on, "conv2d", x_shape, w_shape, geometry)


@pytest.mark.parametrize(("x_shape", "w_shape", "geometry"), CONV1D.values(), ids=CONV1D)
def test_conv1d(on, x_shape, w_shape, geometry) -> None:
    check_convolution(on, "conv1d", x_shape, w_shape, geometry)


MAX = {
    "plain": (2, {}),
    "overlap": ((3, 2), {"stride": (2, 1), "padding": (1, 0)}),
    "dilation, ceil": (2, {"dilation": (2, 3), "stride": 2, "padding": 1, "ceil_mode": True}),
}
AVG = {
    "plain": (2, {}),
    "overlap": ((3, 2), {"stride": (2, 1), "padding": ((1, 2), (0, 1))}),
    "exclude, ceil": (3, {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    "include, ceil": (3, {"stride": 2, "padding": 1, "ceil_mode": True}),
}


@pytest.mark.parametrize(("kernel_size", "window"), MAX.values(), ids=MAX)
def test_max_pool2d(on, kernel_size, window) -> None:
    """The values lie 1 apart, further than the steps can move them: no maximum changes place."""
    rng = np.random.default_rng(6)
    x = rng.permutation(np.arange(60.0)).reshape(1, 2, 6, 5)

    def function() -> np.ndarray:
        return on.max_pool2d(x, kernel_size, **window)

    dy = rng.standard_normal(function().shape)
    expected = slope(function, dy, x)
    assert_close(on, on.max_pool2d_backward(dy, x, kernel_size, **window), expected)
    _, indices = on.max_pool2d(x, kernel_size, **window, return_indices=True)
    given = on.max_pool2d_backward(dy, x, kernel_size, **window, indices=indices)
    assert_close(on, given, expected)


@pytest.mark.parametrize(("kernel_size", "window"), AVG.values(), ids=AVG)
def test_avg_pool2d(on, kernel_size, window) -> None:
    rng = np.random.default_rng(7)
    x = rng.standard_normal((1, 2, 6, 5))

    def function() -> np.ndarray:
        return on.avg_pool2d(x, kernel_size, **window)

    dy = rng.standard_normal(function().shape)
    dx = on.avg_pool2d_backward(dy, x.shape, kernel_size, **window)
    assert_close(on, dx, slope(function, dy, x))
