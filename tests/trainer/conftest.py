"""A fixture over the registry: whatever backend is added computes the networks too."""

from __future__ import annotations

import pytest

import kernels


@pytest.fixture(params=kernels.backends())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn; one that is unavailable is skipped with its reason."""
    reason = kernels.get_backend(request.param).unavailable
    if reason:
        pytest.skip(f"{request.param}: {reason}")
    return request.param
