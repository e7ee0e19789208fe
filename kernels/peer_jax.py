"""JAX on the CPU: XLA's convolutions and window reductions, compiled once for each layer.

R. Frostig, M. J. Johnson, C. Leary, "Compiling machine learning programs via high-level tracing", 2018.
Gradients are those of `jax.vjp`. XLA starts its threads once in a process, one for each core that it may then
use: it gets fewer by restricting the process to fewer cores before the first call, as `convbench peers` does.
"""

from __future__ import annotations

import importlib
from functools import lru_cache, partial
from typing import Any

import numpy as np

from kernels.peer import Arrays, Native, find_maxima
from kernels.registry import Op, first_gap, lacking
from kernels.spec import ConvSpec, PoolSpec, Spec

jax: Any = importlib.import_module("jax")
_CPU = jax.devices("cpu")[0]


def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """float32; max pooling's gradient goes to the maxima that XLA finds itself, not to given indices."""
    return native_supports(spec, op, dtype) or first_gap(
        {"JAX takes no indices of maxima": op == "dx" and _is_max(spec)}
    )


def native_supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """As `supports`, and the gradient of max pooling, which finds the maxima of x again."""
    dilated = spec.dilation != (1, 1)
    return first_gap(
        {
            "JAX computes in float32 unless a whole process asks for more": dtype != np.float32,
            "JAX has no gradient of dilated max pooling": op == "dx" and _is_max(spec) and dilated,
        }
    )


def _is_max(spec: Spec) -> bool:
    return isinstance(spec, PoolSpec) and spec.mode == "max"


def _put(array: np.ndarray) -> Any:
    return jax.device_put(array, _CPU)


def _convolve(spec: ConvSpec, x: Any, w: Any) -> Any:
    return jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=spec.stride,
        padding=spec.padding,
        rhs_dilation=spec.dilation,
        feature_group_count=spec.groups,
        precision="highest",
    )


def _ends(spec: PoolSpec) -> tuple[tuple[int, int], ...]:
    """The padding, with as much at the ends as the last windows need."""
    rows, cols = spec.rows, spec.cols
    below = max(rows.after, rows.extent - rows.before - rows.size)
    right = max(cols.after, cols.extent - cols.before - cols.size)
    return (0, 0), (0, 0), (rows.before, below), (cols.before, right)


def _reduce(spec: PoolSpec, x: Any, first: float, combine: Any) -> Any:
    return jax.lax.reduce_window(
        x,
        np.float32(first),
        combine,
        window_dimensions=(1, 1, spec.R, spec.S),
        window_strides=(1, 1, *spec.stride),
        padding=_ends(spec),
        window_dilation=(1, 1, *spec.dilation),
    )


def _maximum(spec: PoolSpec, x: Any) -> Any:
    return _reduce(spec, x, -np.inf, jax.lax.max)


def _average(spec: PoolSpec, x: Any) -> Any:
    return _reduce(spec, x, 0.0, jax.lax.add) / spec.divisors.astype(np.float32)


@lru_cache(maxsize=256)
def _compiled(spec: Spec, what: str) -> Any:
    """The function of one layer and operation."""
    if isinstance(spec, PoolSpec):
        if what == "forward":
            return jax.jit(partial(_average if spec.mode == "avg" else _maximum, spec))
        if spec.mode == "avg":
            return jax.jit(lambda dy: _vjp(partial(_average, spec), spec.x_shape, dy))
        return jax.jit(lambda dy, x: jax.vjp(partial(_maximum, spec), x)[1](dy)[0])
    if what == "dx":
        return jax.jit(lambda dy, w: _vjp(lambda x: _convolve(spec, x, w), spec.x_shape, dy))
    if what == "dw":
        return jax.jit(lambda dy, x: _vjp(lambda w: _convolve(spec, x, w), spec.w_shape, dy))
    if what == "db":
        return jax.jit(lambda dy: dy.sum((0, 2, 3)))
    if what == "dw, db":
        dw = _compiled(spec, "dw")
        return jax.jit(lambda dy, x: (dw(dy, x), dy.sum((0, 2, 3))))
    return jax.jit(lambda x, w, b: _convolve(spec, x, w) + b[:, None, None])


def _vjp(function: Any, shape: tuple[int, ...], dy: Any) -> Any:
    """The gradient of a function that is linear, so that it does not matter where."""
    return jax.vjp(function, jax.numpy.zeros(shape, np.float32))[1](dy)[0]


def _run(spec: Spec, what: str, *arrays: np.ndarray) -> np.ndarray:
    return np.asarray(_compiled(spec, what)(*map(_put, arrays)))


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y by `lax.conv_general_dilated`."""
    y[...] = _run(spec, "forward", x, w, np.zeros(spec.K, np.float32) if b is None else b)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx by `jax.vjp`."""
    dx[...] = _run(spec, "dx", dy, w)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw by `jax.vjp`."""
    dw[...] = _run(spec, "dw", dy, x)


def conv_db(spec: ConvSpec, dy: np.ndarray, db: np.ndarray) -> None:
    """db[k] = the sum of dy[:, k]."""
    db[...] = _run(spec, "db", dy)


def max_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None) -> None:
    """y by `lax.reduce_window`; the maxima's places by NumPy."""
    y[...] = _run(spec, "forward", x)
    if indices is not None:
        find_maxima(spec, x, indices)


max_pool_dx = lacking("JAX")


def avg_pool_forward(spec: PoolSpec, x: np.ndarray, y: np.ndarray) -> None:
    """The sum of each window, divided."""
    y[...] = _run(spec, "forward", x)


def avg_pool_dx(spec: PoolSpec, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx by `jax.vjp`."""
    dx[...] = _run(spec, "dx", dy)


def native(spec: Spec, op: Op, arrays: Arrays) -> Native:
    """Arrays of JAX never change: results are always new ones."""
    names = {"forward": ("x", "w", "b"), "dx": ("dy", "x" if _is_max(spec) else "w"), "dw": ("dy", "x")}[op]
    given = [_put(arrays[name]) for name in names if name in arrays]
    function = _compiled(spec, "dw, db" if op == "dw" else op)

    def shown(result: Any) -> tuple[np.ndarray, ...]:
        return tuple(map(np.asarray, result if op == "dw" else (result,)))

    return Native(lambda: jax.block_until_ready(function(*given)), None, shown)
