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

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.arguments import (
    BIAS,
    FILTERS,
    IMAGE,
    SIGNAL,
    SIGNAL_FILTERS,
    Layer,
    checked_gradient,
    checked_indices,
    conv1d_layer,
    conv2d_layer,
    expected,
    facts_of,
    image_shape,
    key_of,
    pool_layer,
)
from kernels.arrays import check_positions, readonly
from kernels.axis import is_int
from kernels.choice import auto
from kernels.registry import Backend, Op, backends, find_backend
from kernels.spec import Spec


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


_INT64 = np.dtype(np.int64)
_GRADIENTS = ("dx", "dw", "db")
_Outs = Sequence[np.ndarray | None]


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
    facts = facts_of("w", w, FILTERS), facts_of("x", x, IMAGE), None if b is None else facts_of("b", b, BIAS)
    layer = conv2d_layer(*facts, key_of((stride, padding, dilation, groups)))
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
    bias = None if b is None else facts_of("b", b, BIAS)
    facts = facts_of("w", w, SIGNAL_FILTERS), facts_of("x", x, SIGNAL), bias
    layer = conv1d_layer(*facts, key_of((stride, padding, dilation, groups)))
    return _conv(layer, x, w, b, backend, out)


def _conv(
    layer: Layer, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, backend: str, out: np.ndarray | None
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
    facts = facts_of("w", w, FILTERS), facts_of("x", x, IMAGE), None
    layer = conv2d_layer(*facts, key_of((stride, padding, dilation, groups)))
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
    facts = facts_of("w", w, SIGNAL_FILTERS), facts_of("x", x, SIGNAL), None
    layer = conv1d_layer(*facts, key_of((stride, padding, dilation, groups)))
    return Conv1dGradients(*_conv_backward(layer, dy, x, w, backend, need, out))


def _conv_backward(
    layer: Layer,
    dy: np.ndarray,
    x: np.ndarray,
    w: np.ndarray,
    backend: str,
    need: Iterable[str],
    out: _Outs | None,
) -> list[np.ndarray | None]:
    """The gradients of x, w and b, in the shapes that the caller gave these: None where not needed."""
    spec, dtype = layer.spec, x.dtype
    dy = checked_gradient(dy, layer.y_shape)
    wanted = _wanted(need)
    out_dx, out_dw, out_db = _outs(out, _GRADIENTS)
    inputs = dy, x, w
    dx = _result(out_dx, layer.x_shape, dtype, inputs) if "dx" in wanted else None
    dw = _result(out_dw, w.shape, dtype, inputs) if "dw" in wanted else None
    db = _result(out_db, (spec.K,), dtype, inputs) if "db" in wanted else None
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
    if spec.N and dw is not None:
        arrays = dy, _ready(x, layer.full_x, dtype), _shaped(dw, spec.w_shape)
        if db is None:
            chosen.operations.conv_dw(spec, *arrays)
        else:
            chosen.conv_dw_db(spec, *arrays, db)
    elif spec.N and db is not None:
        chosen.operations.conv_db(spec, dy, db)
    return [
        None if dx is None else _delivered(dx, out_dx),
        None if dw is None else _delivered(dw, out_dw),
        None if db is None else _delivered(db, out_db),
    ]


def _wanted(need: Iterable[str]) -> tuple[str, ...]:
    """The gradients that `need` names."""
    if type(need) is not tuple:  # which it mostly is, and asking for more takes a while
        if not isinstance(need, Iterable):
            raise TypeError(f"need is {need!r}; expected some of 'dx', 'dw', 'db'")
        need = (need,) if isinstance(need, str) else tuple(need)
    for name in need:
        if name not in _GRADIENTS:
            raise ValueError(f"need holds {name!r}; expected some of 'dx', 'dw', 'db'")
    return need


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
    layer = pool_layer("max", image_shape(x), kernel_size, stride, padding, dilation, ceil_mode, True)
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
    layer = pool_layer("max", image_shape(x), kernel_size, stride, padding, dilation, ceil_mode, True)
    spec, shape = layer.spec, layer.y_shape
    dy = _ready(checked_gradient(dy, shape), layer.full_y, x.dtype)
    chosen = _resolve(backend, spec, "dx", x.dtype)
    if indices is not None:
        indices = checked_indices(indices, shape)
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
    layer = pool_layer("avg", image_shape(x), kernel_size, stride, padding, 1, ceil_mode, count_include_pad)
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
        raise TypeError(f"x_shape is {x_shape!r}; expected a tuple {expected(IMAGE)}")
    shape = tuple(x_shape)
    if len(shape) not in IMAGE or not all(map(is_int, shape)):
        raise ValueError(f"x_shape is {x_shape!r}; expected {expected(IMAGE)}")
    layer = pool_layer("avg", shape, kernel_size, stride, padding, 1, ceil_mode, count_include_pad)
    spec = layer.spec
    dy = _ready(checked_gradient(dy, layer.y_shape), layer.full_y, dy.dtype)
    result = _result(out, shape, dy.dtype, (dy,))
    chosen = _resolve(backend, spec, "dx", dy.dtype)
    if spec.N:
        chosen.operations.avg_pool_dx(spec, dy, _shaped(result, layer.full_x))
    return _delivered(result, out)


def _shaped(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`array` itself, or a view of another shape."""
    return array if array.shape == shape else array.reshape(shape)


def _ready(array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """`array` as backends get it: of `shape` and `dtype`, C-contiguous, aligned, read-only."""
    flags = array.flags
    if array.dtype is not dtype or not (flags.carray or (flags.c_contiguous and flags.aligned)):
        array = np.require(array, dtype, ("C_CONTIGUOUS", "ALIGNED"))
    # A view of its own, even where nothing changes.
    return readonly(array.view() if array.shape == shape else array.reshape(shape))


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
    flags = out.flags
    usable = flags.c_contiguous and flags.aligned and not _overlaps(out, inputs)
    return out if usable else np.empty(shape, dtype)


def _overlaps(out: np.ndarray, inputs: tuple[np.ndarray | None, ...]) -> bool:
    """Whether they may share memory with `out`; what two arrays own, they do not share."""
    owned = out.flags.owndata
    for array in inputs:
        if array is None or (array is not out and owned and array.flags.owndata):
            continue
        if np.may_share_memory(out, array):
            return True
    return False


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
