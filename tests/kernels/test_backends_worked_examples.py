"""Examples small enough to check by hand."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import DTYPES

from kernels import ConvSpec, PoolSpec

X = np.arange(1.0, 17).reshape(1, 1, 4, 4)
# One looks at a pixel and the one below it, the other at a pixel and the one to its right.
W = np.array([[[[0.0, 0, 0], [0, 1, 0], [0, -1, 0]]], [[[0, 0, 0], [0, -1, 1], [0, 0, 0]]]])
DY = np.array([[[[-4.0, -4], [10, 11]], [[1, -7], [1, -11]]]])


def blocks(values: list[list[float]]) -> np.ndarray:
    """Each value four times, in a block of 2x2."""
    return np.kron(values, np.ones((2, 2)))[None, None]


@pytest.mark.parametrize("dtype", DTYPES)
class TestConvolution:
    """4x4 pixels counted from 1, two 3x3 filters, no bias."""

    def test_forward(self, on, dtype) -> None:
        y = on.conv2d(X.astype(dtype), W.astype(dtype))
        on.same(y, [[[[-4, -4], [-4, -4]], [[1, 1], [1, 1]]]])

    def test_backward(self, on, dtype) -> None:
        dx, dw, db = on.conv2d_backward(DY.astype(dtype), X.astype(dtype), W.astype(dtype))
        on.same(dx, [[[[0, 0, 0, 0], [0, -5, 4, -7], [0, 13, 27, -11], [0, -10, -11, 0]]]])
        on.same(dw[0], [[[104, 117, 130], [156, 169, 182], [208, 221, 234]]])
        on.same(dw[1], [[[-74, -90, -106], [-138, -154, -170], [-202, -218, -234]]])
        on.same(db, [13, -16])

    def test_padding(self, on, dtype) -> None:
        y = on.conv2d(X.astype(dtype), W.astype(dtype), padding=1)
        on.same(y[0, 0], [[-4, -4, -4, -4], [-4, -4, -4, -4], [-4, -4, -4, -4], [13, 14, 15, 16]])
        on.same(y[0, 1], [[1, 1, 1, -4], [1, 1, 1, -8], [1, 1, 1, -12], [1, 1, 1, -16]])

    def test_bias(self, on, dtype) -> None:
        y = on.conv2d(X.astype(dtype), W.astype(dtype), np.array([4, -1], dtype))
        on.same(y, np.zeros((1, 2, 2, 2)))

    def test_stride(self, on, dtype) -> None:
        y = on.conv2d(X.astype(dtype), np.ones((1, 1, 2, 2), dtype), stride=2)
        on.same(y, [[[[14, 22], [46, 54]]]])

    def test_it_is_a_correlation(self, on, dtype) -> None:
        """An image of one 1 gives the filter turned round, a filter of one 1 the image."""
        spot = np.zeros((1, 1, 3, 3), dtype)
        spot[0, 0, 1, 1] = 1
        filters = np.arange(4, dtype=dtype).reshape(1, 1, 2, 2)
        on.same(on.conv2d(spot, filters), [[[[3, 2], [1, 0]]]])
        on.same(on.conv2d(X.astype(dtype), spot, padding=1), X)

    def test_dilation(self, on, dtype) -> None:
        y = on.conv2d(X.astype(dtype), np.ones((1, 1, 2, 2), dtype), dilation=2)
        on.same(y, [[[[24, 28], [40, 44]]]])

    def test_groups(self, on, dtype) -> None:
        """Each of two channels meets only its own filters."""
        x = np.array([1, 10], dtype).reshape(1, 2, 1, 1)
        w = np.array([1, 2, 3, 4], dtype).reshape(4, 1, 1, 1)
        on.same(on.conv2d(x, w, groups=2), np.reshape([1, 2, 30, 40], (1, 4, 1, 1)))

    def test_one_dimension(self, on, dtype) -> None:
        x, w = np.array([[1, 2, 4, 8]], dtype), np.array([[[1, -1]]], dtype)
        on.same(on.conv1d(x, w), [[-1, -2, -4]])
        on.same(on.conv1d(x, w, padding=(1, 0)), [[-1, -1, -2, -4]])
        on.same(on.conv1d(x, w, padding=(0, 2), stride=2), [[-1, -4, 0]])
        dx, dw, db = on.conv1d_backward(np.array([[1, 10, 100]], dtype), x, w)
        on.same(dx, [[1, 9, 90, -100]])
        on.same(dw, [[[421, 842]]])
        on.same(db, [111])


@pytest.mark.parametrize("dtype", DTYPES)
class TestPooling:
    """The same 4x4 pixels in windows of 2x2."""

    def test_max(self, on, dtype) -> None:
        y, indices = on.max_pool2d(X.astype(dtype), 2, return_indices=True)
        on.same(y, [[[[6, 8], [14, 16]]]])
        np.testing.assert_array_equal(indices, [[[[5, 7], [13, 15]]]])

    def test_max_backward(self, on, dtype) -> None:
        dx = on.max_pool2d_backward(np.array([[[[1, 2], [3, 4]]]], dtype), X.astype(dtype), 2)
        on.same(dx, [[[[0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 4]]]])

    def test_max_backward_adds_where_windows_overlap(self, on, dtype) -> None:
        x = np.zeros((1, 1, 3, 3), dtype)
        x[0, 0, 1, 1] = 1
        dx = on.max_pool2d_backward(np.array([[[[1, 2], [3, 4]]]], dtype), x, 2, stride=1)
        on.same(dx, 10 * x)

    def test_average(self, on, dtype) -> None:
        on.same(on.avg_pool2d(X.astype(dtype), 2), [[[[3.5, 5.5], [11.5, 13.5]]]])

    def test_average_backward(self, on, dtype) -> None:
        dx = on.avg_pool2d_backward(np.array([[[[6, 8], [14, 16]]]], dtype), (1, 1, 4, 4), 2)
        assert dx.dtype == dtype
        on.same(dx, blocks([[1.5, 2], [3.5, 4]]))

    def test_average_and_padding(self, on, dtype) -> None:
        """The corner's window holds one pixel: over 4 with its padding, over 1 without."""
        ones = np.ones((1, 1, 2, 2), dtype)
        counted = on.avg_pool2d(ones, 2, padding=1)
        on.same(counted, np.full((1, 1, 2, 2), 0.25))
        on.same(on.avg_pool2d(ones, 2, padding=1, count_include_pad=False), ones)

    def test_average_and_ceil_mode(self, on, dtype) -> None:
        """The last window overhangs a row of 3 by one: the overhang counts for nobody, padding or not."""
        x = np.array([2, 4, 6], dtype).reshape(1, 1, 1, 3)
        for include in (True, False):
            y = on.avg_pool2d(x, (1, 2), ceil_mode=True, count_include_pad=include)
            on.same(y, [[[[3, 6]]]])
        on.same(on.avg_pool2d(x, (1, 2)), [[[[3]]]])

    def test_average_backward_of_the_overhang(self, on, dtype) -> None:
        dy = np.array([3, 6], dtype).reshape(1, 1, 1, 2)
        on.same(on.avg_pool2d_backward(dy, (1, 1, 1, 3), (1, 2), ceil_mode=True), [[[[1.5, 1.5, 6]]]])


