"""A backend timed against itself: how large a difference between two backends this machine invents.

Known as an A/A test (R. Kohavi, D. Tang, Y. Xu, "Trustworthy Online Controlled Experiments", 2020, chapter
19). Two sides take turns, in blocks like those of a benchmark run, each with fresh arrays of the same data.
Whatever their medians differ by is the machine's doing. Backends of a run may be further apart in time than
the two sides here, so that this is the least that it invents.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.doctor import Finding
from benchmarks.options import Options
from benchmarks.origin import machine, now
from benchmarks.run import Case, Run, cases, problem_of
from kernels.files import replacing
from kernels.measure import TIMED_S, WARM_UP_S, median_s, rounds_for, warm_up_rounds_for
from kernels.problem import Problem
from kernels.threads import pinned_threads
from kernels.tuning import judge_affordably

VERSION = 1
SECONDS = 2.0
"""Of timing, for each case, at most, but for"""
LEAST_REPEATS = 3
"""of them; a block of short calls takes less than its share of the time."""
CLASSES_S = (1e-4, 1e-3)
"""Calls are told apart by what they take: short ones are disturbed by more."""

TimeBlock = Callable[[Callable[[], Any], float], float]


@dataclass(frozen=True)
class Same:
    """A case with the median seconds of both sides in each repeat; or why there are none."""

    case: Case
    pairs_s: tuple[tuple[float, float], ...] = ()
    skipped: str | None = None
    wrong: str | None = None

    @property
    def distances(self) -> list[float]:
        """|log(a / b)| of each repeat."""
        return [abs(math.log(a / b)) for a, b in self.pairs_s]

    @property
    def median_s(self) -> float:
        """Seconds of a call."""
        return float(np.median(self.pairs_s))


@dataclass(frozen=True)
class Invented:
    """Differences between equals, as fractions (0.06: one takes 6 % longer) of `pairs` pairs."""

    median: float
    p95: float
    worst: float
    pairs: int

    @classmethod
    def of(cls, found: Iterable[Same]) -> Invented:
        """From the distances of all repeats, of which there must be one at least."""
        distances = [distance for each in found for distance in each.distances]
        median, p95, worst = np.expm1(np.quantile(distances, [0.5, 0.95, 1.0])).tolist()
        return cls(median, p95, worst, len(distances))

    def __str__(self) -> str:
        """What follows for whoever compares."""
        return (
            f"Differences below {_percent_up(self.p95)} between two backends mean nothing on this machine "
            f"today: so far apart were 95 % of {self.pairs} pairs of equal sides, half of them less than "
            f"{_percent_up(self.median)}."
        )


def _percent_up(fraction: float) -> str:
    """In whole per cent, or tenths below one, rounded up."""
    digits = 0 if fraction > 0.01 else 1
    # Rounding first takes off what binary fractions add: 0.07 is not 8 %.
    return f"{math.ceil(round(fraction * 100 * 10**digits, 6)) / 10**digits:g} %"


def time_block(call: Callable[[], Any], call_s: float) -> float:
    """Median seconds of a block of calls of about `call_s` seconds, as in a run: warmed up, without gc."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        return median_s(call, call_s)
    finally:
        if collecting:
            gc.enable()


def measure_same(
    options: Options, seconds: float = SECONDS, time_block: TimeBlock = time_block
) -> Iterator[Same]:
    """Check each case of `options`, then time it against itself; a backend that raises is wrong.

    `seconds` of timing for each case, at most. `time_block` gives the median seconds of a block of calls.
    """
    run = Run(options)
    with pinned_threads(options.threads):
        for case in cases(options):
            try:
                yield _same(case, run, seconds, time_block)
            except Exception as error:
                yield Same(case, wrong=f"{type(error).__name__}: {error}")


def _same(case: Case, run: Run, seconds: float, time_block: TimeBlock) -> Same:
    obstacle = run.obstacle(case)
    if obstacle:
        return Same(case, skipped=obstacle)
    forecast = run.forecast(case)
    if not forecast.fits:
        return Same(case, skipped=f"predicted {forecast.call_s:.2g} s a call, over the budget")
    problem = problem_of(case.layer, case.op, case.dtype)
    call_s, results = run.forecaster.first_calls.run(problem, case.backend)
    wrong = judge_affordably(problem, case.backend, results).wrong
    if wrong:
        return Same(case, wrong=wrong)
    del results
    pairs = [
        _pair(problem, case.backend, call_s, number, time_block) for number in range(repeats(call_s, seconds))
    ]
    found = Same(case, tuple(pairs))
    run.forecaster.record(case.layer, case.op, case.backend, case.dtype, found.median_s)
    return found


def repeats(call_s: float, seconds: float) -> int:
    """As many as fit, of two blocks each; `LEAST_REPEATS` at least.

    Short calls get no more of them than others: each case should weigh the same.
    """
    block_s = max(TIMED_S + WARM_UP_S, call_s * (warm_up_rounds_for(call_s) + rounds_for(call_s)))
    return max(LEAST_REPEATS, int(seconds / (2 * block_s)))


def _pair(
    problem: Problem, backend: str, call_s: float, number: int, time_block: TimeBlock
) -> tuple[float, float]:
    """The seconds of sides a and b, of which the one that comes first changes from repeat to repeat."""
    sides = [
        replace(problem, arrays={name: array.copy() for name, array in problem.arrays.items()})
        for _ in range(2)
    ]
    first, second = (0, 1) if number % 2 == 0 else (1, 0)
    seconds = {side: time_block(partial(sides[side].run, backend), call_s) for side in (first, second)}
    return seconds[0], seconds[1]


def by_layer(found: Iterable[Same]) -> dict[tuple[str, int, str], list[Same]]:
    """What has times, by layer, batch and backend."""
    groups: dict[tuple[str, int, str], list[Same]] = {}
    for each in found:
        if each.pairs_s:
            groups.setdefault((each.case.name, each.case.layer.N, each.case.backend), []).append(each)
    return groups


def by_duration(found: Iterable[Same]) -> dict[tuple[float, float], list[Same]]:
    """What has times, by the bounds between which its calls take, in seconds; no empty classes."""
    edges = (0.0, *CLASSES_S, math.inf)
    groups: dict[tuple[float, float], list[Same]] = {bounds: [] for bounds in pairwise(edges)}
    for each in found:
        if each.pairs_s:
            bounds = next((low, high) for low, high in groups if low <= each.median_s < high)
            groups[bounds].append(each)
    return {bounds: members for bounds, members in groups.items() if members}


def save(
    path: Path, found: Sequence[Same], options: Options, seconds: float, findings: Sequence[Finding]
) -> Path:
    """Write all of it as JSON to `path`, and the pairs as CSV beside it, whose path is returned."""
    rows = [
        {**each.case.facts(options.threads), "repeat": number, "a_s": a, "b_s": b, "ratio": a / b}
        for each in found
        for number, (a, b) in enumerate(each.pairs_s)
    ]
    left_out = [
        {"case": each.case.id, "skipped": each.skipped, "wrong": each.wrong}
        for each in found
        if not each.pairs_s
    ]
    content = {
        "convbench_same": VERSION,
        "datetime": now(),
        "machine": machine(options.threads),
        "findings": [finding.as_dict() for finding in findings],
        "options": {**options.as_dict(), "seconds": seconds},
        "invented": asdict(Invented.of(found)) if rows else None,
        "pairs": rows,
        "left_out": left_out,
    }
    table = path.with_suffix(".csv")
    with replacing(table) as partial_table:
        pd.DataFrame(rows).to_csv(partial_table, index=False)
    with replacing(path) as partial_path:
        partial_path.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return table
