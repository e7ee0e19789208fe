"""The public functions: arguments as in `torch.nn.functional`, validated once, handed to a backend.

Arrays are NumPy, (N, C, H, W) or one unbatched image (C, H, W), float32 or float64; weights are
(K, C/groups, R, S). Results have x's dtype; weights of the other float dtype are converted to it. Inputs
are never modified and may have any memory layout. `stride` and `dilation` are an int or a pair (height,
width); `padding` also ((top, bottom), (left, right)), "valid", or "same" (output = ceil(input / stride),
the odd element at the end). `backend` is a name from `kernels.backends()`, or "auto" (`kernels.choose`).
`out` is an array to write the result to, which is then returned; where there are several results, a tuple of
arrays, None for one to be made.

Bad arguments raise ValueError or TypeError that say what was given and what was expected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kernels.arrays import check_positions, readonly
from kernels.axis import as_int, as_pair, is_int
from kernels.choice import auto
from kernels.registry import Backend, Op, backends, find_backend
from kernels.spec import ConvSpec, PoolSpec, Spec


class Conv2dGradients(NamedTuple):
    """Gradients of a 2-D convolution, each None where it was not needed."""

    dx: np.ndarray | None
    dw: np.ndarray | None
    db: np.ndarray | None


class Conv1dGradients(NamedTuple):
    """Gradients of a 1-D convolution, each None where it was not needed."""

    dx: np.ndarray | None
    dw: np.ndarray | None
    db: np.ndarray | None


_FLOATS = np.dtype(np.float32), np.dtype(np.float64)
_INT64 = np.dtype(np.int64)
_GRADIENTS = ("dx", "dw", "db")
_Outs = Sequence[np.ndarray | None]
_IMAGE = {4: "(N, C, H, W)", 3: "(C, H, W)"}
_SIGNAL = {3: "(N, C, L)", 2: "(C, L)"}
_FILTERS = {4: "(K, C/groups, R, S)"}
_SIGNAL_FILTERS = {3: "(K, C/groups, R)"}
_BIAS = {1: "(K,)"}
_Facts = tuple[tuple[int, ...], np.dtype]
"""Shape and dtype of an array: all that there is to check once it is one."""


class _Layer(NamedTuple):
    """What follows from the facts of arguments: once for each layer, as it takes longer than a small one."""

    spec: Any
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    """As the caller has them: perhaps unbatched, or without a height."""
    full_x: tuple[int, ...]
    full_y: tuple[int, ...]
    """As backends have them."""


def conv2d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    backend: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """2-D convolution (cross-correlation, as everywhere in deep learning) of x with the filters w.

    x (N, C, H, W) or (C, H, W); w (K, C/groups, R, S); b (K,) or None. Returns y (N, K, OH, OW), or
    (K, OH, OW) for an unbatched x, of x's dtype.
    """
    facts = _facts("w", w, _FILTERS), _facts("x", x, _IMAGE), None if b is None else _facts("b", b, _BIAS)
    layer = _conv2d_layer(*facts, *_key((stride, padding, dilation, groups)))
    return _conv(layer, x, w, b, backend, out)


def conv1d(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    backend: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """1-D convolution of x with the filters w.

    x (N, C, L) or (C, L); w (K, C/groups, R); b (K,) or None; `padding` an int, (left, right), "same" or
    "valid". Returns y (N, K, OL), or (K, OL) for an unbatched x, of x's dtype.
    """
    facts = (
        _facts("w", w, _SIGNAL_FILTERS), _facts("x", x, _SIGNAL), None if b is None else _facts("b", b, _BIAS)
    )  # fmt: skip
    layer = _conv1d_layer(*facts, *_key((stride, padding, dilation, groups)))
    return _conv(layer, x, w, b, backend, out)


def _conv(
    layer: _Layer, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, backend: str, out: np.ndarray | None
) -> np.ndarray:
    spec, dtype = layer.spec, x.dtype
    result = _result(out, layer.y_shape, dtype, (x, w, b))
    chosen = _resolve(backend, spec, "forward", dtype)
    if spec.N:
        inputs = _ready(x, layer.full_x, dtype), _ready(w, spec.w_shape, dtype)
        bias = None if b is None else _ready(b, b.shape, dtype)
        chosen.operations.conv_forward(spec, *inputs, bias, _shaped(result, layer.full_y))
    return _delivered(result, out)


def conv2d_backward(
    dy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    backend: str = "auto",
    need: Iterable[str] = _GRADIENTS,
    out: _Outs | None = None,
) -> Conv2dGradients:
    """Gradients of `conv2d(x, w, b, ...)` with respect to x, w and b, given dy, that of its result.

    dy (N, K, OH, OW), x and w as in `conv2d`. `need` names those wanted of "dx", "dw", "db"; the others
    are not computed. Returns dx of x's shape, dw of w's shape, db (K,), or None each; `out` is (dx, dw, db).
    """
    facts = _facts("w", w, _FILTERS), _facts("x", x, _IMAGE), None
    layer = _conv2d_layer(*facts, *_key((stride, padding, dilation, groups)))
    return Conv2dGradients(*_conv_backward(layer, dy, x, w, backend, need, out))


def conv1d_backward(
    dy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    backend: str = "auto",
    need: Iterable[str] = _GRADIENTS,
    out: _Outs | None = None,
) -> Conv1dGradients:
    """Gradients of `conv1d(x, w, b, ...)`: as `conv2d_backward`, with dy (N, K, OL) or (K, OL)."""
    facts = _facts("w", w, _SIGNAL_FILTERS), _facts("x", x, _SIGNAL), None
    layer = _conv1d_layer(*facts, *_key((stride, padding, dilation, groups)))
    return Conv1dGradients(*_conv_backward(layer, dy, x, w, backend, need, out))


def _conv_backward(
    layer: _Layer,
    dy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    backend: str,
    need: Iterable[str],
    out: _Outs | None,
) -> list[np.ndarray | None]:
    """The gradients of x, w and b, in the shapes that the caller gave these: None where not needed."""
    spec, dtype = layer.spec, x.dtype
    dy = _gradient(dy, layer.y_shape)
    wanted = _wanted(need)
    outs = _outs(out, _GRADIENTS)
    shapes = layer.x_shape, w.shape, (spec.K,)
    results = [
        _result(given, shape, dtype, (dy, x, w)) if name in wanted else None
        for name, given, shape in zip(_GRADIENTS, outs, shapes, strict=True)
    ]
    dx, dw, db = results
    dy = _ready(dy, layer.full_y, dtype)
    if dx is not None:
        chosen = _resolve(backend, spec, "dx", dtype)
        if spec.N:
            chosen.operations.conv_dx(spec, dy, _ready(w, spec.w_shape, dtype), _shaped(dx, layer.full_x))
    if dw is not None or db is not None:
        chosen = _resolve(backend, spec, "dw", dtype)
    for gradient in (dw, db):
        if gradient is not None and not spec.N:
            gradient[...] = 0
    if dw is not None and spec.N:
        chosen.operations.conv_dw(spec, dy, _ready(x, layer.full_x, dtype), _shaped(dw, spec.w_shape))
    if db is not None and spec.N:
        chosen.operations.conv_db(spec, dy, db)
    return [
        None if result is None else _delivered(result, given)
        for result, given in zip(results, outs, strict=True)
    ]


def _wanted(need: Iterable[str]) -> tuple[str, ...]:
    """The gradients that `need` names."""
    if not isinstance(need, Iterable):
        raise TypeError(f"need is {need!r}; expected some of 'dx', 'dw', 'db'")
    wanted = (need,) if isinstance(need, str) else tuple(need)
    for name in wanted:
        if name not in _GRADIENTS:
            raise ValueError(f"need holds {name!r}; expected some of 'dx', 'dw', 'db'")
    return wanted


def max_pool2d(
    x: np.ndarray,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    backend: str = "auto",
    out: np.ndarray | _Outs | None = None,
) -> Any:
    """The maximum of each window of x (N, C, H, W) or (C, H, W); `stride` is the window's size by default.

    Returns y (N, C, OH, OW), or (y, indices) with the flat position in the H x W plane of each maximum,
    int64; `out` may then be (y, indices). The first of equal maxima wins, padding never does, and NaN
    propagates (of several the last, as in PyTorch). Padding must be smaller than the dilated window.
    """
    layer = _pool_layer("max", _image_shape(x), kernel_size, stride, padding, dilation, ceil_mode, True)
    spec, shape = layer.spec, layer.y_shape
    outs = (out, None) if isinstance(out, np.ndarray) or not return_indices else _outs(out, ("y", "indices"))
    result = _result(outs[0], shape, x.dtype, (x,))
    indices = _result(outs[1], shape, _INT64, (x,)) if return_indices else None
    chosen = _resolve(backend, spec, "forward", x.dtype)
    if spec.N:
        positions = None if indices is None else _shaped(indices, layer.full_y)
        y = _shaped(result, layer.full_y)
        chosen.operations.max_pool_forward(spec, _ready(x, layer.full_x, x.dtype), y, positions)
    delivered = _delivered(result, outs[0])
    return delivered if indices is None else (delivered, _delivered(indices, outs[1]))


def max_pool2d_backward(
    dy: np.ndarray,
    x: np.ndarray,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    indices: np.ndarray | None = None,
    backend: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of `max_pool2d(x, kernel_size, ...)`: each dy (N, C, OH, OW) goes to its maximum.

    `indices` are those of the forward pass; without them they are found again. Returns dx of x's shape.
    """
    layer = _pool_layer("max", _image_shape(x), kernel_size, stride, padding, dilation, ceil_mode, True)
    spec, shape = layer.spec, layer.y_shape
    dy = _ready(_gradient(dy, shape), layer.full_y, x.dtype)
    chosen = _resolve(backend, spec, "dx", x.dtype)
    if indices is not None:
        indices = _checked_indices(indices, shape)
        if indices.dtype != np.int64 or not chosen.checks_positions:
            check_positions(indices, spec)
        indices = _ready(indices, layer.full_y, _INT64)
    result = _result(out, layer.x_shape, x.dtype, (dy, x, indices))
    if spec.N:
        if indices is None:
            found = np.empty(layer.full_y, np.int64)
            scratch = np.empty(layer.full_y, x.dtype)
            chosen.operations.max_pool_forward(spec, _ready(x, layer.full_x, x.dtype), scratch, found)
            indices = readonly(found)
        chosen.operations.max_pool_dx(spec, dy, indices, _shaped(result, layer.full_x))
    return _delivered(result, out)


