"""Max pooling where it hurts: ties, padding that never wins, NaN, and indices that are given."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import DTYPES, Calls, integers

pytestmark = pytest.mark.parametrize("dtype", DTYPES)


def pooled(on: Calls, x: np.ndarray, *args, **kwargs) -> tuple[np.ndarray, np.ndarray]:
    """Value and index, after checking that the value alone is the same."""
    y, indices = on.max_pool2d(x, *args, **kwargs, return_indices=True)
    np.testing.assert_array_equal(on.max_pool2d(x, *args, **kwargs), y)
    assert (y.dtype, indices.dtype) == (x.dtype, np.int64)
    return y, indices


def image(rows: list[list[float]], dtype: type) -> np.ndarray:
    return np.array(rows, dtype)[None, None]


def test_the_first_of_equals_wins(on: Calls, dtype) -> None:
    """First in row-major order: the row counts before the column."""
    y, indices = pooled(on, image([[0, 7, 1, 1], [7, 7, 1, 1]], dtype), 2)
    np.testing.assert_array_equal(y, [[[[7, 1]]]])
    np.testing.assert_array_equal(indices, [[[[1, 2]]]])


def test_the_two_zeros_are_equal(on: Calls, dtype) -> None:
    _, indices = pooled(on, image([[-0.0, 0.0], [0.0, -0.0]], dtype), 2)
    assert indices.item() == 0


def test_the_gradient_of_a_tie_goes_to_the_first_alone(on: Calls, dtype) -> None:
    x = np.ones((1, 1, 4, 4), dtype)
    dx = on.max_pool2d_backward(image([[1, 2], [3, 4]], dtype), x, 2)
    np.testing.assert_array_equal(dx, image([[1, 0, 2, 0], [0] * 4, [3, 0, 4, 0], [0] * 4], dtype))


PADDED = [
    {"kernel_size": 3, "stride": 1, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": ((2, 0), (0, 2))},
    {"kernel_size": (2, 3), "stride": 3, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 2, "padding": 1, "dilation": 2},
    {"kernel_size": 3, "stride": 2, "padding": "same"},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
]


@pytest.mark.parametrize("window", PADDED, ids=str)
@pytest.mark.parametrize("fill", [-1.0, -1e30, -np.inf, "lowest"])
def test_padding_never_wins(on: Calls, dtype, window, fill) -> None:
    """Neither over negative values nor over -inf itself: each index is one of the window's own inputs."""
    x = np.full((2, 2, 6, 5), np.finfo(dtype).min if fill == "lowest" else fill, dtype)
    kernel_size, rest = window["kernel_size"], {**window}
    del rest["kernel_size"]
    y, indices = pooled(on, x, kernel_size, **rest)
    np.testing.assert_array_equal(y, np.full(y.shape, x.flat[0]))
    # All inputs are equal: the first wins, the same as if they were larger than any padding.
    np.testing.assert_array_equal(indices, pooled(on, np.ones_like(x), kernel_size, **rest)[1])
    dx = on.max_pool2d_backward(np.ones_like(y), x, kernel_size, **rest)
    assert dx.sum() == y.size


def test_nan_wins_and_the_last_one_is_the_index(on: Calls, dtype) -> None:
    nan = np.nan
    x = image([[nan, 9, 1, nan], [np.inf, 2, nan, 3]], dtype)
    y, indices = pooled(on, x, 2)
    np.testing.assert_array_equal(y, [[[[nan, nan]]]])
    np.testing.assert_array_equal(indices, [[[[0, 6]]]])
    np.testing.assert_array_equal(
        on.max_pool2d_backward(image([[5, 6]], dtype), x, 2), image([[5, 0, 0, 0], [0, 0, 6, 0]], dtype)
    )


def test_nan_stays_in_its_windows(on: Calls, dtype) -> None:
    x = integers((2, 2, 6, 6), dtype)
    expected, positions = pooled(on, x, 3, stride=1, padding=1)
    x[1, 0, 0, 5] = np.nan
    y, indices = pooled(on, x, 3, stride=1, padding=1)
    seen = np.zeros(y.shape, bool)
    seen[1, 0, :2, 4:] = True
    assert np.isnan(y[seen]).all()
    assert (indices[seen] == 5).all()
    np.testing.assert_array_equal(y[~seen], expected[~seen])
    np.testing.assert_array_equal(indices[~seen], positions[~seen])


def test_infinity_wins_over_all_numbers(on: Calls, dtype) -> None:
    x = image([[1, np.finfo(dtype).max], [np.inf, np.inf]], dtype)
    y, indices = pooled(on, x, 2)
    assert (y.item(), indices.item()) == (np.inf, 2)


def test_given_indices_are_used(on: Calls, dtype) -> None:
    """The gradient follows the indices of the forward pass, not x, which may have changed since."""
    x = integers((2, 3, 6, 6), dtype)
    window = {"stride": 2, "padding": 1}
    y, indices = pooled(on, x, 3, **window)
    dy = integers(y.shape, dtype, 1)
    expected = on.max_pool2d_backward(dy, x, 3, **window)
    for given in (indices, indices.astype(np.int32), indices.astype(np.uint64), np.asfortranarray(indices)):
        before = given.copy()
        dx = on.max_pool2d_backward(dy, -x, 3, **window, indices=given)
        np.testing.assert_array_equal(dx, expected)
        np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("place", [0, 3, 9, 14, 35])
def test_indices_from_outside_the_window(on: Calls, dtype, place) -> None:
    """Any position in the plane is taken at its word, as PyTorch does: dy is added there, by all alike."""
    x = np.zeros((1, 2, 6, 6), dtype)
    dy = integers((1, 2, 2, 2), dtype, 1)
    dx = on.max_pool2d_backward(dy, x, 3, indices=np.full(dy.shape, place))
    expected = np.zeros((2, 36))
    expected[:, place] = dy.sum(axis=(0, 2, 3))
    np.testing.assert_array_equal(dx.reshape(2, 36), expected)
