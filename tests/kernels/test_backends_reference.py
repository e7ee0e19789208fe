"""Every backend against the float64 reference: integers exactly, then floats within rounding."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_cases import CONVS, DTYPES, LAYERS, POOLS, assert_same, cases

import kernels
from kernels import ConvSpec, PoolSpec, Spec
from kernels.problem import Problem
from kernels.registry import Op, ops_of

# Big enough that compiled loops go parallel, and that runs, planes and matrices span several blocks.
LARGE = {
    "conv": ConvSpec(5, 8, 23, 30, 7, 3, 3, padding=1),
    "conv, stride and groups": ConvSpec(9, 12, 31, 29, 18, 3, 5, stride=(2, 3), groups=2, padding=(1, 2)),
    "max": PoolSpec("max", 4, 12, 41, 38, 3, 3, stride=2, padding=1),
    "max, all strides 1": PoolSpec("max", 4, 16, 24, 22, 3, 3, stride=1, padding=1),
    "avg": PoolSpec("avg", 5, 16, 40, 43, 3, 3, stride=2, padding=1, ceil_mode=True),
}


def check_integers(backend: str, spec: Spec, op: Op, dtype: type) -> None:
    problem = Problem.integers(spec, op, dtype)
    results = problem.run(backend)
    assert len(results) == len(problem.reference)
    for result, expected in zip(results, problem.reference, strict=True):
        assert result.dtype == dtype
        assert_same(kernels.get_backend(backend), result, expected)


@pytest.mark.parametrize(("backend", "spec", "op", "dtype"), cases(LAYERS))
def test_integers_are_exact(backend: str, spec: Spec, op: Op, dtype: type) -> None:
    check_integers(backend, spec, op, dtype)


@pytest.mark.parametrize(("backend", "spec", "op", "dtype"), cases(LAYERS))
def test_floats_are_within_rounding(backend: str, spec: Spec, op: Op, dtype: type) -> None:
    problem = Problem.random(spec, op, dtype, seed=1)
    verdict = problem.judge(backend, problem.run(backend))
    assert verdict.wrong is None


def quick_cases() -> list[object]:
    """The large layers are left out for backends that would take seconds over each."""
    return [case for case in cases(LARGE, (np.float32,)) if case.values[0] not in ("loops",)]


@pytest.mark.parametrize(("backend", "spec", "op", "dtype"), quick_cases())
def test_large_layers(backend: str, spec: Spec, op: Op, dtype: type) -> None:
    check_integers(backend, spec, op, dtype)
    problem = Problem.random(spec, op, dtype)
    assert problem.judge(backend, problem.run(backend)).wrong is None


@pytest.mark.parametrize(
    "spec", [spec for spec in POOLS.values() if spec.mode == "max"], ids=lambda spec: spec.descriptor
)
def test_max_pool_indices_point_at_the_maxima(on, spec: PoolSpec) -> None:
    """Few values, hence many ties: the first in row-major order wins, found here by looking at all taps."""
    x = np.random.default_rng(2).integers(-2, 3, spec.x_shape).astype(np.float32)
    window = {"stride": spec.stride, "padding": spec.padding, "dilation": spec.dilation}
    kernel_size = spec.R, spec.S
    y, indices = on.max_pool2d(x, kernel_size, **window, ceil_mode=spec.ceil_mode, return_indices=True)
    assert indices.dtype == np.int64
    assert y.shape == indices.shape == spec.y_shape
    rows, cols = spec.rows.taps(), spec.cols.taps()
    for n, c, oh, ow in np.ndindex(*spec.y_shape):
        seen = [
            (-x[n, c, ih, iw], ih * spec.W + iw)
            for ih in rows[oh]
            for iw in cols[ow]
            if 0 <= ih < spec.H and 0 <= iw < spec.W
        ]
        best, where = min(seen)
        assert (y[n, c, oh, ow], indices[n, c, oh, ow]) == (-best, where)


@pytest.mark.parametrize("name", kernels.available_backends())
def test_no_available_backend_is_skipped_everywhere(name: str) -> None:
    tested = {(case.values[1].kind, case.values[2]) for case in cases(LAYERS) if case.values[0] == name}
    assert tested, f"{name} declares every case unsupported"


def test_the_cases_cover_all_there_is() -> None:
    """For the backends without gaps: each layer, operation and dtype."""
    complete = sum(len(ops_of(spec)) for spec in LAYERS.values()) * len(DTYPES)
    for name in ("loops", "window", "im2col", "einsum", "numba"):
        assert sum(case.values[0] == name for case in cases(LAYERS)) == complete
    assert {spec.kind for spec in LAYERS.values()} == {"conv2d", "conv1d", "max_pool2d", "avg_pool2d"}
    assert any(spec.groups == spec.C > 1 for spec in CONVS.values())
