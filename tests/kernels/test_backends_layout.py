"""Memory: any layout of the inputs gives the same result, none is modified, `out` receives the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from kernel_cases import CONVS, POOLS, Calls, cases, integers

from kernels import Spec
from kernels.problem import Problem


def every_second(array: np.ndarray) -> np.ndarray:
    wide = np.full([2 * size for size in array.shape], 99, array.dtype)
    wide[tuple(slice(1, None, 2) for _ in array.shape)] = array
    return wide[tuple(slice(1, None, 2) for _ in array.shape)]


def cut_out(array: np.ndarray) -> np.ndarray:
    wide = np.full([size + 3 for size in array.shape], 99, array.dtype)
    inside = tuple(slice(1, 1 + size) for size in array.shape)
    wide[inside] = array
    return wide[inside]


def channels_last(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(
        np.ascontiguousarray(np.moveaxis(array, min(1, array.ndim - 1), -1)), -1, min(1, array.ndim - 1)
    )


def backwards(array: np.ndarray) -> np.ndarray:
    reverse = tuple(slice(None, None, -1) for _ in array.shape)
    return array[reverse].copy()[reverse]


def unaligned(array: np.ndarray) -> np.ndarray:
    buffer = np.zeros(array.nbytes + 1, np.uint8)
    shifted = buffer[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    assert not shifted.flags.aligned
    return shifted


def read_only(array: np.ndarray) -> np.ndarray:
    frozen = array.copy()
    frozen.flags.writeable = False
    return frozen


LAYOUTS: list[Callable[[np.ndarray], np.ndarray]] = [
    every_second,
    cut_out,
    np.asfortranarray,
    channels_last,
    backwards,
    unaligned,
    read_only,
]
LAYERS = {
    **{name: CONVS[name] for name in ("dense", "groups", "pointwise", "same, stride", "1-D", "1-D groups")},
    **{name: POOLS[name] for name in ("max padding", "avg 3x3 s1, exclude")},
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
@pytest.mark.parametrize(("backend", "spec", "op", "dtype"), cases(LAYERS, (np.float32,)))
def test_layouts(backend: str, spec: Spec, op: Any, dtype: type, layout) -> None:
    """Equal to the last bit, on floats: the arrays that a backend gets are the same."""
    problem = Problem.random(spec, op, dtype)
    arrays = {name: layout(array) for name, array in problem.arrays.items()}
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, problem.arrays[name])
    before = {name: array.copy() for name, array in arrays.items()}
    results = Problem(spec, op, arrays).run(backend)
    for result, expected in zip(results, problem.run(backend), strict=True):
        np.testing.assert_array_equal(result, expected)
        assert result.flags.c_contiguous
        assert result.flags.writeable
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_transposed_images(on: Calls) -> None:
    """x.T of an (H, W) image is another image: strides are followed, not just memory."""
    x, w = integers((2, 3, 5, 7), np.float32), integers((4, 3, 2, 3), np.float32, 1)
    turned = x.transpose(0, 1, 3, 2)
    on.same(on.conv2d(turned, w), on.conv2d(turned.copy(), w))
    on.same(on.max_pool2d(turned, 2), on.max_pool2d(x, 2).transpose(0, 1, 3, 2))
    on.same(on.avg_pool2d(turned, 2), on.avg_pool2d(x, 2).transpose(0, 1, 3, 2))


def test_broadcast_views(on: Calls) -> None:
    """One image seen as three, one filter as four, one gradient everywhere: strides of 0."""
    x = np.broadcast_to(integers((1, 2, 5, 4), np.float32), (3, 2, 5, 4))
    w = np.broadcast_to(integers((1, 1, 3, 2), np.float32, 1), (4, 2, 3, 2))
    dy = np.broadcast_to(np.float32(2), (3, 4, 3, 3))
    on.same(on.conv2d(x, w), on.conv2d(x.copy(), w.copy()))
    for result, expected in zip(
        on.conv2d_backward(dy, x, w), on.conv2d_backward(dy.copy(), x.copy(), w.copy()), strict=True
    ):
        on.same(result, expected)
    on.same(on.max_pool2d(x, 2), on.max_pool2d(x.copy(), 2))
    on.same(on.avg_pool2d_backward(dy, (3, 4, 6, 6), 2), on.avg_pool2d_backward(dy.copy(), (3, 4, 6, 6), 2))


def calls(on: Calls) -> Mapping[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]]:
    """Each function that takes `out`, as (call, arrays)."""
    f = np.float32
    x, w, b = integers((2, 4, 6, 5), f), integers((3, 2, 3, 2), f, 1)[:2], integers((2,), f, 2)
    signal, filters = integers((2, 3, 9), f), integers((4, 3, 2), f, 1)
    return {
        "conv2d": (lambda x, w, b, **out: on.conv2d(x, w, b, groups=2, padding=1, **out), (x, w, b)),
        "conv1d": (lambda x, w, **out: on.conv1d(x, w, stride=2, **out), (signal, filters)),
        "max_pool2d": (lambda x, **out: on.max_pool2d(x, 2, padding=1, **out), (x,)),
        "avg_pool2d": (lambda x, **out: on.avg_pool2d(12 * x, (2, 3), **out), (x,)),
        "unbatched": (lambda x, **out: on.max_pool2d(x, 2, **out), (x[0],)),
    }


FUNCTIONS = ["conv2d", "conv1d", "max_pool2d", "avg_pool2d", "unbatched"]


@pytest.mark.parametrize("function", FUNCTIONS)
class TestOut:
    """The result goes to `out`, and `out` comes back."""

    @pytest.mark.parametrize("layout", [np.ascontiguousarray, every_second, np.asfortranarray, unaligned])
    def test_any_layout(self, on: Calls, function, layout) -> None:
        call, arrays = calls(on)[function]
        expected = call(*arrays)
        out = layout(np.full_like(expected, np.nan))
        assert call(*arrays, out=out) is out
        np.testing.assert_array_equal(out, expected)

    def test_nothing_around_it_is_touched(self, on: Calls, function) -> None:
        call, arrays = calls(on)[function]
        expected = call(*arrays)
        wide = np.full([size + 2 for size in expected.shape], 99, expected.dtype)
        inside = tuple(slice(1, -1) for _ in expected.shape)
        call(*arrays, out=wide[inside])
        np.testing.assert_array_equal(wide[inside], expected)
        wide[inside] = 99
        assert (wide == 99).all()

    def test_overlapping_x(self, on: Calls, function) -> None:
        """As if x had been copied first."""
        call, arrays = calls(on)[function]
        expected = call(*arrays)
        x = arrays[0]
        memory = np.zeros(x.size + expected.size, x.dtype)
        for first in (0, 1, x.size // 2):
            shared = memory[: x.size].reshape(x.shape)
            shared[...] = x
            out = memory[first : first + expected.size].reshape(expected.shape)
            assert np.shares_memory(out, shared)
            assert call(shared, *arrays[1:], out=out) is out
            np.testing.assert_array_equal(out, expected)

    def test_wrong_out(self, on: Calls, function) -> None:
        call, arrays = calls(on)[function]
        expected = call(*arrays)
        with pytest.raises(ValueError, match=r"^out is \(.*\) of float64; expected \(.*\) of float32$"):
            call(*arrays, out=expected.astype(np.float64))
        with pytest.raises(ValueError, match=r"^out is \(.*\) of float32; expected \(.*\) of float32$"):
            call(*arrays, out=expected[..., :-1])
        with pytest.raises(ValueError, match=r"^out is read-only; expected an array that can be written to$"):
            call(*arrays, out=read_only(expected))
        with pytest.raises(TypeError, match=r"^out is list; expected a NumPy array \(.*\) of float32$"):
            call(*arrays, out=expected.tolist())


def test_out_over_w_and_b(on: Calls) -> None:
    """A convolution may be written over its own filters, or its own bias."""
    x, w, b = integers((1, 3, 2, 1)), integers((3, 3, 1, 1), seed=1), integers((3,), seed=2)
    expected = on.conv2d(x, w, b)
    memory = w.copy().ravel()
    out = memory[:6].reshape(expected.shape)
    on.conv2d(x, memory.reshape(w.shape), b, out=out)
    np.testing.assert_array_equal(out, expected)
    memory = np.concatenate([np.zeros(2), b, np.zeros(1)])
    out = memory.reshape(expected.shape)
    on.conv2d(x, w, memory[2:5], out=out)
    np.testing.assert_array_equal(out, expected)


def test_max_pool_out_with_indices(on: Calls) -> None:
    x = integers((2, 2, 6, 4), np.float32)
    y, indices = on.max_pool2d(x, 2, return_indices=True)
    out = np.empty_like(y)
    again, positions = on.max_pool2d(x, 2, return_indices=True, out=out)
    assert again is out
    np.testing.assert_array_equal(out, y)
    np.testing.assert_array_equal(positions, indices)


def test_results_are_new_arrays(on: Calls) -> None:
    """Even where nothing is left to do: a 1x1 pool, a 1x1 filter of 1."""
    x = integers((1, 1, 3, 4), np.float32)
    ones = np.ones((1, 1, 1, 1), np.float32)
    gradients = on.conv2d_backward(x, x, ones)
    results = [
        on.conv2d(x, ones),
        on.max_pool2d(x, 1),
        on.avg_pool2d(x, 1),
        on.max_pool2d_backward(x, x, 1),
        on.avg_pool2d_backward(x, x.shape, 1),
        gradients.dx,
    ]
    for result in results:
        np.testing.assert_array_equal(result, x)
        assert not np.shares_memory(result, x)
        assert result.flags.writeable
    assert not np.shares_memory(gradients.dw, ones)
