"""SciPy: one direct correlation per image and filter, of which a stride keeps every so manieth output.

`scipy.signal.correlate`, method "direct", on one thread. P. Virtanen et al., "SciPy 1.0: Fundamental
Algorithms for Scientific Computing in Python", 2020.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import correlate

from kernels.arrays import grouped, pad
from kernels.registry import Op, first_gap, lacking
from kernels.spec import ConvSpec, PoolSpec, Spec


def supports(spec: Spec, op: Op, dtype: np.dtype) -> str | None:
    """Convolution forward, without dilation."""
    return first_gap(
        {
            "scipy.signal has no pooling": isinstance(spec, PoolSpec),
            "scipy.signal has no gradients": op != "forward",
            "scipy.signal has no dilation": spec.dilation != (1, 1),
        }
    )


def conv_forward(spec: ConvSpec, x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y[n, k] = x[n] correlated with w[k] over the channels of its group, and over rows and columns."""
    padded = pad(spec, x)
    images = padded.reshape(spec.N, spec.groups, spec.C // spec.groups, *padded.shape[2:])
    outputs = y.reshape(spec.N, spec.groups, spec.K // spec.groups, spec.OH, spec.OW)
    (sh, sw), filters = spec.stride, grouped(spec, w)
    for n, g, k in np.ndindex(*outputs.shape[:3]):
        dense = correlate(images[n, g], filters[g, k], "valid", "direct")[0]
        outputs[n, g, k] = dense[::sh, ::sw][: spec.OH, : spec.OW]
    if b is not None:
        y += b[:, None, None]


conv_dx = conv_dw = conv_db = lacking("scipy.signal")
max_pool_forward = max_pool_dx = avg_pool_forward = avg_pool_dx = lacking("scipy.signal")
