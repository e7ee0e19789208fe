"""One pass over memory by all threads, where NumPy takes a pass for each operation, by one thread.

As with all of `jit`'s kernels, the first argument is the number of operations to expect.
"""

from __future__ import annotations

from numba import prange

from kernels.jit import Kernel

MEMORY_BOUND = 4
"""Operations of the loops that `jit` has in mind, in the time that memory takes for a number."""


@Kernel
def momentum_step(values, slopes, velocity, lr, momentum):
    """velocity = momentum velocity + slopes; values -= lr velocity; all flat and of one dtype."""
    for i in prange(len(values)):
        velocity[i] = momentum * velocity[i] + slopes[i]
        values[i] -= lr * velocity[i]


@Kernel
def rectify(x, y):
    """y = max(x, 0), flat; NaN stays; y may be x."""
    zero = x.dtype.type(0)
    for i in prange(len(x)):
        y[i] = zero if x[i] <= 0 else x[i]


@Kernel
def rectify_gradient(dy, y, dx):
    """dx = 0 where y is 0, else dy, flat; dx may be dy."""
    zero = dy.dtype.type(0)
    for i in prange(len(dy)):
        dx[i] = zero if y[i] <= 0 else dy[i]


@Kernel
def outer_product(a, b, product):
    """product (A, B) = a (A,) times b (B,)."""
    for i in prange(len(a)):
        for j in range(len(b)):
            product[i, j] = a[i] * b[j]
