"""Fixtures over the registry: whatever backend is added is tested without anyone remembering to."""

from __future__ import annotations

import pytest
from kernel_cases import Calls, backend_params


@pytest.fixture(params=backend_params())
def backend(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    return request.param


@pytest.fixture
def on(backend: str) -> Calls:
    """The public functions on each backend in turn."""
    return Calls(backend)
