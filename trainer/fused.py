"""An optimizer's step in one pass over memory, where NumPy's takes one for each operation."""

from __future__ import annotations

from numba import prange

from kernels.jit import Kernel


@Kernel
def momentum_step(values, slopes, velocity, lr, momentum):
    """velocity = momentum velocity + slopes; values -= lr velocity; all flat and of one dtype."""
    for i in prange(len(values)):
        velocity[i] = momentum * velocity[i] + slopes[i]
        values[i] -= lr * velocity[i]