# The layer, what comes out of it, and its weights with biases.
SIZES = [
    (ConvSpec(1, 3, 144, 144, 6, 3, 3), (1, 6, 142, 142), 168),
    (ConvSpec(1, 24, 60, 60, 48, 3, 3), (1, 48, 58, 58), 10416),
    (ConvSpec(1, 10, 20, 20, 20, 3, 3, stride=2), (1, 20, 9, 9), 1820),
    (ConvSpec(1, 8, 9, 9, 16, 3, 3, groups=4), (1, 16, 7, 7), 304),
    (ConvSpec(1, 3, 224, 224, 64, 7, 7, stride=2, padding=3), (1, 64, 112, 112), 9472),
    (PoolSpec("max", 1, 6, 142, 142, 2, 2), (1, 6, 71, 71), 0),
    (PoolSpec("max", 1, 64, 112, 112, 3, 3, stride=2, padding=1), (1, 64, 56, 56), 0),
    (PoolSpec("max", 1, 96, 54, 54, 3, 3, stride=2, ceil_mode=True), (1, 96, 27, 27), 0),
    (PoolSpec("avg", 1, 512, 7, 7, 7, 7), (1, 512, 1, 1), 0),
]


@pytest.mark.parametrize(("spec", "y_shape", "parameters"), SIZES, ids=lambda value: str(value)[:60])
def test_sizes(spec: ConvSpec | PoolSpec, y_shape: tuple[int, ...], parameters: int) -> None:
    assert (spec.y_shape, spec.parameters) == (y_shape, parameters)
