"""One pass over memory by all threads, where NumPy takes a pass for each operation, by one thread.

As with all of `jit`'s kernels, the first argument of a `Kernel` is the number of operations to expect.
"""

from __future__ import annotations

import math

from numba import prange

from kernels.jit import Kernel, in_order

MEMORY_BOUND = 8
"""Operations of the loops that `jit` has in mind, in the time that a number takes, which another core has
written: as training steps show."""


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


@in_order
def cross_entropy(logits, labels, gradient):
    """The mean over rows of -log(softmax of the label); gradient = (softmax - one hot) / rows."""
    rows, classes = logits.shape
    total = 0.0
    for i in range(rows):
        most = logits[i, 0]
        for c in range(1, classes):
            most = max(most, logits[i, c])
        below = 0.0
        for c in range(classes):
            gradient[i, c] = math.exp(logits[i, c] - most)  # at most 1: exp does not overflow
            below += gradient[i, c]
        for c in range(classes):
            gradient[i, c] = (gradient[i, c] / below - (c == labels[i])) / rows
        total += math.log(below) - (logits[i, labels[i]] - most)
    return total / rows
