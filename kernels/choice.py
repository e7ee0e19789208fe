"""What `backend="auto"` stands for."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import DTypeLike

from kernels.registry import Op, get_backend
from kernels.spec import Spec

PREFERENCE = ("numba", "im2col", "einsum", "window", "loops")
"""The order in which backends are tried: the fastest on most layers first. Peers are never among them."""


def choose(spec: Spec, op: Op, dtype: DTypeLike) -> str:
    """The name of the backend that "auto" uses for `op` ("forward", "dx" or "dw") of `spec` in `dtype`."""
    if op not in get_args(Op):
        raise ValueError(f"op is {op!r}; expected one of {', '.join(get_args(Op))}")
    dtype = np.dtype(dtype)
    if dtype not in (np.float32, np.float64):
        raise ValueError(f"dtype is {dtype}; expected float32 or float64")
    for name in PREFERENCE:
        backend = get_backend(name)
        if not backend.unavailable and backend.unsupported(spec, op, dtype) is None:
            return name
    raise ValueError(f"no backend supports {op} of {spec.descriptor} in {dtype}")
