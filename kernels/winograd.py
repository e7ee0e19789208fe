"""Winograd's convolution: small kernels with a fraction of the multiplications, for some more rounding.

F(4 x 4, 3 x 3) multiplies 36 times for 16 outputs, where the formula does 144 times, and F(4 x 4, 5 x 5) 64
times rather than 400; F(2 x 2, R x S) serves where outputs are few: A. Lavin, S. Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016. In float32 the largest error was 2e-6 of the largest output with 3
taps, and 9e-6 with 4 and 5, for up to 4096 channels, and in dw 50,000 tiles. In float64 it was below 1e-13.

A tile of outputs is made of sums and differences of a tile of inputs: a NaN or an infinity among these may
reach all outputs of the tile, those too whose windows do not see it.
"""

from __future__ import annotations

import numpy as np

from kernels.registry import Op, first_gap, lacking
from kernels.spec import PoolSpec, Spec
from kernels.tiled_db import conv_db
from kernels.winograd_conv import conv_dx, conv_forward
from kernels.winograd_dw import conv_dw
from kernels.winograd_transforms import TAPS

__all__ = [
    "avg_pool_dx",
    "avg_pool_forward",
    "conv_db",
    "conv_dw",
    "conv_dx",
    "conv_forward",
    "max_pool_dx",
    "max_pool_forward",
    "supports",
]


def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Convolutions with kernels of 2 x 2 to 5 x 5 at stride 1, without dilation."""
    if isinstance(spec, PoolSpec):
        return "Winograd's method has no pooling"
    return first_gap(
        {
            f"kernel is {spec.R}x{spec.S}; Winograd's transforms are for 2x2 to 5x5": not (
                spec.R in TAPS and spec.S in TAPS
            ),
            f"stride is {spec.stride}; Winograd's tiles need 1": spec.stride != (1, 1),
            f"dilation is {spec.dilation}; Winograd's tiles need 1": spec.dilation != (1, 1),
        }
    )


max_pool_forward = max_pool_dx = avg_pool_forward = avg_pool_dx = lacking("winograd")
