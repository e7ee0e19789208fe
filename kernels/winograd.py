"""Winograd's convolution: 3 x 3 kernels with a fraction of the multiplications, for some more rounding.

F(4 x 4, 3 x 3), which multiplies 36 times for 16 outputs where the formula does 144 times, or F(2 x 2, 3 x 3)
where outputs are few: A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016. In
float32 the largest error was 1e-6 to 5e-6 of the largest output for up to 512 channels, and 1.2e-5 for 4096;
in float64 below 1e-13. A tile of outputs is made of sums and differences of a tile of inputs: a NaN or an
infinity among these may reach all outputs of the tile, those too whose windows do not see it.
"""

from __future__ import annotations

import numpy as np

from kernels.registry import Op, first_gap, lacking
from kernels.spec import PoolSpec, Spec
from kernels.tiled_db import conv_db
from kernels.winograd_conv import conv_dx, conv_forward
from kernels.winograd_dw import conv_dw
from kernels.winograd_transforms import KERNEL

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
    """Convolutions with kernels of 3 x 3 at stride 1, without dilation."""
    if isinstance(spec, PoolSpec):
        return "Winograd's method has no pooling"
    return first_gap(
        {
            f"kernel is {spec.R}x{spec.S}; Winograd's transforms are for 3x3": (spec.R, spec.S)
            != (KERNEL, KERNEL),
            f"stride is {spec.stride}; Winograd's tiles need 1": spec.stride != (1, 1),
            f"dilation is {spec.dilation}; Winograd's tiles need 1": spec.dilation != (1, 1),
        }
    )


max_pool_forward = max_pool_dx = avg_pool_forward = avg_pool_dx = lacking("winograd")
