"""Ceilings: what follows from them, by hand, and that they can be measured."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ceiling
from benchmarks.ceiling import Ceiling, measure_ceiling
from kernels import ConvSpec, PoolSpec
from kernels.threads import pinned_threads

CEILING = Ceiling(gemm_gflops=100.0, copy_gbs=10.0, dtype="float32", threads=2)


def test_a_convolution_is_bound_by_arithmetic():
    """2 * 16 * 16 * 9 operations on each of 30 x 30 outputs; x of 32 x 32 pixels."""
    spec = ConvSpec(1, 16, 32, 32, 16, 3, 3)
    assert spec.flops == 2 * 16 * 16 * 9 * 900
    assert CEILING.bound(spec) == "arithmetic"
    assert CEILING.attainable_s(spec) == pytest.approx(spec.flops / 100e9)
    assert CEILING.intensity(spec) == pytest.approx(spec.flops / (4 * (16 * 1024 + 16 * 16 * 9 + 16 * 900)))


def test_a_pooling_is_bound_by_memory():
    """64 values in and 16 out, of four bytes, for 64 comparisons."""
    spec = PoolSpec("max", 1, 1, 8, 8, 2, 2)
    assert CEILING.bound(spec) == "memory"
    assert CEILING.attainable_s(spec) == pytest.approx(80 * 4 / 10e9)
    assert CEILING.intensity(spec) == pytest.approx(64 / 320)


def test_the_bounds_meet_at_the_balance():
    assert CEILING.balance == pytest.approx(10)


def test_float64_moves_twice_the_bytes():
    spec = PoolSpec("max", 1, 1, 8, 8, 2, 2)
    double = Ceiling(100.0, 10.0, "float64", 2)
    assert double.attainable_s(spec) == pytest.approx(2 * CEILING.attainable_s(spec))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_it_is_measured_on_the_pinned_threads(monkeypatch, dtype):
    monkeypatch.setattr(ceiling, "GEMM_SIZES", (64, 128))
    monkeypatch.setattr(ceiling, "COPY_BYTES", (2**20, 2**21))
    with pinned_threads(1):
        found = measure_ceiling(dtype)
    assert (found.dtype, found.threads) == (dtype, 1)
    assert found.gemm_gflops > 0.01
    assert found.copy_gbs > 0.01


def test_sizes_that_would_take_too_long_are_left_out(monkeypatch):
    tried = []
    monkeypatch.setattr(ceiling, "GEMM_SIZES", (32, 10**6))
    monkeypatch.setattr(ceiling, "_settled_s", lambda call: tried.append(call.args[0].shape) or 1e-3)
    assert ceiling._gemm_gflops("float32") == pytest.approx(2 * 32**3 / 1e-3 / 1e9)
    assert tried == [(32, 32)]


def test_the_compiled_copy_copies():
    pytest.importorskip("numba")
    from benchmarks.numba_copy import copy

    source = np.random.default_rng(0).standard_normal((7, 33))
    for work in (0, 10**9):
        target = np.zeros_like(source)
        copy(work, source, target)
        np.testing.assert_array_equal(target, source)
