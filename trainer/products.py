"""Products of matrices for Linear layers: by compiled loops wherever BLAS would take all its threads.

These are others than those of the layers around, and either would have to be woken up.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from kernels.jit import Kernel
from kernels.tiled_matrix import matmul
from trainer.fused import MEMORY_BOUND

_COLUMNS = 256
"""Of a matrix, whose sums stay in the first-level cache."""
_WAKES_BLAS = 900_000
_WAKES_BLAS_FOR_A_VECTOR = 100_000
"""Multiplications from which on BLAS takes all its threads."""


def multiply(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """out (A, B) = a (A, D) times b (D, B), as by `numpy.matmul`; `out` is C-contiguous."""
    rows, depth = a.shape
    operations = a.size * b.shape[1]
    if not a.dtype == b.dtype == out.dtype:
        np.matmul(a, b, out=out)
    elif depth == 1:  # BLAS takes ten times as long
        outer_product(MEMORY_BOUND * operations, a.ravel(), b.ravel(), out)
    elif rows == 1 and operations >= _WAKES_BLAS_FOR_A_VECTOR:
        if b.flags.c_contiguous:
            times_rows(MEMORY_BOUND * operations, a[0], b, out[0])
        else:
            rows_times(MEMORY_BOUND * operations, b.T, a[0], out[0])
    elif operations >= _WAKES_BLAS:
        matmul(a, b, out)
    else:
        np.matmul(a, b, out=out)


@Kernel
def outer_product(a, b, product):
    """product (A, B) = a (A,) times b (B,)."""
    for i in prange(len(a)):
        for j in range(len(b)):
            product[i, j] = a[i] * b[j]


@Kernel
def rows_times(w, x, y):
    """y (A,) = w (A, B) times x (B,)."""
    for i in prange(len(w)):
        total = w.dtype.type(0)
        for j in range(len(x)):
            total += w[i, j] * x[j]
        y[i] = total


@Kernel
def times_rows(dy, w, dx):
    """dx (B,) = dy (A,) times w (A, B)."""
    for block in prange((len(dx) + _COLUMNS - 1) // _COLUMNS):
        columns = slice(block * _COLUMNS, (block + 1) * _COLUMNS)
        sums = dx[columns]
        sums[:] = 0
        for i in range(len(dy)):
            row = w[i, columns]
            for j in range(len(sums)):
                sums[j] += dy[i] * row[j]
