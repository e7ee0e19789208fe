"""Measuring the candidates for layers, so that "auto" can choose: once for each machine.

As everywhere: compiled and warmed up first, compared with the float64 reference before it gets a time, the
same fresh data and threads for all. Rounds go through the candidates in turn, so that what disturbs the
machine disturbs all of them. Results go to buffers that are reused, as in training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from kernels import choice, selection
from kernels.fingerprint import fingerprint
from kernels.forecast import Forecaster, shrink
from kernels.machine import identity
from kernels.measure import TRACED_S, Memory
from kernels.policy import Measured
from kernels.problem import Problem
from kernels.registry import Op, available_backends, get_backend
from kernels.selection import PREFERENCE, Key, Selection, keys_of
from kernels.spec import Spec
from kernels.threads import pinned_threads, sharing_cores, thread_count

PROBLEM_S = 0.4
"""Seconds of timing that one problem (an operation on a layer) may take."""
MIN_ROUNDS, MAX_ROUNDS = 7, 60
HOPELESS = 10.0
"""A candidate that is this many times slower than the fastest is not timed further."""
CHECKED_FLOPS = 5e8
"""Larger problems are compared with the reference on a smaller layer of the same kind."""

Progress = Callable[[int, int, str], object]


def tune(
    specs: Iterable[Spec],
    *,
    ops: Sequence[Op] | None = None,
    dtype: str = "float32",
    backends: Sequence[str] | None = None,
    threads: int | None = None,
    path: Path | str | None = None,
    max_seconds: float | None = None,
    again: bool = False,
    progress: Progress = lambda done, total, what: None,
) -> Selection:
    """Measure the backends on `specs` and let "auto" choose from the result; returns the whole selection.

    What the file at `path` (the default one for None) has already of an unchanged backend is kept, unless
    `again`. `max_seconds` bounds the whole: what does not fit is left for another time. `progress` is called
    with problems done, problems in all, and the one that begins. Raises ValueError for unknown backends.
    """
    names = tuple(backends) if backends is not None else available_backends()
    for name in names:
        if get_backend(name).unavailable:
            raise ValueError(f"backend {name!r} is unavailable: {get_backend(name).unavailable}")
    file = Path(path) if path is not None else selection.default_path()
    count = thread_count(threads)
    keys = keys_of(specs, ops, dtype, count)
    known = selection.load(file)
    tuner = _Tuner(count)
    start = time.perf_counter()
    with pinned_threads(count), sharing_cores():
        for done, key in enumerate(keys):
            missing = [
                name for name in names if again or not _holds(known.entries.get(key, {}).get(name), name)
            ]
            if missing and (max_seconds is None or time.perf_counter() - start < max_seconds):
                progress(done, len(keys), str(key))
                measured = tuner.measure(key, missing)
                known = selection.update(file, Selection(identity(), {key: measured}))
    progress(len(keys), len(keys), "")
    choice.use_selection(known)
    return known


def _holds(measured: Measured | None, backend: str) -> bool:
    """Whether a measurement is of the backend as it is now."""
    return measured is not None and measured.fingerprint == fingerprint(backend)


class _Tuner:
    """Measures problem after problem; what it learns of slow backends spares it calls."""

    def __init__(self, threads: int) -> None:
        self.forecaster = Forecaster(budget_s=PROBLEM_S)
        self.memory = Memory(TRACED_S)

    def measure(self, key: Key, names: Sequence[str]) -> dict[str, Measured]:
        """The candidates of `key`, each checked, then timed in turn."""
        problem = Problem.random(key.spec, key.op, key.dtype)
        found: dict[str, Measured] = {}
        in_the_race: dict[str, tuple[np.ndarray, ...]] = {}
        fastest_s = float("inf")
        for name in sorted(names, key=_place):
            if get_backend(name).unsupported(key.spec, key.op, np.dtype(key.dtype)):
                continue
            predicted_s = self.forecaster.forecast(key.spec, key.op, name, key.dtype).call_s
            if predicted_s > max(HOPELESS * fastest_s, PROBLEM_S):
                found[name] = Measured((), predicted_s, None, None, None, fingerprint(name))
                continue
            measured, results = self._checked(problem, name)
            found[name] = measured
            if not measured.wrong:
                in_the_race[name] = results
                fastest_s = min(fastest_s, measured.samples_s[0])
        samples = _race(problem, in_the_race)
        for name, seconds in samples.items():
            before = found[name]
            self.forecaster.record(key.spec, key.op, name, key.dtype, float(np.median(seconds)))
            found[name] = Measured(
                tuple(seconds), None, before.workspace_bytes, before.error, None, before.fingerprint
            )
        return found

    def _checked(self, problem: Problem, name: str) -> tuple[Measured, tuple[np.ndarray, ...]]:
        """What a first call shows: errors, workspace, and one sample; and its results."""
        call_s, results = self.forecaster.first_calls.run(problem, name)
        looked_at = problem
        if problem.spec.flops > CHECKED_FLOPS:
            smaller = shrink(problem.spec, int(CHECKED_FLOPS))
            looked_at = Problem.random(smaller, problem.op, problem.dtype)
        verdict = looked_at.judge(name, results if looked_at is problem else looked_at.run(name))
        workspace = self.memory.peak_bytes(problem, name, call_s, results)
        measured = Measured((call_s,), None, workspace, verdict.error, verdict.wrong, fingerprint(name))
        return measured, results


def _place(name: str) -> int:
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE)


def _race(problem: Problem, results: dict[str, tuple[np.ndarray, ...]]) -> dict[str, list[float]]:
    """Seconds of calls in rounds over all candidates; one that is hopeless drops out after its first."""
    samples: dict[str, list[float]] = {name: [] for name in results}
    start = time.perf_counter()
    for number in range(MAX_ROUNDS):
        for name, out in results.items():
            if number and min(samples[name]) > HOPELESS * min(map(min, samples.values())):
                continue
            before = time.perf_counter()
            problem.run(name, out)
            samples[name].append(time.perf_counter() - before)
        if number + 1 >= MIN_ROUNDS and time.perf_counter() - start > PROBLEM_S:
            break
    return samples
