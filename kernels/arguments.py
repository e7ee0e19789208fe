"""The arguments of the public functions: checked, and what follows from them, once for each layer.

To check them takes longer than a small layer does, so shapes, dtypes and geometry are the key of a cache.
What raises is not kept, and raises again.
"""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kernels.axis import as_int, as_pair, is_int
from kernels.spec import ConvSpec, PoolSpec

_FLOATS = np.dtype(np.float32), np.dtype(np.float64)
IMAGE = {4: "(N, C, H, W)", 3: "(C, H, W)"}
SIGNAL = {3: "(N, C, L)", 2: "(C, L)"}
FILTERS = {4: "(K, C/groups, R, S)"}
SIGNAL_FILTERS = {3: "(K, C/groups, R)"}
BIAS = {1: "(K,)"}
_Facts = tuple[tuple[int, ...], np.dtype]
"""Shape and dtype of an array: all that there is to check once it is one."""


class Layer(NamedTuple):
    """What follows from the facts of arguments: once for each layer, as it takes longer than a small one."""

    spec: Any
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    """As the caller has them: perhaps unbatched, or without a height."""
    full_x: tuple[int, ...]
    full_y: tuple[int, ...]
    """As backends have them."""


def expected(shapes: dict[int, str]) -> str:
    """The shapes that would do, in words."""
    return " or ".join(shapes.values())


def facts_of(name: str, value: object, shapes: dict[int, str]) -> _Facts:
    """Of `value`, if it is an array."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is {type(value).__name__}; expected a NumPy array {expected(shapes)}")
    return value.shape, value.dtype


def _check(name: str, facts: _Facts, shapes: dict[int, str]) -> None:
    """Whether an array is one of floats, with as many dimensions as one of `shapes` has."""
    shape, dtype = facts
    if dtype not in _FLOATS:
        raise TypeError(f"{name} has dtype {dtype}; expected float32 or float64")
    if len(shape) not in shapes:
        raise ValueError(f"{name} has shape {shape}; expected {expected(shapes)}")


def checked_gradient(dy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`dy`, if it is an array of floats of the result's shape."""
    if isinstance(dy, np.ndarray) and dy.shape == shape and dy.dtype in _FLOATS:
        return dy
    facts = facts_of("dy", dy, {len(shape): str(shape)})
    _check("dy", facts, {len(facts[0]): str(shape)})  # the shape is what counts
    raise ValueError(f"dy has shape {dy.shape}; expected the result's {shape}")


def checked_indices(indices: object, shape: tuple[int, ...]) -> np.ndarray:
    """`indices`, if they are an array of integers of the result's shape."""
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        what = indices.dtype if isinstance(indices, np.ndarray) else type(indices).__name__
        raise TypeError(f"indices is {what}; expected the int64 array of the forward pass")
    if indices.shape != shape:
        raise ValueError(f"indices has shape {indices.shape}; expected the result's {shape}")
    return indices


_FLAGS = bool, np.bool_


def key_of(geometry: tuple[Any, ...]) -> bytes:
    """`geometry` as part of a cache's key, which tells (1, 1) from (1.0, 1.0), as a tuple would not."""
    try:
        return pickle.dumps(geometry, pickle.HIGHEST_PROTOCOL)
    except Exception:  # whatever the methods of what was given raise
        return pickle.dumps(_plain(geometry), pickle.HIGHEST_PROTOCOL)


def _plain(value: Any) -> Any:
    """The same of tuples, ints and text; what is none of them is no valid geometry, and its text will do."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return operator.index(value) if is_int(value) else value if isinstance(value, str) else repr(value)


def _check_channels(x: tuple[int, ...], w: tuple[int, ...], groups: Any) -> None:
    """Whether x, as the caller gave it, has the channels that w expects; the spec judges `groups` itself."""
    channels, per_group = x[1 - len(w)], w[1]
    if is_int(groups) and groups > 0 and not channels % groups and per_group * groups != channels:
        split = "" if groups == 1 else f" in {groups} groups of {channels // groups}"
        raise ValueError(
            f"w has {per_group} input channels but x has {channels}{split} (x: {x}, w: {w}, groups={groups})"
        )


@lru_cache(maxsize=4096)
def conv2d_layer(w: _Facts, x: _Facts, b: _Facts | None, key: bytes) -> Layer:
    """What `conv2d` is asked for; `key` is the geometry's."""
    return _conv_layer(w, x, b, pickle.loads(key), FILTERS, IMAGE, conv2d_spec)


@lru_cache(maxsize=4096)
def conv1d_layer(w: _Facts, x: _Facts, b: _Facts | None, key: bytes) -> Layer:
    """What `conv1d` is asked for."""
    layer = _conv_layer(w, x, b, pickle.loads(key), SIGNAL_FILTERS, SIGNAL, conv1d_spec)
    return layer._replace(y_shape=(*layer.y_shape[:-2], layer.y_shape[-1]))


