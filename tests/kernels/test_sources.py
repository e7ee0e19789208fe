"""Caches of compiled code know what it was compiled from."""

from __future__ import annotations

import pytest

import kernels.winograd  # noqa: F401  (its modules are loaded)
from kernels import sources


@pytest.mark.parametrize(
    ("changed", "counts"),
    [
        ("kernels.winograd_filters", True),
        ("kernels.winograd_tiles", True),
        ("kernels.tiled_vectors", True),
        ("kernels.winograd_dw", False),
        ("kernels.numba_conv", False),
    ],
)
def test_what_is_imported_counts(changed: str, counts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers of other files are compiled into what calls them."""
    module = "kernels.winograd_filters"
    before = sources.digest(module)
    read = sources._source
    monkeypatch.setattr(sources, "_source", lambda name: read(name) + "#" * (name == changed))
    assert (sources.digest.__wrapped__(module) != before) == counts


def test_imports_of_modules_count() -> None:
    """`from kernels import fork` imports a module, and `from kernels.spec import ...` something of one."""
    found: set[str] = set()
    sources._gather("kernels.jit", found)
    assert {"kernels.jit", "kernels.fork", "kernels.sources"} <= found
