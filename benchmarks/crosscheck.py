"""Whether another tool sees the same times: pytest-benchmark, as it is used here, beside another timer.

Both time the same call in one process, in turns of a tenth of a second. What pytest-benchmark measures goes
the way of a benchmark run: its fixture, `pedantic`, the same numbers of rounds, no garbage collection.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import time
import timeit
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.inputs import make_problem
from kernels.measure import TIMED_S, rounds_for, seconds_of, warm_up_rounds_for
from kernels.problem import Problem
from kernels.spec import ConvSpec
from kernels.threads import active, pinned_threads

LAYER = ConvSpec.parse('mb1ic6ih12oc16oh8kh5n"lenet:conv2"')
"""It is called with as many images as make a call take about"""
TARGETS_S = (50e-6, 1e-3, 10e-3)
BACKENDS = ("im2col", "tiled")
"""BLAS and NumPy, and compiled loops."""
QUICK_CALLS = 15
ROUNDS = 11
MOST_PASSES = 3
"""Where the tools differ after so many rounds, there are as many again; all of them count."""
LIMIT = 0.05
"""The tools agree where their ratio is within that of 1."""
TOOLS = ("torch", "timeit")
_TURNS = Path(__file__).with_name("crosscheck_turns.py")

Tool = Callable[[Callable[[], Any], float], float]
Call = Callable[[], Any]


@dataclass
class Checked:
    """A call that both tools time, and the median seconds that they found in each round."""

    problem: Problem
    backend: str
    call_s: float
    ours_s: list[float] = field(default_factory=list)
    others_s: list[float] = field(default_factory=list)

    @property
    def batch(self) -> int:
        """Images a call."""
        return self.problem.spec.N

    @property
    def medians_s(self) -> tuple[float, float]:
        """Over the rounds: ours, and the other's."""
        return median(self.ours_s), median(self.others_s)

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of our time over the other's, which is taken within rounds."""
        ratios = np.divide(self.ours_s, self.others_s)
        q1, q2, q3 = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
        return q1, q2, q3

    @property
    def agrees(self) -> bool:
        """Whether the median of the ratios is within the limit."""
        return abs(math.log(self.quartiles[1])) <= math.log1p(LIMIT)


@dataclass(frozen=True)
class Turn:
    """One round of one call; which tool comes first changes from round to round."""

    checked: Checked
    tool: Tool
    number: int

    def take(self, benchmark: Any) -> None:
        """Time the call with both; `benchmark` is pytest-benchmark's fixture."""
        ours, other = self._ours, self._other
        for measure in (ours, other) if self.number % 2 == 0 else (other, ours):
            measure(benchmark)

    def _ours(self, benchmark: Any) -> None:
        checked = self.checked
        benchmark.pedantic(
            checked.problem.run,
            args=(checked.backend,),
            rounds=rounds_for(checked.call_s),
            warmup_rounds=warm_up_rounds_for(checked.call_s),
        )
        checked.ours_s.append(benchmark.stats.stats.median)

    def _other(self, _: Any) -> None:
        checked = self.checked
        seconds = self.tool(lambda: checked.problem.run(checked.backend), checked.call_s)
        checked.others_s.append(seconds)


def crosscheck(
    threads: int,
    tool: str | None = None,
    backends: Sequence[str] = BACKENDS,
    targets_s: Sequence[float] = TARGETS_S,
    rounds: int = ROUNDS,
) -> list[Checked]:
    """Time calls of about `targets_s` seconds by pytest-benchmark and by `tool`, in turn.

    Raises ValueError for a tool that is unknown or not installed, RuntimeError where pytest fails.
    """
    measure = tool_named(tool or default_tool())
    with pinned_threads(threads):
        checked = [_sized(backend, target_s) for target_s in targets_s for backend in backends]
        for _ in range(MOST_PASSES):
            pending = [each for each in checked if not (each.ours_s and each.agrees)]
            if pending:
                _take([Turn(each, measure, number) for number in range(rounds) for each in pending])
    return checked


def _sized(backend: str, target_s: float) -> Checked:
    """The layer with the batch, a power of two, whose call comes nearest to `target_s` from below."""
    batch, found = 1, None
    while True:
        problem = make_problem(LAYER.with_batch(batch), "forward", "float32")
        call_s = _quick_s(problem, backend)
        if found is not None and call_s > 1.4 * target_s:
            return found
        found = Checked(problem, backend, call_s)
        if call_s > 0.7 * target_s:
            return found
        batch *= 2


def _quick_s(problem: Problem, backend: str) -> float:
    """Seconds of a warm call that nothing disturbs."""
    times = []
    for _ in range(QUICK_CALLS):
        time.sleep(1e-3)  # threads that share a core (see `doctor.waiting`) may wake up on another one
        times.append(seconds_of(lambda: problem.run(backend))[0])
    return min(times)


def _take(turns: Sequence[Turn]) -> None:
    """Have pytest run the turns, so that they get pytest-benchmark's fixture."""

    class Plugin:
        @staticmethod
        def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
            metafunc.parametrize("turn", turns, ids=range(len(turns)))

    said = io.StringIO()
    arguments = [
        "--noconftest",
        "-p",
        "no:cacheprovider",
        "--benchmark-disable-gc",
        "--benchmark-quiet",
        "-q",
    ]
    with redirect_stdout(said):
        status = pytest.main([str(_TURNS), *arguments], plugins=[Plugin()])
    if status != pytest.ExitCode.OK:
        raise RuntimeError(f"pytest ended with exit code {status}:\n{said.getvalue()}")


def default_tool() -> str:
    """PyTorch's timer where it is installed, else Python's."""
    return "torch" if importlib.util.find_spec("torch") else "timeit"


def tool_named(name: str) -> Tool:
    """The function that gives the median seconds of a call. Raises ValueError."""
    if name not in TOOLS:
        raise ValueError(f"--tool is {name!r}; expected one of {', '.join(TOOLS)}")
    if name == "timeit":
        return _by_timeit
    if importlib.util.find_spec("torch") is None:
        raise ValueError("--tool is 'torch', which is not installed: pip install 'convbench[torch]'")
    return _by_torch


def _by_torch(call: Call, call_s: float) -> float:
    """`torch.utils.benchmark.Timer`: blocks long against the clock; the median of their means."""
    timer: Any = importlib.import_module("torch.utils.benchmark").Timer
    measured = timer("call()", globals={"call": call}, num_threads=active())
    seconds: float = measured.blocked_autorange(min_run_time=TIMED_S).median
    return seconds


def _by_timeit(call: Call, call_s: float) -> float:
    """Python's `timeit.Timer`, a call at a time, after as many to warm up as pytest-benchmark gets."""
    timer = timeit.Timer("call()", globals={"call": call})
    timer.timeit(warm_up_rounds_for(call_s))
    return median(timer.repeat(rounds_for(call_s), 1))
