"""The judge itself: it lets right results pass, and no wrong one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from kernel_cases import CONVS, POOLS

from kernels import ConvSpec, PoolSpec, registry
from kernels.problem import Problem
from kernels.registry import ops_of

SPECS = [CONVS["groups"], CONVS["1-D causal"], POOLS["max padding"], POOLS["avg 3x3 s1"]]
PROBLEMS = [(spec, op) for spec in SPECS for op in ops_of(spec)]


@pytest.mark.parametrize(("spec", "op"), PROBLEMS)
def test_judge_passes_the_rounded_reference(spec, op) -> None:
    problem = Problem.random(spec, op)
    verdict = problem.judge("loops", tuple(array.astype(np.float32) for array in problem.reference))
    assert verdict.wrong is None
    assert verdict.error < 1e-7


@pytest.mark.parametrize(("spec", "op"), PROBLEMS)
@pytest.mark.parametrize("wrong", [1e-3, np.nan, np.inf])
def test_judge_notices_one_wrong_element(spec, op, wrong: float) -> None:
    problem = Problem.random(spec, op)
    results = tuple(array.astype(np.float32) for array in problem.reference)
    results[-1].flat[-1] += wrong
    assert "more than rounding explains" in problem.judge("loops", results).wrong


@pytest.mark.parametrize(("spec", "op"), PROBLEMS)
def test_judge_notices_shape_and_dtype(spec, op) -> None:
    problem = Problem.random(spec, op)
    assert "of float64; expected" in problem.judge("loops", problem.reference).wrong
    right = tuple(array.astype(np.float32) for array in problem.reference)
    flat = tuple(array.reshape(-1, 1) for array in right)
    assert "expected" in problem.judge("loops", flat).wrong


def test_judge_by_a_stated_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tolerance is relative to the largest output, and takes the place of the rounding bound."""
    rough = dataclasses.replace(registry.get_backend("loops"), name="rough", tolerance=1e-2)
    monkeypatch.setitem(registry._BACKENDS, "rough", rough)
    problem = Problem.random(CONVS["dense"], "forward")
    y = problem.reference[0].astype(np.float32)
    largest = np.abs(y).max()
    y[0, 0, 0, 0] += 0.009 * largest
    assert problem.judge("rough", (y,)).wrong is None
    assert problem.judge("loops", (y,)).wrong is not None
    y[0, 0, 0, 0] += 0.002 * largest
    assert problem.judge("rough", (y,)).wrong is not None


def test_bounds_hold_a_thousandfold_cancellation() -> None:
    """The bound is about the terms, not the sum: a sum that cancels may be off by more than itself."""
    spec = ConvSpec(1, 3, 1, 1, 1, 1, 1)
    arrays = {
        "x": np.array([1e8, 1.0, -1e8], np.float32).reshape(1, 3, 1, 1),
        "w": np.ones((1, 3, 1, 1), np.float32),
        "b": np.zeros(1, np.float32),
    }
    problem = Problem(spec, "forward", arrays)
    assert problem.reference[0].item() == 1.0
    assert 1.0 < problem.bounds[0].item() < 100.0


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.descriptor)
def test_data_is_the_same_for_the_same_seed(spec: ConvSpec | PoolSpec) -> None:
    for make in (Problem.random, Problem.integers):
        first, again, other = make(spec, "dx", seed=3), make(spec, "dx", seed=3), make(spec, "dx", seed=4)
        assert first.arrays.keys() == again.arrays.keys()
        for name, array in first.arrays.items():
            np.testing.assert_array_equal(array, again.arrays[name])
        assert not np.array_equal(first.arrays["dy"], other.arrays["dy"])


@pytest.mark.parametrize("spec", [POOLS["avg ceil, exclude"], POOLS["avg four paddings, exclude"]])
def test_integers_for_averages_divide_evenly(spec: PoolSpec) -> None:
    """Several divisors in one layer, and still nothing to round."""
    assert len(np.unique(spec.divisors)) > 2
    for op in ops_of(spec):
        for expected in Problem.integers(spec, op).reference:
            np.testing.assert_array_equal(expected, np.rint(expected))


def test_a_given_x_is_used() -> None:
    x = np.arange(36, dtype=np.float64).reshape(1, 1, 6, 6)
    problem = Problem.random(ConvSpec(1, 1, 6, 6, 2, 3, 3), "forward", np.float64, x=x)
    assert problem.arrays["x"] is x
    assert problem.dtype == np.float64


@pytest.mark.parametrize("spec", [*CONVS.values(), *POOLS.values()], ids=str)
def test_training_shares_its_data(spec):
    problems = Problem.of_training(spec)
    assert tuple(problems) == ops_of(spec)
    for op, problem in problems.items():
        assert problem.op == op
        assert problem.arrays["x"] is problems["forward"].arrays["x"]
        results = problem.run("einsum")
        assert problem.judge("einsum", results).wrong is None
        again = problem.run("einsum", results)
        assert all(np.shares_memory(one, other) for one, other in zip(again, results, strict=True))


def test_forward_of_max_pooling_in_training_gives_indices():
    problem = Problem.of_training(PoolSpec("max", 2, 3, 8, 8, 2, 2))["forward"]
    y, indices = problem.run("einsum")
    assert indices.dtype == np.int64
    indices[0, 0, 0, 0] += 1
    assert problem.judge("einsum", (y, indices)).wrong.startswith("indices is off")
