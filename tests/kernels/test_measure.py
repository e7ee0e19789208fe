"""How a case is measured."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import ConvSpec
from kernels.im2col import STRIP_BYTES
from kernels.measure import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    FirstCalls,
    Memory,
    median_s,
    rounds_for,
    traced_peak,
    warm_up_rounds_for,
)
from kernels.problem import Problem


def test_peak_memory_is_that_of_the_call():
    kept = np.zeros(1_000_000)
    assert traced_peak(lambda: np.ones(500_000)) == pytest.approx(4_000_000, rel=0.01)
    assert traced_peak(lambda: [np.ones(500_000), np.ones(500_000)].clear()) == pytest.approx(
        8_000_000, rel=0.01
    )
    assert traced_peak(lambda: kept.max()) < 10_000


def test_im2col_holds_a_strip_of_its_matrix():
    problem = Problem.random(ConvSpec(4, 8, 32, 32, 8, 3, 3, padding=1), "forward")
    output, matrix = int(np.prod(problem.spec.y_shape)) * 4, problem.spec.im2col_bytes(np.float32)
    assert matrix < STRIP_BYTES
    assert traced_peak(lambda: problem.run("im2col")) > output + matrix
    assert traced_peak(lambda: problem.run("einsum")) < matrix


def test_im2col_holds_no_more_than_a_strip():
    for spec in (ConvSpec(40, 8, 32, 32, 8, 3, 3, padding=1), ConvSpec(1, 32, 80, 80, 8, 3, 3)):
        assert spec.im2col_bytes(np.float32) > 1.5 * STRIP_BYTES
        for op in ("forward", "dx", "dw"):
            problem = Problem.random(spec, op)
            out = problem.run("im2col")
            assert problem.judge("im2col", out).wrong is None
            padded = 4 * spec.C * spec.rows.padded * spec.cols.padded * spec.N
            assert traced_peak(lambda p=problem, out=out: p.run("im2col", out)) < STRIP_BYTES + 1.5 * padded


@pytest.mark.parametrize("call_s", [1e-6, 1e-3, 0.05, 10.0])
def test_rounds_stay_within_their_bounds(call_s):
    assert MIN_ROUNDS <= rounds_for(call_s) <= MAX_ROUNDS
    assert 0 <= warm_up_rounds_for(call_s) <= MAX_ROUNDS


def test_only_compiling_backends_have_a_first_call():
    problem = Problem.random(ConvSpec(1, 1, 8, 8, 1, 3, 3), "forward")
    calls = FirstCalls()
    for backend in ("im2col", "numba"):
        seconds, (y,) = calls.run(problem, backend)
        assert seconds > 0
        assert y.shape == problem.spec.y_shape
    assert calls.take_s("im2col") is None
    assert calls.take_s("numba") >= 0
    assert calls.take_s("numba") == 0


def test_memory_is_left_out_where_tracing_would_break_the_budget():
    problem = Problem.random(ConvSpec(1, 1, 8, 8, 1, 3, 3), "forward")
    memory = Memory(budget_s=1.0)
    assert memory.peak_bytes(problem, "im2col", call_s=0.5) is None
    assert memory.peak_bytes(problem, "im2col", call_s=0.05) > 0
    # By now it is known how little tracing costs.
    assert memory.peak_bytes(problem, "im2col", call_s=0.5) > 0


def test_the_median_is_over_warm_rounds_only():
    calls = []
    assert 0 < median_s(lambda: calls.append(1), call_s=0.05) < 0.05
    assert len(calls) == MIN_ROUNDS
    calls.clear()
    median_s(lambda: calls.append(1), call_s=0.01)
    assert len(calls) == warm_up_rounds_for(0.01) + rounds_for(0.01) == 2 + 10
