"""PyTorch on the CPU: its operators as they are called without a graph of gradients.

A. Paszke et al., "PyTorch: An Imperative Style, High-Performance Deep Learning Library", 2019. Convolutions
go to oneDNN. Tensors share NumPy's memory; convolutions allocate their results, which are then copied.
"""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import numpy as np

from kernels.arrays import crop, pad, readonly
from kernels.peer import Arrays, Native, uneven
from kernels.registry import Op, first_gap
from kernels.spec import ConvSpec, PoolSpec, Spec
from kernels.threads import active

torch: Any = importlib.import_module("torch")  # its types would have mypy read all of PyTorch
_aten = torch.ops.aten

with warnings.catch_warnings():
    # PyTorch warns once that inputs are read-only; nothing here writes to them.
    warnings.simplefilter("ignore")
    torch.from_numpy(readonly(np.zeros(1)))


def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Pooling pads both ends alike, and by half a window at most."""
    if isinstance(spec, ConvSpec):
        return None
    over_half = any(2 * axis.before > kernel for axis, kernel in ((spec.rows, spec.R), (spec.cols, spec.S)))
    return first_gap(
        {
            "PyTorch's pooling pads both ends alike": uneven(spec),
            "PyTorch's pooling pads by half a window at most": over_half,
        }
    )


def _tensor(array: np.ndarray) -> Any:
    if torch.get_num_threads() != active():
        torch.set_num_threads(active())
    return torch.from_numpy(array)


def _padded(spec: ConvSpec, x: np.ndarray) -> tuple[Any, list[int]]:
    """x as a tensor, and the padding that PyTorch is left to do: none where that is uneven."""
    if uneven(spec):
        return _tensor(pad(spec, x)), [0, 0]
    return _tensor(x), [spec.padding[0][0], spec.padding[1][0]]


def _convolve(spec: ConvSpec, x: Any, w: Any, b: Any, padding: list[int]) -> Any:
    return torch.conv2d(x, w, b, spec.stride, padding, spec.dilation, spec.groups)


def _gradients(spec: ConvSpec, dy: Any, x: Any, w: Any, padding: list[int], mask: list[bool]) -> Any:
    """(dx, dw, db), None where `mask` is False."""
    geometry = list(spec.stride), padding, list(spec.dilation), False, [0, 0], spec.groups
    return _aten.convolution_backward(dy, x, w, [spec.K], *geometry, mask)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = conv2d(x, w, b)."""
    image, padding = _padded(spec, x)
    y[...] = _convolve(spec, image, _tensor(w), None if b is None else _tensor(b), padding).numpy()


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx by oneDNN's backward data."""
    image, padding = _padded(spec, dx)  # only its shape counts
    found = _gradients(spec, _tensor(dy), image, _tensor(w), padding, [True, False, False])[0].numpy()
    dx[...] = crop(spec, found) if uneven(spec) else found


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw by oneDNN's backward weights."""
    image, padding = _padded(spec, x)
    mask = [False, True, False]
    dw[...] = _gradients(spec, _tensor(dy), image, _tensor(dw), padding, mask)[1].numpy()


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    torch.sum(_tensor(dy), (0, 2, 3), out=_tensor(db))


def _window(spec: PoolSpec) -> tuple[list[int], list[int], list[int]]:
    return [spec.R, spec.S], list(spec.stride), [spec.padding[0][0], spec.padding[1][0]]


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """y and the maxima's places, which PyTorch's pooling finds in any case."""
    places = np.empty(spec.y_shape, np.int64) if indices is None else indices
    _max_pool(spec, _tensor(x), _tensor(y), _tensor(places))


def _max_pool(spec: PoolSpec, x: Any, y: Any, places: Any) -> Any:
    """Write to the tensors `y` and `places`."""
    geometry = *_window(spec), list(spec.dilation), spec.ceil_mode
    return _aten.max_pool2d_with_indices.out(x, *geometry, out=y, indices=places)