def avg_pool2d(
    x: np.ndarray,
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    backend: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The mean of each window of x (N, C, H, W) or (C, H, W); `stride` is the window's size by default.

    Padding counts as zeros, or not at all without `count_include_pad`. Returns y (N, C, OH, OW).
    """
    layer = _pool_layer("avg", _image_shape(x), kernel_size, stride, padding, 1, ceil_mode, count_include_pad)
    spec = layer.spec
    result = _result(out, layer.y_shape, x.dtype, (x,))
    chosen = _resolve(backend, spec, "forward", x.dtype)
    if spec.N:
        x = _ready(x, layer.full_x, x.dtype)
        chosen.operations.avg_pool_forward(spec, x, _shaped(result, layer.full_y))
    return _delivered(result, out)


def avg_pool2d_backward(
    dy: np.ndarray,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    *,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    backend: str = "auto",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Gradient of `avg_pool2d` for an x of `x_shape`: each dy is shared out evenly among its window.

    dy (N, C, OH, OW). Returns dx of `x_shape`, of dy's dtype.
    """
    if not isinstance(x_shape, Iterable):
        raise TypeError(f"x_shape is {x_shape!r}; expected a tuple {_expected(_IMAGE)}")
    shape = tuple(x_shape)
    if len(shape) not in _IMAGE or not all(map(is_int, shape)):
        raise ValueError(f"x_shape is {x_shape!r}; expected {_expected(_IMAGE)}")
    layer = _pool_layer("avg", shape, kernel_size, stride, padding, 1, ceil_mode, count_include_pad)
    spec = layer.spec
    dy = _ready(_gradient(dy, layer.y_shape), layer.full_y, dy.dtype)
    result = _result(out, shape, dy.dtype, (dy,))
    chosen = _resolve(backend, spec, "dx", dy.dtype)
    if spec.N:
        chosen.operations.avg_pool_dx(spec, dy, _shaped(result, layer.full_x))
    return _delivered(result, out)


def _expected(shapes: dict[int, str]) -> str:
    return " or ".join(shapes.values())


def _facts(name: str, value: object, shapes: dict[int, str]) -> _Facts:
    """Of `value`, if it is an array."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is {type(value).__name__}; expected a NumPy array {_expected(shapes)}")
    return value.shape, value.dtype


def _check(name: str, facts: _Facts, shapes: dict[int, str]) -> None:
    """Whether an array is one of floats, with as many dimensions as one of `shapes` has."""
    shape, dtype = facts
    if dtype not in _FLOATS:
        raise TypeError(f"{name} has dtype {dtype}; expected float32 or float64")
    if len(shape) not in shapes:
        raise ValueError(f"{name} has shape {shape}; expected {_expected(shapes)}")


def _shaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`array` itself, or a view of another shape."""
    return array if array.shape == shape else array.reshape(shape)


def _ready(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`array` as backends get it: of `shape` and `dtype`, C-contiguous, aligned, read-only."""
    flags = array.flags
    if array.dtype is not dtype or not (flags.c_contiguous and flags.aligned):
        array = np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED"))
    # A view of its own, even where nothing changes.
    return readonly(array.view() if array.shape == shape else array.reshape(shape))


def _gradient(dy: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if isinstance(dy, np.ndarray) and dy.shape == shape and dy.dtype in _FLOATS:
        return dy
    facts = _facts("dy", dy, {len(shape): str(shape)})
    _check("dy", facts, {len(facts[0]): str(shape)})  # the shape is what counts
    raise ValueError(f"dy has shape {dy.shape}; expected the result's {shape}")


def _checked_indices(indices: object, shape: tuple[int, ...]) -> np.ndarray:
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        what = indices.dtype if isinstance(indices, np.ndarray) else type(indices).__name__
        raise TypeError(f"indices is {what}; expected the int64 array of the forward pass")
    if indices.shape != shape:
        raise ValueError(f"indices has shape {indices.shape}; expected the result's {shape}")
    return indices


def _outs(out: object, names: tuple[str, ...]) -> _Outs:
    """`out`, one array or None for each of `names`; none at all where it is None."""
    if out is None:
        return (None,) * len(names)
    if not isinstance(out, tuple | list) or len(out) != len(names):
        what = f"{len(out)} of them" if isinstance(out, tuple | list) else type(out).__name__
        raise TypeError(f"out is {what}; expected a tuple ({', '.join(names)}) of arrays or None")
    return out


def _result(
    out: object, shape: tuple[int, ...], dtype: np.dtype, inputs: tuple[np.ndarray | None, ...]
) -> np.ndarray:
    """Where the backend writes: `out` itself where it can, else a new array."""
    if out is None:
        return np.empty(shape, dtype)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out is {type(out).__name__}; expected a NumPy array {shape} of {dtype}")
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out is {out.shape} of {out.dtype}; expected {shape} of {dtype}")
    if not out.flags.writeable:
        raise ValueError("out is read-only; expected an array that can be written to")
    overlaps = any(np.may_share_memory(out, array) for array in inputs if array is not None)
    usable = out.flags.c_contiguous and out.flags.aligned and not overlaps
    return out if usable else np.empty(shape, dtype)


def _delivered(result: np.ndarray, out: Any) -> np.ndarray:
    if out is None or out is result:
        return result
    given: np.ndarray = out
    given[...] = result
    return given


def _resolve(backend: str, spec: Spec, op: Op, dtype: np.dtype) -> Backend:
    if backend == "auto":
        return auto(spec, op, dtype)
    chosen = find_backend(backend)
    if chosen is None:
        raise ValueError(f"backend is {backend!r}; expected one of auto, {', '.join(backends())}")
    reason = chosen.unsupported(spec, op, dtype)
    if reason:
        raise ValueError(f"backend {chosen.name!r} does not support {op} of {spec.descriptor}: {reason}")
    return chosen


_FLAGS = bool, np.bool_
_USUAL = frozenset((int, str, type(None)))


def _key(geometry: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    """`geometry` as part of a cache's key, and its types, or None where these are the usual ones."""
    if _USUAL.issuperset(map(type, geometry)) or all(map(_usual, geometry)):
        return geometry, None
    hashable = _hashable(geometry)
    return hashable, _types(hashable)


def _usual(value: Any) -> bool:
    """Whether `value` is of the types that geometries mostly are of."""
    return type(value) in _USUAL or (type(value) is tuple and all(map(_usual, value)))


def _hashable(value: Any) -> Any:
    """`value` as a key of a cache; what cannot be one is no valid geometry, and its text will do."""
    if isinstance(value, list | tuple):
        return tuple(map(_hashable, value))
    return repr(value) if value.__hash__ is None else value


def _types(value: Any) -> Any:
    """The types in nested tuples, which tell (1, 1) from (1.0, 1.0) where a cache would not."""
    return tuple(map(_types, value)) if isinstance(value, tuple) else type(value)


def _check_channels(x: tuple[int, ...], w: tuple[int, ...], groups: Any) -> None:
    """Whether x, as the caller gave it, has the channels that w expects; the spec judges `groups` itself."""
    channels, per_group = x[1 - len(w)], w[1]
    if is_int(groups) and groups > 0 and not channels % groups and per_group * groups != channels:
        split = "" if groups == 1 else f" in {groups} groups of {channels // groups}"
        raise ValueError(
            f"w has {per_group} input channels but x has {channels}{split} (x: {x}, w: {w}, groups={groups})"
        )


@lru_cache(maxsize=4096)
def _conv2d_layer(w: _Facts, x: _Facts, b: _Facts | None, geometry: tuple[Any, ...], types: Any) -> _Layer:
    """What `conv2d` is asked for; `geometry` and `types` as in `_key`."""
    return _conv_layer(w, x, b, geometry, _FILTERS, _IMAGE, conv2d_spec)


@lru_cache(maxsize=4096)
def _conv1d_layer(w: _Facts, x: _Facts, b: _Facts | None, geometry: tuple[Any, ...], types: Any) -> _Layer:
    """What `conv1d` is asked for."""
    layer = _conv_layer(w, x, b, geometry, _SIGNAL_FILTERS, _SIGNAL, conv1d_spec)
    return layer._replace(y_shape=(*layer.y_shape[:-2], layer.y_shape[-1]))


def _conv_layer(
    w: _Facts,
    x: _Facts,
    b: _Facts | None,
    geometry: tuple[Any, ...],
    filters: dict[int, str],
    inputs: dict[int, str],
    make: Callable[..., ConvSpec],
) -> _Layer:
    _check("w", w, filters)
    _check("x", x, inputs)
    (w_shape, _), (x_shape, _) = w, x
    _check_channels(x_shape, w_shape, geometry[-1])
    batched = len(x_shape) == len(w_shape)
    spec = make(x_shape if batched else (1, *x_shape), w_shape, *geometry)
    if b is not None:
        _check("b", b, _BIAS)
        if b[0] != (spec.K,):
            raise ValueError(f"b has shape {b[0]} but w has {spec.K} filters; expected ({spec.K},)")
    return _Layer(spec, x_shape, spec.y_shape if batched else spec.y_shape[1:], spec.x_shape, spec.y_shape)


def _image_shape(x: np.ndarray) -> tuple[int, ...]:
    """That of images to be pooled, once they are known to be some."""
    facts = _facts("x", x, _IMAGE)
    _check("x", facts, _IMAGE)
    return facts[0]


def _pool_layer(
    mode: str,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    count_include_pad: bool,
) -> _Layer:
    """What pooling of images of that shape is asked for."""
    _check_flags(ceil_mode, count_include_pad)
    window, types = _key((kernel_size, stride, padding, dilation))
    return _cached_pool_layer(mode, x_shape, window, bool(ceil_mode), bool(count_include_pad), types)


@lru_cache(maxsize=4096)
def _cached_pool_layer(
    mode: str,
    x_shape: tuple[int, ...],
    window: tuple[Any, ...],
    ceil_mode: bool,
    count_include_pad: bool,
    types: Any,
) -> _Layer:
    kernel_size, stride, padding, dilation = window
    batched = len(x_shape) == 4
    full = x_shape if batched else (1, *x_shape)
    spec = pool2d_spec(mode, full, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad)
    return _Layer(spec, x_shape, spec.y_shape if batched else spec.y_shape[1:], spec.x_shape, spec.y_shape)


def conv2d_spec(
    x_shape: tuple[int, ...], w_shape: tuple[int, ...], stride: Any, padding: Any, dilation: Any, groups: int
) -> ConvSpec:
    """The geometry that `conv2d` computes; cached."""
    geometry, types = _key((stride, padding, dilation, groups))
    return _cached_conv_spec(x_shape, w_shape, *geometry, types)


@lru_cache(maxsize=4096)
def _cached_conv_spec(
    x_shape: tuple[int, ...],
    w_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    types: Any,
) -> ConvSpec:
    (N, C, H, W), (K, _, R, S) = x_shape, w_shape
    return ConvSpec(N, C, H, W, K, R, S, stride, padding, dilation, groups)


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
    geometry, types = _key((kernel_size, stride, padding, dilation))
    return _cached_pool_spec(mode, x_shape, *geometry, bool(ceil_mode), bool(count_include_pad), types)


def _check_flags(ceil_mode: object, count_include_pad: object) -> None:
    for name, flag in (("ceil_mode", ceil_mode), ("count_include_pad", count_include_pad)):
        if not isinstance(flag, _FLAGS):
            raise TypeError(f"{name} is {flag!r}; expected True or False")


@lru_cache(maxsize=4096)
def _cached_pool_spec(
    mode: Any,
    x_shape: tuple[int, ...],
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    types: Any,
) -> PoolSpec:
    kernel = as_pair("kernel_size", kernel_size)
    N, C, H, W = x_shape
    return PoolSpec(mode, N, C, H, W, *kernel, stride, padding, dilation, ceil_mode, count_include_pad)
