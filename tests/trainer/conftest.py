"""A fixture over the registry: whatever backend is added computes the networks too."""

from __future__ import annotations

import numpy as np
import pytest

import kernels

LAYERS = kernels.ConvSpec(1, 1, 9, 9, 1, 5, 5, stride=2), kernels.PoolSpec("max", 1, 1, 4, 4, 2, 2)


def computes_networks(name: str) -> bool:
    """Whether it is no peer, not all of which have gradients, and has all layers."""
    backend = kernels.get_backend(name)
    if backend.peer or backend.unavailable:
        return not backend.peer
    return not any(backend.unsupported(spec, "forward", np.dtype(np.float32)) for spec in LAYERS)


@pytest.fixture(params=filter(computes_networks, kernels.backends()))
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn that computes whole networks.

    One that is unavailable is skipped with its reason.
    """
    reason = kernels.get_backend(request.param).unavailable
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param
