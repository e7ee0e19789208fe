"""NaN and infinities: they propagate as far as the formula says, and no further."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import DTYPES, Calls, integers

BAD = (np.nan, np.inf, -np.inf)

# NumPy mentions that inf - inf is NaN.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


def nonzero(shape: tuple[int, ...], dtype: type, seed: int) -> np.ndarray:
    """Integers without 0, which would turn an infinity into NaN."""
    rng = np.random.default_rng(seed)
    return (rng.integers(1, 5, shape) * rng.choice([-1, 1], shape)).astype(dtype)


@pytest.fixture
def exact(on: Calls) -> Calls:
    """Methods by transforms mix the values of a tile: only exact backends can keep one value apart."""
    if not on.exact:
        pytest.skip(f"{on.backend.name} is not exact: its method spreads a NaN over a tile")
    return on


GEOMETRY = [
    {},
    {"padding": 1},
    {"stride": 2},
    {"stride": (2, 3), "padding": ((0, 1), (2, 0))},
    {"dilation": 2},
    {"groups": 2},
    {"groups": 2, "stride": 2, "padding": 1},
]


@pytest.mark.parametrize("dtype", [np.float32])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("corner", [(0, -1), (-1, 0), (-1, -1), (3, 2)])
@pytest.mark.parametrize("geometry", GEOMETRY, ids=str)
class TestConvolution:
    """One bad value in one channel of one image."""

    x_shape = (3, 4, 6, 5)

    def layer(self, dtype, geometry) -> tuple[np.ndarray, np.ndarray]:
        return integers(self.x_shape, dtype, 1), nonzero((4, 4 // geometry.get("groups", 1), 3, 2), dtype, 2)

    def test_forward(self, exact: Calls, dtype, geometry, corner, bad) -> None:
        """Bad where a window sees the value, elsewhere what it was."""
        x, w = self.layer(dtype, geometry)
        expected = exact.conv2d(x, w, **geometry)
        # Which outputs see it: those that a 1 there, and ones for weights, would make positive.
        spot = np.zeros_like(x)
        spot[1, 2, *corner] = 1
        seen = exact.conv2d(spot, np.ones_like(w), **geometry) > 0
        x[1, 2, *corner] = bad
        y = exact.conv2d(x, w, **geometry)
        assert not np.isfinite(y[seen]).any()
        np.testing.assert_array_equal(y[~seen], expected[~seen])
        assert not seen[[0, 2]].any()

    def test_dw(self, exact: Calls, dtype, geometry, corner, bad) -> None:
        """A tap that never meets the value keeps its gradient."""
        x, w = self.layer(dtype, geometry)
        dy = nonzero(exact.conv2d(x, w, **geometry).shape, dtype, 3)
        expected = exact.conv2d_backward(dy, x, w, **geometry, need="dw").dw
        spot = np.zeros_like(x)
        spot[1, 2, *corner] = 1
        met = exact.conv2d_backward(np.ones_like(dy), spot, w, **geometry, need="dw").dw > 0
        x[1, 2, *corner] = bad
        gradients = exact.conv2d_backward(dy, x, w, **geometry)
        assert not np.isfinite(gradients.dw[met]).any()
        np.testing.assert_array_equal(gradients.dw[~met], expected[~met])
        assert (~met).any()
        assert np.isfinite(gradients.dx).all()
        assert np.isfinite(gradients.db).all()

    def test_dx(self, exact: Calls, dtype, geometry, corner, bad) -> None:
        """A bad dy reaches the inputs of its window, its filter's dw and db, and nothing else."""
        x, w = self.layer(dtype, geometry)
        dy = nonzero(exact.conv2d(x, w, **geometry).shape, dtype, 3)
        # Outputs are fewer: the nearest one to the place.
        oh, ow = (min(place, size - 1) for place, size in zip(corner, dy.shape[2:], strict=True))
        expected = exact.conv2d_backward(dy, x, w, **geometry)
        spot = np.zeros_like(dy)
        spot[1, 2, oh, ow] = 1
        reached = exact.conv2d_backward(spot, x, np.ones_like(w), **geometry, need="dx").dx > 0
        dy[1, 2, oh, ow] = bad
        gradients = exact.conv2d_backward(dy, x, w, **geometry)
        assert not np.isfinite(gradients.dx[reached]).any()
        np.testing.assert_array_equal(gradients.dx[~reached], expected.dx[~reached])
        others = np.arange(4) != 2
        np.testing.assert_array_equal(gradients.dw[others], expected.dw[others])
        np.testing.assert_array_equal(gradients.db[others], expected.db[others])
        assert not np.isfinite(gradients.db[2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", BAD)
def test_dw_of_one_image(exact: Calls, dtype, bad) -> None:
    """One image of one channel needs no copy: what lies behind the end of a row is the next one."""
    x = integers((1, 1, 4, 5), dtype)
    dy, w = nonzero((1, 2, 3, 3), dtype, 1), np.zeros((2, 1, 2, 3), dtype)
    expected = exact.conv2d_backward(dy, x, w, need="dw").dw
    x[0, 0, 1, 0] = bad  # only the first column of taps sees it
    dw = exact.conv2d_backward(dy, x, w, need="dw").dw
    assert not np.isfinite(dw[..., 0]).any()
    np.testing.assert_array_equal(dw[..., 1:], expected[..., 1:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", BAD)
def test_a_filter_keeps_to_itself(exact: Calls, dtype, bad) -> None:
    x, w = nonzero((2, 3, 6, 5), dtype, 1), nonzero((5, 3, 2, 3), dtype, 2)
    expected = exact.conv2d(x, w)
    w[3, 1, 0, 2] = bad
    y = exact.conv2d(x, w)
    others = np.arange(5) != 3
    np.testing.assert_array_equal(y[:, others], expected[:, others])
    assert not np.isfinite(y[:, 3]).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_bias_may_be_bad(on: Calls, dtype) -> None:
    x, w = integers((1, 2, 4, 4), dtype), np.zeros((3, 2, 2, 2), dtype)
    y = on.conv2d(x, w, np.array([np.nan, 1, -np.inf], dtype))
    on.same(y, np.broadcast_to(np.reshape([np.nan, 1, -np.inf], (1, 3, 1, 1)), (1, 3, 3, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("bad", BAD)
def test_average_keeps_a_value_in_its_windows(on: Calls, dtype, bad, include) -> None:
    flags = {"stride": (2, 1), "padding": 1, "count_include_pad": include}
    x = 36 * integers((2, 2, 6, 5), dtype)
    expected = on.avg_pool2d(x, 3, **flags)
    x[1, 0, 0, -1] = bad
    y = on.avg_pool2d(x, 3, **flags)
    seen = np.zeros(y.shape, bool)
    seen[1, 0, 0, -2:] = True  # rows -1..1; columns 2..4 and 3..5
    assert not np.isfinite(y[seen]).any()
    np.testing.assert_array_equal(y[~seen], expected[~seen])
