"""What is wrong, what it is, what was expected: the words of every error, in one line.

Wrong arguments are refused before any backend sees them, hence no backend here. Each call is looked up by
name so that the table reads like the calls that users write.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import ConvSpec, PoolSpec

F = np.float32
x = np.ones((2, 4, 6, 6), F)
w = np.ones((4, 4, 3, 3), F)
b = np.ones(4, F)
dy = np.ones((2, 4, 4, 4), F)
signal = np.ones((2, 4, 9), F)
filters = np.ones((5, 4, 3), F)
pooled = np.ones((2, 4, 3, 3), F)


def conv2d(**changes: Any) -> Any:
    return kernels.conv2d(**{"x": x, "w": w, **changes})


def conv2d_backward(**changes: Any) -> Any:
    return kernels.conv2d_backward(**{"dy": dy, "x": x, "w": w, **changes})


def conv1d(**changes: Any) -> Any:
    return kernels.conv1d(**{"x": signal, "w": filters, **changes})


def conv1d_backward(**changes: Any) -> Any:
    return kernels.conv1d_backward(**{"dy": np.ones((2, 5, 7), F), "x": signal, "w": filters, **changes})


def max_pool2d(**changes: Any) -> Any:
    return kernels.max_pool2d(**{"x": x, "kernel_size": 2, **changes})


def max_pool2d_backward(**changes: Any) -> Any:
    return kernels.max_pool2d_backward(**{"dy": pooled, "x": x, "kernel_size": 2, **changes})


def avg_pool2d(**changes: Any) -> Any:
    return kernels.avg_pool2d(**{"x": x, "kernel_size": 2, **changes})


def avg_pool2d_backward(**changes: Any) -> Any:
    return kernels.avg_pool2d_backward(**{"dy": pooled, "x_shape": x.shape, "kernel_size": 2, **changes})


CHANNELS = [
    (
        lambda: kernels.conv2d(np.ones((8, 3, 32, 32), F), np.ones((16, 4, 3, 3), F)),
        "w has 4 input channels but x has 3 (x: (8, 3, 32, 32), w: (16, 4, 3, 3), groups=1)",
    ),
    (
        lambda: conv2d(w=w[:, :1], groups=2),
        "w has 1 input channels but x has 4 in 2 groups of 2 (x: (2, 4, 6, 6), w: (4, 1, 3, 3), groups=2)",
    ),
    (
        lambda: conv2d_backward(w=w[:, :3]),
        "w has 3 input channels but x has 4 (x: (2, 4, 6, 6), w: (4, 3, 3, 3), groups=1)",
    ),
    (lambda: conv1d(w=filters[:, :3]), "w has 3 input channels but x has 4 ("),
    (lambda: conv2d(groups=3), "groups is 3 and does not divide the 4 channels of x; expected a divisor"),
    (
        lambda: conv2d(w=w[:3, :2], groups=2),
        "groups is 2 and does not divide the 3 filters of w; expected a divisor",
    ),
    (lambda: conv2d(groups=0), "groups is 0; expected a positive int"),
    (lambda: conv2d(groups=-1), "groups is -1; expected a positive int"),
    (lambda: conv2d(b=b[:3]), "b has shape (3,) but w has 4 filters; expected (4,)"),
    (lambda: conv2d(b=b[:, None]), "b has shape (4, 1); expected (K,)"),
    (lambda: conv1d(b=b), "b has shape (4,) but w has 5 filters; expected (5,)"),
]
SHAPES = [
    (lambda: conv2d(x=x[0, 0]), "x has shape (6, 6); expected (N, C, H, W) or (C, H, W)"),
    (lambda: conv2d(x=x[None]), "x has shape (1, 2, 4, 6, 6); expected (N, C, H, W) or (C, H, W)"),
    (lambda: conv2d(w=w[0]), "w has shape (4, 3, 3); expected (K, C/groups, R, S)"),
    (lambda: conv1d(x=x), "x has shape (2, 4, 6, 6); expected (N, C, L) or (C, L)"),
    (lambda: conv1d(x=signal[0, 0]), "x has shape (9,); expected (N, C, L) or (C, L)"),
    (lambda: conv1d(w=w), "w has shape (4, 4, 3, 3); expected (K, C/groups, R)"),
    (lambda: max_pool2d(x=x[0, 0]), "x has shape (6, 6); expected (N, C, H, W) or (C, H, W)"),
    (lambda: avg_pool2d(x=x[None]), "x has shape (1, 2, 4, 6, 6); expected (N, C, H, W) or (C, H, W)"),
    (lambda: conv2d_backward(dy=dy[:1]), "dy has shape (1, 4, 4, 4); expected the result's (2, 4, 4, 4)"),
    (lambda: conv2d_backward(stride=2), "dy has shape (2, 4, 4, 4); expected the result's (2, 4, 2, 2)"),
    (lambda: conv1d_backward(padding=1), "dy has shape (2, 5, 7); expected the result's (2, 5, 9)"),
    (lambda: max_pool2d_backward(dy=dy), "dy has shape (2, 4, 4, 4); expected the result's (2, 4, 3, 3)"),
    (lambda: avg_pool2d_backward(dy=dy), "dy has shape (2, 4, 4, 4); expected the result's (2, 4, 3, 3)"),
    (lambda: avg_pool2d_backward(x_shape=(6, 6)), "x_shape is (6, 6); expected (N, C, H, W) or (C, H, W)"),
    (
        lambda: avg_pool2d_backward(x_shape=(2, 4, 6.0, 6)),
        "x_shape is (2, 4, 6.0, 6); expected (N, C, H, W) or (C, H, W)",
    ),
    (
        lambda: max_pool2d_backward(indices=np.zeros((2, 4, 3, 2), int)),
        "indices has shape (2, 4, 3, 2); expected the result's (2, 4, 3, 3)",
    ),
    (
        lambda: max_pool2d_backward(indices=np.full((2, 4, 3, 3), 36)),
        "indices lie in 36..36; expected positions in the 6x6 plane, 0..35",
    ),
    (
        lambda: max_pool2d_backward(indices=np.arange(-1, 71).reshape(2, 4, 3, 3)),
        "indices lie in -1..70; expected positions in the 6x6 plane, 0..35",
    ),
]
LARGER = (
    "kernel {} (dilation counted) is larger than the padded input {}; "
    "expected a smaller kernel or more padding"
)
GEOMETRY = [
    (lambda: conv2d(x=x[:, :, :2]), LARGER.format("3x3", "2x6")),
    (lambda: conv2d(padding=1, dilation=(1, 9)), LARGER.format("3x19", "8x8")),
    (lambda: conv2d(stride=0), "stride is 0; expected a positive int"),
    (lambda: conv2d(stride=-2), "stride is -2; expected a positive int"),
    (lambda: conv2d(stride=(1, 0)), "stride is (1, 0); expected ints of 1 or more"),
    (lambda: conv2d(dilation=0), "dilation is 0; expected a positive int"),
    (lambda: conv2d(dilation=(2, -1)), "dilation is (2, -1); expected ints of 1 or more"),
    (lambda: conv2d(padding=-1), "padding is -1; expected an int of 0 or more"),
    (lambda: conv2d(padding=(0, -1)), "padding is (0, -1); expected ints of 0 or more"),
    (lambda: max_pool2d(kernel_size=0), "kernel_size is 0; expected a positive int"),
    (lambda: max_pool2d(kernel_size=(2, -1)), "kernel_size is (2, -1); expected ints of 1 or more"),
    (lambda: max_pool2d(stride=0), "stride is 0; expected a positive int"),
    (
        lambda: avg_pool2d(kernel_size=7),
        "7x7 (dilation counted) is larger than the padded input 6x6; expected a smaller",
    ),
    (
        lambda: max_pool2d(padding=2),
        "padding (2, 2) of the height is not smaller than the window's 2 (dilation counted); "
        "expected less on each side",
    ),
    (
        lambda: avg_pool2d(kernel_size=(3, 2), padding=((0, 0), (0, 2))),
        "padding (0, 2) of the width is not smaller than the window's 2 (dilation counted); "
        "expected less on each side",
    ),
    (
        lambda: max_pool2d(x=x[:, :, :1], dilation=2, padding=1),
        "dilation 2 over a height of 1 leaves a window with nothing but padding; "
        "expected a smaller dilation or less padding",
    ),
    (lambda: PoolSpec("min", 1, 1, 4, 4, 2, 2), "mode is 'min'; expected 'max' or 'avg'"),
    (
        lambda: PoolSpec("avg", 1, 1, 4, 4, 2, 2, dilation=2),
        "dilation is (2, 2); average pooling has none, expected 1",
    ),
    (lambda: ConvSpec(-1, 1, 4, 4, 1, 2, 2), "N is -1; expected an int of 0 or more"),
    (lambda: ConvSpec(1, 1, 4, 4, 1, 0, 2), "R is 0; expected a positive int"),
    (lambda: ConvSpec(1, 1, 4, 4, 1, 2, 2, repeat=0), "repeat is 0; expected a positive int"),
    (lambda: conv2d(x=x[:, :, :0]), "H is 0; expected a positive int"),
    (lambda: conv2d(x=x[:, :0], w=w[:, :0]), "C is 0; expected a positive int"),
    (lambda: conv2d(w=w[:0]), "K is 0; expected a positive int"),
]
CHOICES = [
    (
        lambda: conv2d(backend="nope"),
        "backend is 'nope'; expected one of auto, loops, window, im2col, einsum, numba",
    ),
    (lambda: max_pool2d(backend=""), "backend is ''; expected one of auto, loops"),
    (lambda: conv2d(backend="Numba"), "backend is 'Numba'; expected one of auto, loops"),
    (lambda: conv2d_backward(need=("dx", "dz")), "need holds 'dz'; expected some of 'dx', 'dw', 'db'"),
    (lambda: conv1d_backward(need="dxdw"), "need holds 'dxdw'; expected some of 'dx', 'dw', 'db'"),
]


@pytest.mark.parametrize(
    ("call", "words"),
    [*CHANNELS, *SHAPES, *GEOMETRY, *CHOICES],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_values(call, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        call()
    assert "\n" not in str(caught.value)


PAIR = "expected an int or a pair of ints (height, width)"
PADDING = 'expected an int, a pair (height, width), ((top, bottom), (left, right)), "same" or "valid"'
DTYPE = "expected float32 or float64"
ARRAY = "expected a NumPy array (N, C, H, W) or (C, H, W)"
WRONG_TYPES = [
    (lambda: conv2d(x=x.astype(complex)), f"x has dtype complex128; {DTYPE}"),
    (lambda: conv2d(x=x.astype(int)), f"x has dtype int64; {DTYPE}"),
    (lambda: conv2d(x=x.astype(bool)), f"x has dtype bool; {DTYPE}"),
    (lambda: conv2d(x=x.astype(np.float16)), f"x has dtype float16; {DTYPE}"),
    (lambda: conv2d(x=x.astype(object)), f"x has dtype object; {DTYPE}"),
    (lambda: conv2d(x=x.astype(x.dtype.newbyteorder())), f"x has dtype {x.dtype.newbyteorder()}; {DTYPE}"),
    (lambda: conv2d(w=w.astype(int)), f"w has dtype int64; {DTYPE}"),
    (lambda: conv2d(b=b.astype(int)), f"b has dtype int64; {DTYPE}"),
    (lambda: conv2d_backward(dy=dy.astype(int)), f"dy has dtype int64; {DTYPE}"),
    (lambda: conv1d(x=signal.astype(np.float16)), f"x has dtype float16; {DTYPE}"),
    (lambda: max_pool2d(x=x.astype(int)), f"x has dtype int64; {DTYPE}"),
    (lambda: avg_pool2d(x=x.astype(np.uint8)), f"x has dtype uint8; {DTYPE}"),
    (lambda: avg_pool2d_backward(dy=pooled.astype(int)), f"dy has dtype int64; {DTYPE}"),
    (lambda: conv2d(x=x.tolist()), f"x is list; {ARRAY}"),
    (lambda: conv2d(x=None), f"x is NoneType; {ARRAY}"),
    (lambda: max_pool2d(x=1.0), f"x is float; {ARRAY}"),
    (lambda: conv2d(w=w.tolist()), "w is list; expected a NumPy array (K, C/groups, R, S)"),
    (lambda: conv2d(b=0), "b is int; expected a NumPy array (K,)"),
    (lambda: conv1d(x=[[1.0]]), "x is list; expected a NumPy array (N, C, L) or (C, L)"),
    (lambda: conv2d_backward(dy=dy.tolist()), "dy is list; expected a NumPy array (2, 4, 4, 4)"),
    (lambda: conv2d(stride=1.0), f"stride is 1.0; {PAIR}"),
    (lambda: conv2d(stride=True), f"stride is True; {PAIR}"),
    (lambda: conv2d(stride=np.True_), f"stride is {np.True_!r}; {PAIR}"),
    (lambda: conv2d(stride=None), f"stride is None; {PAIR}"),
    (lambda: conv2d(stride="1"), f"stride is '1'; {PAIR}"),
    (lambda: conv2d(stride=(1, 2, 3)), f"stride is (1, 2, 3); {PAIR}"),
    (lambda: conv2d(stride=(2, 1.5)), f"stride is (2, 1.5); {PAIR}"),
    (lambda: conv2d(dilation=(2, True)), f"dilation is (2, True); {PAIR}"),
    (lambda: conv2d(padding=1.5), "padding is 1.5; expected an int"),
    (lambda: conv2d(padding=False), "padding is False; expected an int"),
    (lambda: conv2d(padding=None), "padding is None; expected an int"),
    (lambda: conv2d(padding=((1, 2), 3)), f"padding is ((1, 2), 3); {PADDING}"),
    (lambda: conv2d(padding=((1, 2), (3, 4.0))), "(3, 4.0); expected"),
    (lambda: conv2d(groups=1.0), "groups is 1.0; expected a positive int"),
    (lambda: conv2d(groups=True), "groups is True; expected a positive int"),
    (lambda: conv2d(groups=None), "groups is None; expected a positive int"),
    (lambda: max_pool2d(kernel_size=2.0), f"kernel_size is 2.0; {PAIR}"),
    (lambda: max_pool2d(kernel_size=None), f"kernel_size is None; {PAIR}"),
    (lambda: avg_pool2d(kernel_size=(1, 2, 3)), f"kernel_size is (1, 2, 3); {PAIR}"),
    (lambda: conv1d(stride=(1, 1)), "stride is (1, 1); expected a positive int"),
    (lambda: conv1d(dilation=2.0), "dilation is 2.0; expected a positive int"),
    (
        lambda: conv1d(padding=(1, 1, 1)),
        'padding is (1, 1, 1); expected an int, (left, right), "same" or "valid"',
    ),
    (lambda: conv1d(padding=((0, 0), (1, 1))), 'expected an int, (left, right), "same" or "valid"'),
    (
        lambda: max_pool2d_backward(indices=np.zeros((2, 4, 3, 3))),
        "indices is float64; expected the int64 array of the forward pass",
    ),
    (
        lambda: max_pool2d_backward(indices=[0]),
        "indices is list; expected the int64 array of the forward pass",
    ),
    (lambda: ConvSpec("1", 1, 4, 4, 1, 2, 2), "N is '1'; expected an int of 0 or more"),
    (lambda: ConvSpec(1, 1.0, 4, 4, 1, 2, 2), "C is 1.0; expected a positive int"),
    (lambda: PoolSpec("max", 1, 1, 4, 4, None, 2), "R is None; expected a positive int"),
]


@pytest.mark.parametrize(
    ("call", "words"), WRONG_TYPES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_wrong_types(call, words: str) -> None:
    with pytest.raises(TypeError, match=re.escape(words)) as caught:
        call()
    assert "\n" not in str(caught.value)


# An error of either kind, as long as it names the argument: not one from deep inside.
NAMED = {
    "stride, an array": (lambda: conv2d(stride=np.array([1.0, 2.0])), "stride"),
    "stride, a dict": (lambda: conv2d(stride={}), "stride"),
    "padding, an array": (lambda: conv2d(padding=np.array([1.0, 2.0])), "padding"),
    "padding, a set": (lambda: conv2d(padding={1, 2}), "padding"),
    "padding, a word": (lambda: conv2d(padding="full"), "padding is 'full'; expected"),
    "padding, a word in 1-D": (lambda: conv1d(padding="full"), "padding is 'full'; expected"),
    "groups, an array": (lambda: conv2d(groups=np.array([1, 2])), "groups"),
    "kernel_size, an array": (lambda: max_pool2d(kernel_size=np.array([1.0, 2.0])), "kernel_size"),
    "need, None": (lambda: conv2d_backward(need=None), "need"),
    "need, a number": (lambda: conv2d_backward(need=3), "need"),
    "need, unhashable": (lambda: conv2d_backward(need=[["dx"]]), "need"),
    "x_shape, a number": (lambda: avg_pool2d_backward(x_shape=5), "x_shape"),
    "x_shape, None": (lambda: avg_pool2d_backward(x_shape=None), "x_shape"),
    "x_shape, negative": (lambda: avg_pool2d_backward(x_shape=(2, 4, -6, 6)), "-6"),
    "backend, None": (lambda: conv2d(backend=None), "backend is None; expected one of"),
    "backend, a number": (lambda: conv2d(backend=3), "backend is 3; expected one of"),
    "backend, a list": (lambda: conv2d(backend=["numba"]), "backend is ['numba']; expected one of"),
    "conv1d, stride 0": (lambda: conv1d(stride=0), "stride is"),
    "conv1d, padding": (lambda: conv1d(padding=-1), "padding is"),
    "conv1d, kernel": (lambda: conv1d(x=signal[..., :2]), "is larger than the padded input"),
}


@pytest.mark.parametrize(("call", "words"), NAMED.values(), ids=NAMED)
def test_errors_name_their_argument(call, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(words)) as caught:
        call()
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [(1.0, 1.0), (True, True), (np.float64(1), 1)], ids=str)
def test_no_cache_lets_a_wrong_type_through(wrong) -> None:
    """1.0 and True equal 1, and hash alike: what was right a moment ago must not vouch for them."""
    conv2d(stride=(1, 1), dilation=(1, 1), padding=(1, 1))
    max_pool2d(kernel_size=(1, 1), stride=(1, 1))
    for call in (
        lambda: conv2d(stride=wrong, dilation=(1, 1), padding=(1, 1)),
        lambda: conv2d(stride=(1, 1), dilation=wrong, padding=(1, 1)),
        lambda: conv2d(stride=(1, 1), dilation=(1, 1), padding=wrong),
        lambda: max_pool2d(kernel_size=wrong, stride=(1, 1)),
        lambda: max_pool2d(kernel_size=(1, 1), stride=wrong),
    ):
        with pytest.raises(TypeError, match="expected an int"):
            call()


def test_arguments_after_the_arrays_are_named() -> None:
    """Nobody can mistake a stride for a bias."""
    for call in (
        lambda: kernels.conv2d(x, w, None, 2),
        lambda: kernels.conv2d_backward(dy, x, w, 2),
        lambda: kernels.max_pool2d(x, 2, 2),
        lambda: kernels.avg_pool2d(x, 2, 2),
    ):
        with pytest.raises(TypeError, match="positional argument"):
            call()


@pytest.mark.parametrize("groups", [1, np.int64(1)])
def test_channels_are_checked_whatever_int_groups_is(groups) -> None:
    x, w = np.zeros((8, 3, 9, 9), np.float32), np.zeros((16, 4, 3, 3), np.float32)
    message = "w has 4 input channels but x has 3 (x: (8, 3, 9, 9), w: (16, 4, 3, 3), groups=1)"
    with pytest.raises(ValueError, match=re.escape(message)):
        kernels.conv2d(x, w, groups=groups)
