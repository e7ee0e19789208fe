"""Interchangeable backends of convolution and pooling behind one interface."""

from collections.abc import Iterable
from typing import Any

from kernels import fork as _fork  # noqa: F401  (registers its hook before anything is launched)
from kernels.choice import choose, explain, use_selection
from kernels.functional import (
    Conv1dGradients,
    Conv2dGradients,
    avg_pool2d,
    avg_pool2d_backward,
    conv1d,
    conv1d_backward,
    conv2d,
    conv2d_backward,
    max_pool2d,
    max_pool2d_backward,
)
from kernels.registry import Backend, available_backends, backends, get_backend, own_backends
from kernels.selection import Selection
from kernels.spec import ConvSpec, PoolSpec, Spec

__all__ = [
    "Backend",
    "Conv1dGradients",
    "Conv2dGradients",
    "ConvSpec",
    "PoolSpec",
    "Selection",
    "Spec",
    "available_backends",
    "avg_pool2d",
    "avg_pool2d_backward",
    "backends",
    "choose",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "explain",
    "get_backend",
    "max_pool2d",
    "max_pool2d_backward",
    "own_backends",
    "tune",
    "use_selection",
]


def tune(specs: Iterable[Spec], **options: Any) -> Selection:
    """Measure the backends on `specs` and let "auto" choose from the result: see `kernels.tuning.tune`."""
    from kernels.tuning import tune as measure

    return measure(specs, **options)
