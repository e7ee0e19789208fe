"""Cross-checking backends on whole suites, without timing them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.options import Options
from benchmarks.run import Case, Run, cases, problem_of
from kernels import get_backend
from kernels.forecast import shrink
from kernels.problem import Problem
from kernels.registry import EXACT
from kernels.spec import Spec
from kernels.threads import pinned_threads

CALLS = 2
"""A check calls a backend on integers and on random numbers."""


@dataclass(frozen=True)
class Checked:
    """What became of a case: its largest error, or why it was skipped, or what is wrong.

    `smaller` is the layer that was checked in its place where the layer itself would break the budget.
    """

    case: Case
    error: float | None = None
    skipped: str | None = None
    wrong: str | None = None
    smaller: Spec | None = None


def check(options: Options) -> Iterator[Checked]:
    """Compare every case of `options` with the float64 reference, one after the other.

    A backend that raises an error is wrong, and the others go on.
    """
    run = Run(options, CALLS)
    with pinned_threads(options.threads):
        for case in cases(options):
            try:
                yield _check(case, run)
            except Exception as error:
                yield Checked(case, wrong=f"{type(error).__name__}: {error}")


def _check(case: Case, run: Run) -> Checked:
    obstacle = run.obstacle(case)
    if obstacle:
        return Checked(case, skipped=obstacle)
    forecast = run.forecast(case)
    if forecast.fits:
        return _compare(case)
    affordable = case.layer.flops * run.forecaster.allowed_s / forecast.call_s
    smaller = shrink(case.layer, int(affordable))
    return replace(_compare(replace(case, layer=smaller)), case=case, smaller=smaller)


def _compare(case: Case) -> Checked:
    """Integers first, which an exact backend must get exactly; then the error on random numbers."""
    if get_backend(case.backend).tolerance == EXACT:
        integers = Problem.integers(case.layer, case.op, case.dtype)
        results = integers.run(case.backend)
        if not all(map(np.array_equal, results, integers.reference)):
            return Checked(case, wrong="differs from the reference on integers")
    problem = problem_of(case.layer, case.op, case.dtype)
    verdict = problem.judge(case.backend, problem.run(case.backend))
    return Checked(case, verdict.error, wrong=verdict.wrong)
