"""What the peers share: a problem in a library's own tensors, and what a library does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels.arrays import flat_position, pad, windows, winning_tap
from kernels.registry import Op, first_gap
from kernels.spec import PoolSpec, Spec

Arrays = Mapping[str, np.ndarray]
"""The data of a `Problem`: x, w, b, dy, indices, as far as its operation needs them."""


@dataclass(frozen=True)
class Native:
    """An operation with its data in a library's own tensors, to be called again and again.

    `fresh` returns the results in memory that it takes each time; `into` writes them where its call before
    did, and is None where the library cannot. `arrays` shows what either returned as (y,), (dx,) or (dw, db).
    `keeps` is what the library points into without holding it.
    A peer's module offers `native(spec, op, arrays)`; without it, its functions are called on NumPy's arrays.
    It also offers `native_supports(spec, op, dtype)` where `native` can do more than `supports` says.
    """

    fresh: Callable[[], Any]
    into: Callable[[], Any] | None
    arrays: Callable[[Any], tuple[np.ndarray, ...]]
    keeps: Any = None


def uneven(spec: Spec) -> bool:
    """Whether padding differs between the two ends of an axis."""
    return any(before != after for before, after in spec.padding)


def overhangs(spec: PoolSpec) -> bool:
    """Whether `ceil_mode` adds a window that reaches beyond the padding: libraries differ in its divisor."""
    return spec.rows.extent > spec.rows.padded or spec.cols.extent > spec.cols.padded


def inference_gap(library: str, spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Why not, for a runtime for inference: it goes forward in float32, and pools as ONNX says."""
    gaps = {
        f"{library} is for inference, it has no gradients": op != "forward",
        f"{library} computes in float32 here": dtype != np.float32,
    }
    if isinstance(spec, PoolSpec):
        over = max(spec.padding[0]) >= spec.R or max(spec.padding[1]) >= spec.S
        gaps[f"{library} rounds another way in ceil_mode"] = overhangs(spec)
        gaps[f"{library} pads by less than a window, dilation not counted"] = over
    return first_gap(gaps)


def max_pool(
    by_library: Callable[[], None], spec: PoolSpec, x: np.ndarray, y: np.ndarray, indices: np.ndarray | None
) -> None:
    """Fill `y` `by_library`, or by NumPy where x holds NaN or -inf; the maxima's places by NumPy.

    Runtimes for inference make the lowest finite number of both.
    """
    if np.isfinite(x.min()):
        by_library()
    else:
        windows(spec, pad(spec, x, -np.inf)).max(axis=(-2, -1), out=y)
    if indices is not None:
        find_maxima(spec, x, indices)


def find_maxima(spec: PoolSpec, x: np.ndarray, indices: np.ndarray) -> None:
    """Fill `indices` (int64, of y's shape) by NumPy, for libraries that do not tell them as PyTorch does."""
    seen = windows(spec, pad(spec, x, -np.inf))
    indices[...] = flat_position(spec, winning_tap(seen.reshape(*spec.y_shape, -1)))
