"""A fixture over the registry: whatever backend is added computes the networks too."""

from __future__ import annotations

import pytest

import kernels

OWN = [name for name in kernels.backends() if not kernels.get_backend(name).peer]


@pytest.fixture(params=OWN)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn, without peers, not all of which have gradients.

    One that is unavailable is skipped with its reason.
    """
    reason = kernels.get_backend(request.param).unavailable
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param
