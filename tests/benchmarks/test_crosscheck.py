"""The cross-check: known ratios, both tools on a call that is known, and the command."""

from __future__ import annotations

import importlib.util
import time

import pytest
from typer.testing import CliRunner

import convbench
from benchmarks import crosscheck as module
from benchmarks.crosscheck import Checked, Turn, crosscheck, default_tool, tool_named
from kernels.problem import Problem

NAP_S = 0.01


def checked(*ratios: float, backend: str = "im2col") -> Checked:
    """A call that takes 1 ms by the other tool, and such ratios of it by ours."""
    problem = Problem.random(module.LAYER, "forward")
    return Checked(problem, backend, 1e-3, [ratio * 1e-3 for ratio in ratios], [1e-3] * len(ratios))


def test_the_ratio_is_the_median_of_those_within_rounds():
    found = Checked(Problem.random(module.LAYER, "forward"), "im2col", 1.0, [1.0, 4.0, 9.0], [1.0, 2.0, 10.0])
    assert found.quartiles == pytest.approx((0.95, 1.0, 1.5))
    assert found.medians_s == (4.0, 2.0)


@pytest.mark.parametrize(
    ("ratio", "agrees"), [(1.0, True), (1.049, True), (1.051, False), (0.96, True), (0.95, False)]
)
def test_they_agree_within_the_limit_in_both_directions(ratio, agrees):
    assert checked(ratio, ratio, 3.0).agrees is agrees


@pytest.mark.parametrize("tool", ["timeit", pytest.param("torch", marks=pytest.mark.torch)])
def test_tools_time_a_nap(tool):
    if tool == "torch":
        pytest.importorskip("torch")
    begin = time.perf_counter()
    measured_s = tool_named(tool)(lambda: time.sleep(NAP_S), NAP_S)
    assert NAP_S <= measured_s < time.perf_counter() - begin


def test_both_time_the_same_calls_in_turn(monkeypatch):
    """A call that sleeps is timed by pytest-benchmark: no shorter than the nap, nor longer than the test."""
    order = []

    def tool(call, call_s):
        order.append("other")
        call()
        return NAP_S

    def run(self, backend):
        order.append("call")
        time.sleep(NAP_S)

    monkeypatch.setattr(module, "MOST_PASSES", 1)
    monkeypatch.setattr(module, "tool_named", lambda name: tool)
    monkeypatch.setattr(Problem, "run", run)
    begin = time.perf_counter()
    (found,) = crosscheck(1, "timeit", ["im2col"], [NAP_S], rounds=2)
    assert len(found.ours_s) == len(found.others_s) == 2
    assert min(found.ours_s) >= NAP_S
    assert sum(found.ours_s) < time.perf_counter() - begin
    others = [number for number, what in enumerate(order) if what == "other"]
    # The other tool is second in the first round and first in the next: nothing of ours is between them.
    assert others[1] - others[0] == 2


def test_where_they_differ_there_are_more_rounds(monkeypatch):
    """By the other tool, a call takes a hundredth of its time in the first pass, then all of it."""
    taken = []

    def ours(self, benchmark):
        benchmark.pedantic(lambda: None)
        self.checked.ours_s.append(NAP_S)

    def tool(call, call_s):
        taken.append(1)
        return NAP_S / 100 if len(taken) <= 2 else NAP_S

    monkeypatch.setattr(Turn, "_ours", ours)
    monkeypatch.setattr(module, "tool_named", lambda name: tool)
    (found,) = crosscheck(1, "timeit", ["im2col"], [1e-5], rounds=2)
    # After two of four rounds the median of the ratios is half way to 100: it takes a third pass.
    assert len(found.ours_s) == 6
    assert found.agrees


def test_the_batch_grows_until_the_call_is_long_enough(monkeypatch):
    monkeypatch.setattr(module, "_quick_s", lambda problem, backend: 3e-5 * problem.spec.N)
    assert [module._sized("im2col", target_s).batch for target_s in (1e-5, 5e-5, 1e-3)] == [1, 2, 32]


def test_failing_turns_are_not_hidden(monkeypatch):
    def tool(call, call_s):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(module, "tool_named", lambda name: tool)
    with pytest.raises(RuntimeError, match=r"pytest ended with exit code 1:[\s\S]*out of luck"):
        crosscheck(1, "timeit", ["im2col"], [1e-5], rounds=1)


def test_the_default_is_pytorch_where_it_is(monkeypatch):
    assert default_tool() == ("torch" if importlib.util.find_spec("torch") else "timeit")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert default_tool() == "timeit"
    with pytest.raises(ValueError, match="--tool is 'torch', which is not installed"):
        tool_named("torch")
    with pytest.raises(ValueError, match="--tool is 'perf'; expected one of torch, timeit"):
        tool_named("perf")


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([checked(1.01), checked(0.99)], 0, "Both see the same times, to within 5%."),
        ([checked(1.01), checked(1.2)], 1, "1 of 2 ratios are further than 5% from 1."),
    ],
)
def test_the_command_exits_with_1_where_they_differ(monkeypatch, found, status, words):
    monkeypatch.setattr(module, "crosscheck", lambda threads, tool: found)
    done = CliRunner().invoke(convbench.app, ["crosscheck", "--tool", "timeit"])
    assert done.exit_code == status
    assert words in done.output
    assert done.output.splitlines()[0].split() == [
        "backend", "batch", "pytest-benchmark", "timeit", "rounds", "ratio", "quartiles"
    ]  # fmt: skip
    assert [line.split()[-1] for line in done.output.splitlines()[1:3]] == [
        "agree" if each.agrees else "differ" for each in found
    ]


def test_a_real_round_measures_something():
    found = crosscheck(1, "timeit", ["im2col"], [1e-5], rounds=1)
    assert [each.backend for each in found] == ["im2col"]
    assert found[0].ours_s[0] > 0
    assert found[0].others_s[0] > 0
