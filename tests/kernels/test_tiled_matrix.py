"""Products of matrices by register tiles: whatever lies in rows or in columns, and on other CPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from other_cpus import on_other_cpus, run_on

import kernels
from kernels import ConvSpec, jit
from kernels.tiled_matrix import Cut, Product, conv_dw_db, correlate, matmul, plan

SHAPES = [(1, 1, 1), (2, 3, 5), (7, 600, 33), (19, 17, 64), (13, 1100, 70), (40, 5, 129)]
"""Rows, depth, columns: parts of tiles and of panels, and more terms than are summed at a time."""
LAYERS = {
    "long planes": ConvSpec(3, 5, 30, 40, 19, 1, 1),
    "several images at a time": ConvSpec(70, 33, 3, 5, 65, 1, 1),
    "groups": ConvSpec(5, 12, 9, 9, 18, 1, 1, groups=3),
    "many channels": ConvSpec(2, 1100, 4, 9, 24, 1, 1),
    "whole panels": ConvSpec(1, 600, 8, 16, 100, 1, 1),
}
SCRIPT = """
from test_tiled_matrix import LAYERS, SHAPES, assert_layer_right, assert_right
for spec in LAYERS.values():
    assert_layer_right(spec)
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


@pytest.mark.parametrize("spec", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("parallel", [False, True])
def test_layers(spec, parallel, monkeypatch):
    monkeypatch.setattr(jit, "_LEAST_PARALLEL_WORK", 0 if parallel else 1 << 60)
    assert_layer_right(spec)


def assert_layer_right(spec):
    """All operations, whether they are computed so or not."""
    rng = np.random.default_rng(0)
    x, w, b, dy = (
        rng.integers(-4, 5, shape).astype(np.float32)
        for shape in (spec.x_shape, spec.w_shape, (spec.K,), spec.y_shape)
    )
    y, dx, dw, db = (np.full_like(like, np.nan) for like in (dy, x, w, b))
    asked = np.dtype(np.float32), 2
    correlate(plan(Cut.of_layer(spec, "forward", *asked)), x, w, b, y)
    correlate(plan(Cut.of_layer(spec, "dx", *asked)), dy, w, np.empty(0, np.float32), dx)
    conv_dw_db(plan(Cut.of_dw(spec, *asked)), dy, x, dw, db)
    np.testing.assert_array_equal(y, kernels.conv2d(x, w, b, groups=spec.groups, backend="im2col"))
    expected = kernels.conv2d_backward(dy, x, w, groups=spec.groups, backend="im2col")
    for found, right in zip((dx, dw, db), expected, strict=True):
        np.testing.assert_array_equal(found, right)


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
