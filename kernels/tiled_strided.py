"""The `tiled` backend's convolutions, where 1 x 1 taps have a stride: as at stride 1, on the pixels they see.

Then they are products of matrices (`tiled_matrix`), and no tile reads pixels that lie apart.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kernels import tiled_conv, tiled_dw
from kernels.registry import Op
from kernels.spec import ConvSpec
from kernels.threads import active
from kernels.tiled_phases import join, split
from kernels.tiled_vectors import lanes
from kernels.tiled_work import room

_CALL = 20_000
_VECTOR = {"forward": 70, "dx": 30}
"""What it costs to take them out of rows, or to put them back: once, and for each vector of them; in
multiplications of vectors, see `tiled_plan`. Fitted to some 20 layers on Zen 4."""
_LEAST_DW = 1 << 25
"""FLOPs of dw from which on it pays."""


@lru_cache(maxsize=1024)
def unit(spec: ConvSpec) -> ConvSpec:
    """The convolution of the pixels that 1 x 1 taps see."""
    return ConvSpec(spec.N, spec.C, spec.OH, spec.OW, spec.K, 1, 1, groups=spec.groups)


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    spec, x = _seen(spec, "forward", x)
    tiled_conv.conv_forward(spec, x, w, b, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx; pixels that no window reads get zero."""
    if not _pays(spec, "dx", dx.dtype):
        tiled_conv.conv_dx(spec, dy, w, dx)
        return
    seen = room("pixels", unit(spec).x_shape, dx.dtype)
    tiled_conv.conv_dx(unit(spec), dy, w, seen)
    dx.fill(0)
    join(_as_phases(seen), spec.stride, (spec.H, spec.W), (0, 0), dx)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, from x and dy."""
    spec, x = _seen(spec, "dw", x)
    tiled_dw.conv_dw(spec, dy, x, dw)


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw and db."""
    spec, x = _seen(spec, "dw", x)
    tiled_dw.conv_dw_db(spec, dy, x, dw, db)


def _pays(spec: ConvSpec, op: Op, dtype: np.dtype) -> bool:
    return spec.stride != (1, 1) and pays(spec, op, dtype, active())


@lru_cache(maxsize=1024)
def pays(spec: ConvSpec, op: Op, dtype: np.dtype, threads: int) -> bool:
    """Whether to take the pixels that the taps see out of x, or to put dx's back."""
    if spec.R * spec.S > 1 or spec.padded:
        return False
    if op == "dw":
        return spec.flops >= _LEAST_DW
    apart, together = (tiled_conv.way(each, op, dtype, threads) for each in (spec, unit(spec)))
    assert apart is not None
    assert together is not None
    vectors = spec.N * spec.C * spec.OH * -(-spec.OW // lanes(dtype)) / threads
    return together.cost + _CALL + _VECTOR[op] * vectors < apart.cost


def _seen(spec: ConvSpec, op: Op, x: np.ndarray) -> tuple[ConvSpec, np.ndarray]:
    """The convolution of the pixels that the taps see, and these; or both as given, if that does not pay."""
    if not _pays(spec, op, x.dtype):
        return spec, x
    seen = room("pixels", unit(spec).x_shape, x.dtype)
    split(x, spec.stride, (spec.H, spec.W), (0, 0), _as_phases(seen))
    return unit(spec), seen


def _as_phases(seen: np.ndarray) -> np.ndarray:
    return seen.reshape(-1, 1, 1, *seen.shape[2:])
