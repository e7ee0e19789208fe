"""Products of matrices by register tiles: whatever lies in rows or in columns, and on other CPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from other_cpus import on_other_cpus, run_on

from kernels import jit
from kernels.tiled_matrix import Cut, Product, matmul

SHAPES = [(1, 1, 1), (2, 3, 5), (7, 600, 33), (19, 17, 64), (13, 1100, 70), (40, 5, 129)]
"""Rows, depth, columns: parts of tiles and of panels, and more terms than are summed at a time."""
SCRIPT = """
from test_tiled_matrix import SHAPES, assert_right
for shape in SHAPES:
    for order in ("CC", "CF", "FC", "FF"):
        assert_right(shape, order, "float32")
"""


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("order", ["CC", "CF", "FC", "FF"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("parallel", [False, True])
def test_products(shape, order, dtype, parallel, monkeypatch):
    monkeypatch.setattr(jit, "_LEAST_PARALLEL_WORK", 0 if parallel else 1 << 60)
    assert_right(shape, order, dtype)


def assert_right(shape, order, dtype):
    """With integers, whose sums are exact."""
    rng = np.random.default_rng(0)
    rows, depth, columns = shape
    a, b = (
        np.asarray(rng.integers(-4, 5, size), dtype, order=each)
        for size, each in zip([(rows, depth), (depth, columns)], order, strict=True)
    )
    out = np.full((rows, columns), np.nan, dtype)
    matmul(a, b, out)
    np.testing.assert_array_equal(out, a @ b)


def test_views_of_larger_matrices():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-4, 5, (20, 30)).astype(np.float32) for _ in range(2))
    out = np.empty((10, 9), np.float32)
    matmul(a[::2, :15], b[5:, 3:12], out)
    np.testing.assert_array_equal(out, a[::2, :15] @ b[5:, 3:12])


def test_all_threads_get_work():
    for rows, columns in ((32, 64), (256, 48), (32, 2048)):
        cut = Cut.of(Product(rows, 500, columns, upright=True), np.dtype(np.float32), 2)
        assert cut.tasks >= 2
        assert cut.tasks % 2 == 0 or cut.tasks >= 4


@on_other_cpus
def test_other_cpus(tmp_path: Path, cpu: str, features: str, bits: int) -> None:
    run_on(cpu, features, bits, tmp_path, SCRIPT)
