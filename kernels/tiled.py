"""Register tiles emitted for the machine's vectors: as fast as NumPy and Numba alone get."""

from __future__ import annotations

from kernels.registry import everything
from kernels.tiled_db import conv_db
from kernels.tiled_pool import avg_pool_dx, avg_pool_forward, max_pool_dx, max_pool_forward
from kernels.tiled_strided import conv_dw, conv_dw_db, conv_dx, conv_forward

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

supports = everything
