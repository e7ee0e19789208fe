"""Write torch_vectors.npz: what PyTorch computes for a few dozen layers, kept for where it is not installed.

Run `python tests/kernels/make_torch_vectors.py` with PyTorch 2.13; the file comes out the same, byte for
byte. Entry `cases` is JSON, a list of {"function", "arguments"}; the arrays of case i are called
"i.x", "i.w", ..., "i.dx". All data is integer-valued, so that every result is exact in float64; what is
averaged is a multiple of 2520 = lcm(1, ..., 10), which all windows of up to ten taps divide.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

PATH = Path(__file__).with_name("torch_vectors.npz")
EVENLY = 2520

# x, w, arguments.
CONV2D: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 6, 5), (4, 3, 3, 2), {}),
    ((2, 2, 7, 8), (3, 2, 3, 3), {"stride": 2, "padding": 1}),
    ((1, 2, 8, 9), (2, 2, 2, 3), {"stride": [3, 2], "padding": [2, 1], "dilation": [2, 3]}),
    ((2, 4, 5, 6), (6, 2, 3, 3), {"groups": 2, "padding": "same"}),
    ((1, 4, 6, 5), (4, 1, 3, 3), {"groups": 4, "stride": 2, "padding": 1}),
    ((1, 3, 6, 6), (6, 1, 2, 2), {"groups": 3, "padding": "valid"}),
    ((1, 2, 3, 4), (2, 2, 2, 2), {"padding": [3, 4], "stride": [2, 3]}),
    ((1, 2, 6, 7), (2, 2, 4, 2), {"padding": "same"}),
    ((1, 2, 7, 6), (2, 2, 3, 4), {"padding": "same", "dilation": [1, 2]}),
    ((2, 4, 4, 3), (5, 4, 1, 1), {"stride": 2}),
    ((2, 3, 4, 5), (2, 3, 4, 5), {}),
    ((3, 5, 6), (2, 3, 2, 3), {"padding": [0, 1]}),
]
CONV1D: list[tuple[Any, Any, dict[str, Any]]] = [
    ((2, 3, 9), (4, 3, 3), {}),
    ((2, 2, 10), (3, 2, 4), {"stride": 3, "padding": 2}),
    ((1, 4, 9), (4, 2, 3), {"groups": 2, "dilation": 2, "padding": "same"}),
    ((1, 2, 8), (2, 2, 4), {"padding": "same"}),
    ((3, 7), (2, 3, 2), {"padding": 3}),
]
# x, arguments.
MAX_POOL2D: list[tuple[Any, dict[str, Any]]] = [
    ((2, 2, 6, 4), {"kernel_size": 2}),
    ((2, 2, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((1, 2, 8, 6), {"kernel_size": [3, 2], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True}),
    ((1, 2, 6, 7), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((1, 2, 5, 5), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
    ((1, 2, 9, 8), {"kernel_size": [2, 3], "stride": 1, "dilation": [3, 2]}),
    ((1, 2, 9, 8), {"kernel_size": 3, "stride": 2, "dilation": 2, "padding": 1, "ceil_mode": True}),
    ((2, 6, 6), {"kernel_size": 3, "stride": 1, "padding": 1}),
    ((1, 2, 4, 5), {"kernel_size": [4, 5]}),
]
AVG_POOL2D: list[tuple[Any, dict[str, Any]]] = [
    (x, {**window, "count_include_pad": include})
    for include in (True, False)
    for x, window in (
        ((2, 2, 6, 4), {"kernel_size": 2}),
        ((1, 2, 7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
        ((1, 2, 6, 5), {"kernel_size": 3, "stride": 1, "padding": 1}),
        ((1, 2, 8, 6), {"kernel_size": [3, 2], "stride": [2, 3], "padding": [1, 0], "ceil_mode": True}),
        ((1, 2, 6, 7), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
        ((1, 2, 5, 5), {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True}),
        ((2, 5, 6), {"kernel_size": [2, 3], "stride": [1, 2]}),
    )
]


def convolution(
    function: str, x_shape: Any, w_shape: Any, arguments: dict[str, Any], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    shapes = {"x": x_shape, "w": w_shape, "b": w_shape[:1]}
    given = {name: rng.integers(-4, 5, shape).astype(np.float64) for name, shape in shapes.items()}
    x, w, b = (torch.tensor(array, requires_grad=True) for array in given.values())
    y = getattr(functional, function)(x, w, b, **arguments)
    dy = rng.integers(-4, 5, y.shape).astype(np.float64)
    y.backward(torch.tensor(dy))
    results = {"y": y.detach(), "dx": x.grad, "dw": w.grad, "db": b.grad}
    return {**given, "dy": dy, **{name: value.numpy() for name, value in results.items()}}


def strewn(kind: str, shape: Any, rng: np.random.Generator) -> np.ndarray:
    """Data that tries max pooling: many ties; NaN, several in a window; -inf, windows full of it."""
    x = rng.integers(-2, 3, shape).astype(np.float64)
    if kind in ("nan", "all"):
        x[rng.random(shape) < 0.2] = np.nan
    if kind in ("inf", "all"):
        x[rng.random(shape) < 0.6] = -np.inf
        x[rng.random(shape) < 0.1] = np.inf
    return x


def max_pooling(arguments: dict[str, Any], x: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    leaf = torch.tensor(x, requires_grad=True)
    y, indices = functional.max_pool2d(leaf, **arguments, return_indices=True)
    dy = rng.integers(-4, 5, y.shape).astype(np.float64)
    y.backward(torch.tensor(dy))
    return {"x": x, "dy": dy, "y": y.detach().numpy(), "indices": indices.numpy(), "dx": leaf.grad.numpy()}


def avg_pooling(arguments: dict[str, Any], shape: Any, rng: np.random.Generator) -> dict[str, np.ndarray]:
    x = EVENLY * rng.integers(-4, 5, shape).astype(np.float64)
    leaf = torch.tensor(x, requires_grad=True)
    y = functional.avg_pool2d(leaf, **arguments)
    dy = EVENLY * rng.integers(-4, 5, y.shape).astype(np.float64)
    y.backward(torch.tensor(dy))
    return {"x": x, "dy": dy, "y": y.detach().numpy(), "dx": leaf.grad.numpy()}


def compact(array: np.ndarray) -> np.ndarray:
    """In the smallest dtype that holds the values."""
    if not np.isfinite(array).all():
        return array.astype(np.float32)
    for dtype in (np.int8, np.int16, np.int32):
        if (array == array.astype(dtype)).all():
            return array.astype(dtype)
    raise ValueError("a result is no integer; expected data on which every result is exact")


def main() -> None:
    rng = np.random.default_rng(13)
    cases, arrays = [], []
    for function, table in (("conv2d", CONV2D), ("conv1d", CONV1D)):
        for x_shape, w_shape, arguments in table:
            cases.append({"function": function, "arguments": arguments})
            arrays.append(convolution(function, x_shape, w_shape, arguments, rng))
    for x_shape, arguments in MAX_POOL2D:
        for kind in ("ties", "nan", "inf", "all"):
            cases.append({"function": "max_pool2d", "arguments": arguments, "data": kind})
            arrays.append(max_pooling(arguments, strewn(kind, x_shape, rng), rng))
    for x_shape, arguments in AVG_POOL2D:
        cases.append({"function": "avg_pool2d", "arguments": arguments})
        arrays.append(avg_pooling(arguments, x_shape, rng))
    flat = {
        f"{number}.{name}": compact(array)
        for number, case in enumerate(arrays)
        for name, array in case.items()
    }
    np.savez_compressed(PATH, cases=np.array(json.dumps(cases)), **flat)
    print(
        f"{PATH.name}: {len(cases)} cases, {PATH.stat().st_size / 1000:.0f} kB, PyTorch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