def _conv_layer(
    w: _Facts,
    x: _Facts,
    b: _Facts | None,
    geometry: tuple[Any, ...],
    filters: dict[int, str],
    inputs: dict[int, str],
    make: Callable[..., ConvSpec],
) -> Layer:
    _check("w", w, filters)
    _check("x", x, inputs)
    (w_shape, _), (x_shape, _) = w, x
    _check_channels(x_shape, w_shape, geometry[-1])
    layer = _layer_of(x_shape, len(w_shape), lambda full: make(full, w_shape, *geometry))
    if b is not None:
        K = layer.spec.K
        _check("b", b, BIAS)
        if b[0] != (K,):
            raise ValueError(f"b has shape {b[0]} but w has {K} filters; expected ({K},)")
    return layer


def _layer_of(
    x_shape: tuple[int, ...], dimensions: int, make: Callable[[tuple[int, ...]], ConvSpec | PoolSpec]
) -> Layer:
    """The layer for inputs of that shape, which are a single image where they have a dimension less."""
    batched = len(x_shape) == dimensions
    spec = make(x_shape if batched else (1, *x_shape))
    return Layer(spec, x_shape, spec.y_shape if batched else spec.y_shape[1:], spec.x_shape, spec.y_shape)


def image_shape(x: np.ndarray) -> tuple[int, ...]:
    """That of images to be pooled, once they are known to be some."""
    facts = facts_of("x", x, IMAGE)
    _check("x", facts, IMAGE)
    return facts[0]


def pool_layer(
    mode: str,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Layer:
    """What pooling of images of that shape is asked for."""
    _check_flags(ceil_mode, count_include_pad)
    key = key_of((kernel_size, stride, padding, dilation))
    return _cached_pool_layer(mode, x_shape, key, bool(ceil_mode), bool(count_include_pad))


@lru_cache(maxsize=4096)
def _cached_pool_layer(
    mode: str, x_shape: tuple[int, ...], key: bytes, ceil_mode: bool, count_include_pad: bool
) -> Layer:
    def make(full: tuple[int, ...]) -> PoolSpec:
        return _cached_pool_spec(mode, full, key, ceil_mode, count_include_pad)

    return _layer_of(x_shape, 4, make)


def conv2d_spec(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int
) -> ConvSpec:
    """The geometry that `conv2d` computes; cached."""
    return _cached_conv_spec(x_shape, w_shape, key_of((stride, padding, dilation, groups)))


@lru_cache(maxsize=4096)
def _cached_conv_spec(x_shape: tuple[int, ...], w_shape: tuple[int, ...], key: bytes) -> ConvSpec:
    (N, C, H, W), (K, _, R, S) = x_shape, w_shape
    return ConvSpec(N, C, H, W, K, R, S, *pickle.loads(key))


def conv1d_spec(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int
) -> ConvSpec:
    """The geometry that `conv1d` computes: a 2-D convolution of height 1."""
    (N, C, L), (K, per_group, R) = x_shape, w_shape
    along = [
        value[0] if isinstance(value, tuple | list) and len(value) == 1 else value
        for value in (stride, padding, dilation)
    ]
    stride, padding, dilation = along
    stride, dilation = as_int("stride", stride, 1), as_int("dilation", dilation, 1)
    if is_int(padding):
        padding = (padding, padding)
    if not isinstance(padding, str):
        if not isinstance(padding, tuple | list) or len(padding) != 2 or not all(map(is_int, padding)):
            raise TypeError(f'padding is {padding!r}; expected an int, (left, right), "same" or "valid"')
        padding = ((0, 0), padding)
    return conv2d_spec((N, C, 1, L), (K, per_group, 1, R), (1, stride), padding, (1, dilation), groups)


def pool2d_spec(
    mode: str,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> PoolSpec:
    """The geometry that `max_pool2d` ("max") and `avg_pool2d` ("avg") compute; cached."""
    _check_flags(ceil_mode, count_include_pad)
    key = key_of((kernel_size, stride, padding, dilation))
    return _cached_pool_spec(mode, x_shape, key, bool(ceil_mode), bool(count_include_pad))


def _check_flags(ceil_mode: object, count_include_pad: object) -> None:
    for name, flag in (("ceil_mode", ceil_mode), ("count_include_pad", count_include_pad)):
        if not isinstance(flag, _FLAGS):
            raise TypeError(f"{name} is {flag!r}; expected True or False")


@lru_cache(maxsize=4096)
def _cached_pool_spec(
    mode: Any, x_shape: tuple[int, ...], key: bytes, ceil_mode: bool, count_include_pad: bool
) -> PoolSpec:
    kernel_size, stride, padding, dilation = pickle.loads(key)
    kernel = as_pair("kernel_size", kernel_size)
    N, C, H, W = x_shape
    return PoolSpec(mode, N, C, H, W, *kernel, stride, padding, dilation, ceil_mode, count_include_pad)