def max_pool_dx(spec: PoolSpec, dy: np.ndarray, indices: np.ndarray, dx: np.ndarray) -> None:
    """Each dy is summed up at the x that won its window."""
    _max_pool_dx(spec, _tensor(dy), _tensor(indices), _tensor(np.empty_like(dx)), _tensor(dx))


def _max_pool_dx(spec: PoolSpec, dy: Any, indices: Any, x: Any, dx: Any) -> Any:
    """Write to the tensor `dx`; of `x`, only the shape counts."""
    geometry = *_window(spec), list(spec.dilation), spec.ceil_mode
    return _aten.max_pool2d_with_indices_backward.grad_input(dy, x, *geometry, indices, grad_input=dx)


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The mean of each window."""
    _avg_pool(spec, _tensor(x), _tensor(y))


def _avg_pool(spec: PoolSpec, x: Any, y: Any) -> Any:
    flags = spec.ceil_mode, spec.count_include_pad, None
    return _aten.avg_pool2d.out(x, *_window(spec), *flags, out=y)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """Each dy in equal shares."""
    _avg_pool_dx(spec, _tensor(dy), _tensor(np.empty_like(dx)), _tensor(dx))


def _avg_pool_dx(spec: PoolSpec, dy: Any, x: Any, dx: Any) -> Any:
    """Write to the tensor `dx`; of `x`, only the shape counts."""
    flags = spec.ceil_mode, spec.count_include_pad, None
    return _aten.avg_pool2d_backward.grad_input(dy, x, *_window(spec), *flags, grad_input=dx)


def native(spec: Spec, op: Op, arrays: Arrays) -> Native:
    """Convolutions allocate; pooling also writes to tensors that it is given."""
    tensors = {name: _tensor(array) for name, array in arrays.items()}
    if isinstance(spec, ConvSpec):
        return _native_conv(spec, op, arrays, tensors)
    x, dtype = tensors["x"], tensors["x"].dtype

    def like(shape: tuple[int, ...], kind: Any = dtype) -> Any:
        return torch.empty(shape, dtype=kind)

    def pooled(y: Any, places: Any = None) -> Any:
        if spec.mode == "avg":
            return _avg_pool(spec, x, y)
        return _max_pool(spec, x, y, like(spec.y_shape, torch.int64) if places is None else places)[0]

    def spread(dx: Any) -> Any:
        if spec.mode == "avg":
            return _avg_pool_dx(spec, tensors["dy"], x, dx)
        return _max_pool_dx(spec, tensors["dy"], tensors["indices"], x, dx)

    def shown(result: Any) -> tuple[np.ndarray, ...]:
        return (result.numpy(),)

    if op == "forward":
        y, places = like(spec.y_shape), like(spec.y_shape, torch.int64)
        return Native(lambda: pooled(like(spec.y_shape)), lambda: pooled(y, places), shown)
    dx = like(spec.x_shape)
    return Native(lambda: spread(like(spec.x_shape)), lambda: spread(dx), shown)


def _native_conv(spec: ConvSpec, op: Op, arrays: Arrays, tensors: dict[str, Any]) -> Native:
    x, padding = _padded(spec, arrays["x"])
    if op == "forward":
        w, b = tensors["w"], tensors["b"]
        return Native(lambda: _convolve(spec, x, w, b, padding), None, lambda y: (y.numpy(),))
    w = tensors["w"] if op == "dx" else torch.empty(spec.w_shape, dtype=x.dtype)
    mask = [op == "dx", op == "dw", op == "dw"]

    def shown(found: Any) -> tuple[np.ndarray, ...]:
        dx, dw, db = found
        if op == "dw":
            return dw.numpy(), db.numpy()
        return (crop(spec, dx.numpy()) if uneven(spec) else dx.numpy(),)

    return Native(lambda: _gradients(spec, tensors["dy"], x, w, padding, mask), None, shown)
