"""What `backend="auto"` stands for."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import DTypeLike

from kernels.registry import Op, available_backends, get_backend
from kernels.spec import Spec

PREFERENCE = ("numba", "im2col", "einsum", "window", "loops")
"""The order in which backends are tried: the fastest on most layers first. Peers are never among them."""


def choose(spec: Spec, op: Op, dtype: DTypeLike) -> str:
    """The name of the backend that "auto" uses for `op` ("forward", "dx" or "dw") of `spec` in `dtype`."""
    if op not in get_args(Op):
        raise ValueError(f"op is {op!r}; expected one of {', '.join(get_args(Op))}")
    available = available_backends()
    for name in PREFERENCE:
        if name in available and get_backend(name).unsupported(spec, op, np.dtype(dtype)) is None:
            return name
    raise ValueError(f"no backend supports {op} of {spec.descriptor} in {np.dtype(dtype)}")
