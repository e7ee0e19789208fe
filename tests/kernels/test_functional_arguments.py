"""What the public functions take: forms of padding, batches, dtypes, subsets of gradients, "auto"."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import DTYPES, Calls, integers

import kernels
from kernels import ConvSpec, PoolSpec

X = integers((2, 4, 7, 6), np.float32)
W = integers((6, 2, 3, 2), np.float32, 1)
B = integers((6,), np.float32, 2)


def assert_equal(results, expected) -> None:
    for result, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"stride": 2}, {"stride": (2, 2)}),
        ({"stride": [2, 1]}, {"stride": (2, 1)}),
        ({"stride": np.int64(2)}, {"stride": 2}),
        ({"stride": (np.int8(2), np.uint16(3))}, {"stride": (2, 3)}),
        ({"stride": tuple(np.array([2, 3]))}, {"stride": (2, 3)}),
        ({"dilation": [1, 2]}, {"dilation": (1, 2)}),
        ({"dilation": np.int32(2)}, {"dilation": (2, 2)}),
        ({"padding": 1}, {"padding": (1, 1)}),
        ({"padding": (1, 2)}, {"padding": ((1, 1), (2, 2))}),
        ({"padding": [[1, 0], [np.int64(2), 1]]}, {"padding": ((1, 0), (2, 1))}),
        ({"padding": "valid"}, {"padding": 0}),
        ({"padding": "same"}, {"padding": ((1, 1), (0, 1))}),
        ({"padding": "same", "stride": (2, 3)}, {"padding": ((1, 1), (0, 0)), "stride": (2, 3)}),
        ({"padding": "same", "dilation": (1, 3)}, {"padding": ((1, 1), (1, 2)), "dilation": (1, 3)}),
        ({}, {"stride": 1, "padding": 0, "dilation": 1}),
    ],
    ids=str,
)
def test_equivalent_forms(one, other) -> None:
    y = kernels.conv2d(X, W, B, **one, groups=2)
    np.testing.assert_array_equal(y, kernels.conv2d(X, W, B, **other, groups=np.int64(2)))
    assert_equal(*(kernels.conv2d_backward(y, X, W, **form, groups=2) for form in (one, other)))


def test_zeros_around_x_are_padding(on: Calls) -> None:
    """The four sides are top, bottom, left, right, in that order."""
    sides = ((1, 2), (3, 0))
    wide = np.pad(X, ((0, 0), (0, 0), *sides))
    on.same(on.conv2d(X, W, groups=2, padding=sides), on.conv2d(wide, W, groups=2))
    on.same(on.avg_pool2d(12 * X, (3, 4), padding=((1, 2), (3, 0))), on.avg_pool2d(12 * wide, (3, 4)))


def test_conv1d_is_conv2d_of_height_1(on: Calls) -> None:
    x, w, b = X[:, :, 0], W[:, :, 0], B
    forms = [
        ({}, {}),
        ({"stride": 2, "padding": 1}, {"stride": (1, 2), "padding": (0, 1)}),
        (
            {"stride": [2], "padding": [1], "dilation": (2,)},
            {"stride": (1, 2), "padding": (0, 1), "dilation": (1, 2)},
        ),
        ({"padding": (2, 0)}, {"padding": ((0, 0), (2, 0))}),
        ({"padding": "same", "dilation": 3}, {"padding": ((0, 0), (1, 2)), "dilation": (1, 3)}),
        ({"padding": "valid"}, {}),
    ]
    for along, flat in forms:
        y = on.conv1d(x, w, b, **along, groups=2)
        on.same(y, on.conv2d(x[:, :, None], w[:, :, None], b, **flat, groups=2)[:, :, 0])
        ours = on.conv1d_backward(y, x, w, **along, groups=2)
        wide = on.conv2d_backward(y[:, :, None], x[:, :, None], w[:, :, None], **flat, groups=2)
        on.same(ours.dx, wide.dx[:, :, 0])
        on.same(ours.dw, wide.dw[:, :, 0])
        on.same(ours.db, wide.db)


def test_unbatched(on: Calls) -> None:
    """One image gives what a batch of one gives, without the batch."""
    x, dy = X[0], integers((6, 5, 5), np.float32, 3)
    on.same(on.conv2d(x, W, B, groups=2), on.conv2d(x[None], W, B, groups=2)[0])
    ours, batched = (on.conv2d_backward(*arrays, W, groups=2) for arrays in ((dy, x), (dy[None], x[None])))
    assert ours.dx.shape == x.shape
    on.same(ours.dx, batched.dx[0])
    on.same(ours.dw, batched.dw)
    on.same(ours.db, batched.db)
    y, indices = on.max_pool2d(x, 2, return_indices=True)
    ys, positions = on.max_pool2d(x[None], 2, return_indices=True)
    on.same(y, ys[0])
    np.testing.assert_array_equal(indices, positions[0])
    for given in (None, indices):
        on.same(on.max_pool2d_backward(y, x, 2, indices=given), on.max_pool2d_backward(ys, x[None], 2)[0])
    averages = on.avg_pool2d(12 * x, (3, 2))
    on.same(averages, on.avg_pool2d(12 * x[None], (3, 2))[0])
    dx = on.avg_pool2d_backward(averages, x.shape, (3, 2))
    on.same(dx, on.avg_pool2d_backward(averages[None], (1, *x.shape), (3, 2))[0])


def test_unbatched_signals(on: Calls) -> None:
    x, w = X[0, :, 0], W[:, :, 0]
    y = on.conv1d(x, w, groups=2)
    on.same(y, on.conv1d(x[None], w, groups=2)[0])
    ours = on.conv1d_backward(y, x, w, groups=2)
    assert (ours.dx.shape, ours.dw.shape, ours.db.shape) == (x.shape, w.shape, (6,))
    on.same(ours.dx, on.conv1d_backward(y[None], x[None], w, groups=2).dx[0])


@pytest.mark.parametrize("dtype", DTYPES)
class TestEmptyBatch:
    """No image in, none out; its share of dw and db is 0."""

    def test_conv2d(self, on: Calls, dtype) -> None:
        x, w = np.zeros((0, 4, 7, 6), dtype), W.astype(dtype)
        y = on.conv2d(x, w, B.astype(dtype), groups=2)
        assert (y.shape, y.dtype) == ((0, 6, 5, 5), dtype)
        dx, dw, db = on.conv2d_backward(y, x, w, groups=2)
        assert (dx.shape, dx.dtype) == (x.shape, dtype)
        np.testing.assert_array_equal(dw, np.zeros(w.shape, dtype), strict=True)
        np.testing.assert_array_equal(db, np.zeros(6, dtype), strict=True)

    def test_conv1d(self, on: Calls, dtype) -> None:
        x, w = np.zeros((0, 4, 6), dtype), W[:, :, 0].astype(dtype)
        y = on.conv1d(x, w, groups=2)
        assert y.shape == (0, 6, 5)
        dx, dw, db = on.conv1d_backward(y, x, w, groups=2)
        assert dx.shape == x.shape
        np.testing.assert_array_equal(dw, np.zeros(w.shape, dtype), strict=True)
        np.testing.assert_array_equal(db, np.zeros(6, dtype), strict=True)

    def test_pools(self, on: Calls, dtype) -> None:
        x = np.zeros((0, 4, 7, 6), dtype)
        y, indices = on.max_pool2d(x, 2, return_indices=True)
        assert (y.shape, indices.shape, indices.dtype) == ((0, 4, 3, 3), (0, 4, 3, 3), np.int64)
        for given in (None, indices):
            dx = on.max_pool2d_backward(y, x, 2, indices=given)
            assert (dx.shape, dx.dtype) == (x.shape, dtype)
        y = on.avg_pool2d(x, 2)
        assert (y.shape, y.dtype) == ((0, 4, 3, 3), dtype)
        dx = on.avg_pool2d_backward(y, x.shape, 2)
        assert (dx.shape, dx.dtype) == (x.shape, dtype)

    def test_out(self, on: Calls, dtype) -> None:
        out = np.empty((0, 4, 3, 3), dtype)
        assert on.max_pool2d(np.zeros((0, 4, 7, 6), dtype), 2, out=out) is out


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_has_the_dtype_of_x(on: Calls, dtype) -> None:
    """Whatever the other arrays are: they are converted to it."""
    other = np.float64 if dtype == np.float32 else np.float32
    x, w, b = X.astype(dtype), W.astype(other), B.astype(other)
    y = on.conv2d(x, w, b, groups=2)
    assert y.dtype == dtype
    on.same(y, on.conv2d(x, W.astype(dtype), B.astype(dtype), groups=2))
    gradients = on.conv2d_backward(y.astype(other), x, w, groups=2)
    assert {gradient.dtype for gradient in gradients} == {np.dtype(dtype)}
    pooled = on.max_pool2d(x, 2)
    assert on.max_pool2d_backward(pooled.astype(other), x, 2).dtype == dtype
    assert on.avg_pool2d_backward(pooled.astype(other), x.shape, 2).dtype == other, "there is no x: dy's"


def test_need(on: Calls) -> None:
    """Any subset, in any form; what is not needed is None."""
    dy = integers((2, 6, 5, 5), np.float32, 3)
    everything = on.conv2d_backward(dy, X, W, groups=2)._asdict()
    assert list(everything) == ["dx", "dw", "db"]
    subsets = [
        "dx",
        "dw",
        "db",
        ("dx",),
        ["dw", "db"],
        {"db"},
        ("db", "dx"),
        ("dw", "dw"),
        iter(["dx", "dw"]),
        (),
    ]
    for need in subsets:
        wanted = {need} if isinstance(need, str) else set(need := tuple(need))
        some = on.conv2d_backward(dy, X, W, groups=2, need=need)._asdict()
        assert {name for name, value in some.items() if value is not None} == wanted
        for name in wanted:
            on.same(some[name], everything[name])
    signals = on.conv1d_backward(dy[:, :, 0], X[:, :, 0], W[:, :, 0], groups=2, need="dx")
    assert signals.dx.shape == X[:, :, 0].shape
    assert signals[1:] == (None, None)


def test_stride_of_a_pool_is_its_window(on: Calls) -> None:
    on.same(on.max_pool2d(X, (3, 2)), on.max_pool2d(X, (3, 2), stride=(3, 2)))
    on.same(on.avg_pool2d(12 * X, (3, 2)), on.avg_pool2d(12 * X, (3, 2), stride=(3, 2)))
    dy = 12 * on.max_pool2d(X, (3, 2))
    on.same(on.max_pool2d_backward(dy, X, (3, 2)), on.max_pool2d_backward(dy, X, (3, 2), stride=(3, 2)))
    on.same(
        on.avg_pool2d_backward(dy, X.shape, (3, 2)),
        on.avg_pool2d_backward(dy, X.shape, (3, 2), stride=(3, 2)),
    )


@pytest.mark.parametrize("x_shape", [[2, 4, 7, 6], tuple(np.array([2, 4, 7, 6]))])
def test_forms_of_x_shape(x_shape) -> None:
    dy = integers((2, 4, 3, 3), np.float32)
    expected = kernels.avg_pool2d_backward(dy, (2, 4, 7, 6), 2)
    np.testing.assert_array_equal(kernels.avg_pool2d_backward(dy, x_shape, 2), expected)


# Floats, on which backends differ in the last bits: "auto" is the chosen one, not just one like it.
NOISE = np.random.default_rng(5).standard_normal((2, 4, 7, 6))
FILTERS = np.random.default_rng(6).standard_normal((6, 2, 3, 2))


@pytest.mark.parametrize("dtype", DTYPES)
class TestAuto:
    """The default, "auto", is what `choose` says."""

    def test_convolution(self, dtype) -> None:
        x, w = NOISE.astype(dtype), FILTERS.astype(dtype)
        spec = ConvSpec(2, 4, 7, 6, 6, 3, 2, groups=2)
        names = {op: kernels.choose(spec, op, dtype) for op in ("forward", "dx", "dw")}
        assert set(names.values()) <= set(kernels.available_backends())
        y = kernels.conv2d(x, w, groups=2)
        np.testing.assert_array_equal(y, kernels.conv2d(x, w, groups=2, backend="auto"))
        np.testing.assert_array_equal(y, kernels.conv2d(x, w, groups=2, backend=names["forward"]))
        dx, dw, db = kernels.conv2d_backward(y, x, w, groups=2)
        by_name = {op: kernels.conv2d_backward(y, x, w, groups=2, backend=names[op]) for op in ("dx", "dw")}
        np.testing.assert_array_equal(dx, by_name["dx"].dx)
        np.testing.assert_array_equal(dw, by_name["dw"].dw)
        np.testing.assert_array_equal(db, by_name["dw"].db)

    def test_pooling(self, dtype) -> None:
        x = NOISE.astype(dtype)
        spec = PoolSpec("avg", 2, 4, 7, 6, 3, 2)
        names = {op: kernels.choose(spec, op, dtype) for op in ("forward", "dx")}
        y = kernels.avg_pool2d(x, (3, 2))
        np.testing.assert_array_equal(y, kernels.avg_pool2d(x, (3, 2), backend=names["forward"]))
        np.testing.assert_array_equal(
            kernels.avg_pool2d_backward(y, x.shape, (3, 2)),
            kernels.avg_pool2d_backward(y, x.shape, (3, 2), backend=names["dx"]),
        )


def test_auto_takes_another_where_the_first_does_not_support(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = ConvSpec(2, 4, 7, 6, 6, 3, 2, groups=2)
    first = kernels.choose(spec, "forward", np.float32)
    module = kernels.get_backend(first).operations
    monkeypatch.setattr(module, "supports", lambda spec, op, dtype: "not today" if op == "forward" else None)
    second = kernels.choose(spec, "forward", np.float32)
    assert second != first
    assert kernels.choose(spec, "dx", np.float32) == first
    np.testing.assert_array_equal(
        kernels.conv2d(X, W, groups=2), kernels.conv2d(X, W, groups=2, backend=second)
    )
    message = rf"^backend '{first}' does not support forward of g2mb2ic4.*: not today$"
    with pytest.raises(ValueError, match=message):
        kernels.conv2d(X, W, groups=2, backend=first)
