"""How near backends come to the ceilings, case by case: a small benchmark that saves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from benchmarks.ceiling import Ceiling
from benchmarks.options import Options
from benchmarks.run import Case, Run, cases, problem_of
from kernels.measure import median_s
from kernels.threads import pinned_threads
from kernels.tuning import judge_affordably

CASE_S = 0.5
"""Seconds that a case may take, and"""
LEAST_SHARE = 0.2
"""the share of the attainable speed below which one that would take longer is skipped."""


@dataclass(frozen=True)
class Reached:
    """A case with its median seconds, or why there are none: `skipped`, or `wrong`."""

    case: Case
    median_s: float | None = None
    skipped: str | None = None
    wrong: str | None = None


def reached(options: Options, ceiling: Ceiling) -> Iterator[Reached]:
    """Check and time every case of `options`, one after the other; a backend that raises is wrong."""
    run = Run(options)
    with pinned_threads(options.threads):
        for case in cases(options):
            try:
                yield _reached(case, run, ceiling)
            except Exception as error:
                yield Reached(case, wrong=f"{type(error).__name__}: {error}")


def _reached(case: Case, run: Run, ceiling: Ceiling) -> Reached:
    obstacle = run.obstacle(case)
    if obstacle:
        return Reached(case, skipped=obstacle)
    forecast = run.forecast(case)
    if not forecast.fits and ceiling.attainable_s(case.layer) < LEAST_SHARE * forecast.call_s:
        return Reached(case, skipped=f"predicted {forecast.call_s:.2g} s a call")
    problem = problem_of(case.layer, case.op, case.dtype)
    call_s, results = run.forecaster.first_calls.run(problem, case.backend)
    wrong = judge_affordably(problem, case.backend, results).wrong
    if wrong:
        return Reached(case, wrong=wrong)
    del results
    seconds = median_s(partial(problem.run, case.backend), call_s)
    run.forecaster.record(case.layer, case.op, case.backend, case.dtype, seconds)
    return Reached(case, seconds)
