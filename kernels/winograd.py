"""Winograd's convolution: small kernels with a fraction of the multiplications, for some more rounding.

F(4 x 4, 3 x 3) multiplies 36 times for 16 outputs, where the formula does 144 times, and F(4 x 4, 5 x 5) 64
times rather than 400; F(2 x 2, R x S) serves where outputs are few: A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016. At a stride it multiplies as at stride 1 a kernel of R x S strides,
rounded up: see `winograd_strided`. At stride 2 and with 3 or 4 taps, tiles are made of phases: see
`winograd_transforms`. In float32 the largest error was 2e-6 of the largest output with 3 taps, and 9e-6 with
4 and 5, for up to 4096 channels, and in dw 50,000 tiles. In float64 it was below 1e-13.

A tile of outputs is made of sums and differences of a tile of inputs: a NaN or an infinity among these may
reach all outputs of the tile, those too whose windows do not see it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from kernels import winograd_conv, winograd_dw, winograd_strided
from kernels.registry import Op, first_gap, lacking
from kernels.spec import ConvSpec, PoolSpec, Spec
from kernels.tiled_db import conv_db
from kernels.winograd_plan import tiles_have_strides
from kernels.winograd_strided import unit_taps
from kernels.winograd_transforms import TAPS

__all__ = [
    "avg_pool_dx",
    "avg_pool_forward",
    "conv_db",
    "conv_dw",
    "conv_dw_db",
    "conv_dx",
    "conv_forward",
    "max_pool_dx",
    "max_pool_forward",
    "supports",
]


@lru_cache(maxsize=1024)
def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Convolutions without dilation whose kernels are of 2 x 2 to 5 x 5 strides, rounded up."""
    if isinstance(spec, PoolSpec):
        return "Winograd's method has no pooling"
    taps = unit_taps(spec)
    phases = "" if spec.stride == (1, 1) else f", of {taps[0]}x{taps[1]} at stride {spec.stride}"
    return first_gap(
        {
            f"kernel is {spec.R}x{spec.S}{phases}; Winograd's transforms are for 2x2 to 5x5": not (
                taps[0] in TAPS and taps[1] in TAPS
            ),
            f"dilation is {spec.dilation}; Winograd's tiles need 1": spec.dilation != (1, 1),
        }
    )


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = x correlated with w, plus b."""
    method = winograd_conv if tiles_have_strides(spec) else winograd_strided
    method.conv_forward(spec, x, w, b, y)


def conv_dx(spec: ConvSpec, dy: np.ndarray, w: np.ndarray, dx: np.ndarray) -> None:
    """dx, as a correlation of dy."""
    method = winograd_conv if tiles_have_strides(spec) else winograd_strided
    method.conv_dx(spec, dy, w, dx)


def conv_dw(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray) -> None:
    """dw, as a sum over tiles."""
    conv_dw_db(spec, dy, x, dw, np.empty(spec.K, x.dtype))


def conv_dw_db(spec: ConvSpec, dy: np.ndarray, x: np.ndarray, dw: np.ndarray, db: np.ndarray) -> None:
    """dw, and db from the same dy."""
    method = winograd_dw if tiles_have_strides(spec) else winograd_strided
    method.conv_dw_db(spec, dy, x, dw, db)


max_pool_forward = max_pool_dx = avg_pool_forward = avg_pool_dx = lacking("winograd")
