"""Measuring the candidates for layers, so that "auto" can choose: once for each machine.

As everywhere: compiled and warmed up first, compared with the float64 reference before it gets a time, the
same fresh data and threads for all. What is timed is laps: all layers forward in their order, then all
backward in reverse, with one backend, then with the next. A call then finds the caches and the sleeping
threads as it would in a training step; one that is called again and again finds them warm, and is up to twice
as fast as it will ever be in use. Results go to buffers that are reused, as in training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from kernels import choice, selection
from kernels.fingerprint import fingerprint
from kernels.forecast import Forecaster, shrink
from kernels.machine import identity
from kernels.measure import TRACED_S, Memory
from kernels.policy import Measured
from kernels.problem import Problem, Verdict
from kernels.registry import Op, get_backend, own_backends
from kernels.selection import PREFERENCE, Key, Selection, keys_of
from kernels.spec import Spec
from kernels.threads import pinned_threads, sharing_cores, thread_count

PROBLEM_S = 0.4
"""Seconds of timing that one problem (an operation on a layer) may take."""
FIRST_ROUNDS, MIN_ROUNDS, MAX_ROUNDS = 3, 15, 100
"""Those of all candidates; and of those that are left then."""
LAP_BYTES = 1 << 30
"""Data that the problems of one lap may hold; more layers than that are measured in several laps."""
HOPELESS = 10.0
"""A candidate that is this many times slower than the fastest is not timed further."""
BEHIND = 1.5
"""The same after the first rounds: time goes to those among which the choice will be."""
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
    names = tuple(backends) if backends is not None else own_backends()
    for name in names:
        if get_backend(name).unavailable:
            raise ValueError(f"backend {name!r} is unavailable: {get_backend(name).unavailable}")
    file = Path(path) if path is not None else selection.default_path()
    count = thread_count(threads)
    keys = keys_of(specs, ops, dtype, count)
    known = selection.load(file)
    tuner = _Tuner()
    end = math.inf if max_seconds is None else time.perf_counter() + max_seconds
    missing = {
        key: [name for name in names if again or not _holds(known.entries.get(key, {}).get(name), name)]
        for key in keys
    }
    wanted = [key for key in keys if missing[key]]
    done = len(keys) - len(wanted)
    with pinned_threads(count), sharing_cores():
        for lap in _laps(wanted):
            if time.perf_counter() >= end:
                break
            contest = _Contest(tuner)
            for key in lap:
                if time.perf_counter() >= end:
                    break
                progress(done, len(keys), str(key))
                contest.enter(key, missing[key])
                done += 1
            known = selection.update(file, Selection(identity(), contest.results()))
    progress(len(keys), len(keys), "")
    choice.use_selection(known)
    return known


def _holds(measured: Measured | None, backend: str) -> bool:
    """Whether a measurement is of the backend as it is now."""
    return measured is not None and measured.fingerprint == fingerprint(backend)


def _laps(keys: Sequence[Key]) -> Iterator[list[Key]]:
    """The keys of one batch size at a time, as many as memory allows."""
    for _, group in groupby(sorted(keys, key=_batch), _batch):
        lap: list[Key] = []
        held = 0
        for key in group:
            size = 2 * key.spec.least_bytes(key.dtype)  # its data, and its results
            if lap and held + size > LAP_BYTES:
                yield lap
                lap, held = [], 0
            lap.append(key)
            held += size
        yield lap


def _batch(key: Key) -> int:
    return key.spec.N


def judge_affordably(problem: Problem, name: str, results: tuple[np.ndarray, ...]) -> Verdict:
    """The verdict on `results`; on those of a smaller layer where the reference would take too long."""
    if problem.spec.flops <= CHECKED_FLOPS:
        return problem.judge(name, results)
    smaller = shrink(problem.spec, int(CHECKED_FLOPS))
    looked_at = Problem.of_training(smaller, problem.dtype)[problem.op]
    return looked_at.judge(name, looked_at.run(name))


class _Tuner:
    """What is learnt of slow backends on the way, which spares calls of them."""

    def __init__(self) -> None:
        self.forecaster = Forecaster(budget_s=PROBLEM_S)
        self.memory = Memory(TRACED_S)

    def check(self, problem: Problem, name: str) -> tuple[Measured, tuple[np.ndarray, ...]]:
        """What a first call shows: errors, workspace, and one sample; and its results."""
        call_s, results = self.forecaster.first_calls.run(problem, name)
        verdict = judge_affordably(problem, name, results)
        workspace = self.memory.peak_bytes(problem, name, call_s, results)
        measured = Measured((call_s,), None, workspace, verdict.error, verdict.wrong, fingerprint(name))
        return measured, results


class _Problems:
    """The problems of layers, with the same data for all operations of one."""

    def __init__(self) -> None:
        self._layers: dict[tuple[Spec, str], dict[Op, Problem]] = {}

    def of(self, key: Key) -> Problem:
        """The problem of `key`."""
        layer = key.spec, key.dtype
        if layer not in self._layers:
            self._layers[layer] = Problem.of_training(*layer)
        return self._layers[layer][key.op]


@dataclass
class _Entry:
    """A problem in the race: its candidates' samples, and the buffers that all of them write to."""

    problem: Problem
    out: tuple[np.ndarray, ...]
    samples_s: dict[str, list[float]]

    def hopeless(self, name: str) -> bool:
        """Whether a candidate has shown that it will not win."""
        if not self.samples_s[name]:
            return False
        limit = HOPELESS if len(self.samples_s[name]) < FIRST_ROUNDS else BEHIND
        return min(self.samples_s[name]) > limit * min(min(each) for each in self.samples_s.values() if each)

    def call(self, name: str) -> None:
        """Time one call."""
        start = time.perf_counter()
        self.problem.run(name, self.out)
        self.samples_s[name].append(time.perf_counter() - start)


class _Contest:
    """The candidates for the layers of one lap: each is checked as it enters, then all race."""

    def __init__(self, tuner: _Tuner) -> None:
        self.tuner = tuner
        self.problems = _Problems()
        self.found: dict[Key, dict[str, Measured]] = {}
        self.entries: dict[Key, _Entry] = {}

    def enter(self, key: Key, names: Sequence[str]) -> None:
        """Check the candidates of `key`; who is right, and not predicted to be hopeless, will race."""
        problem = self.problems.of(key)
        found = self.found[key] = {}
        fastest_s = float("inf")
        for name in sorted(names, key=_place):
            if get_backend(name).unsupported(key.spec, key.op, np.dtype(key.dtype)):
                continue
            predicted_s = self.tuner.forecaster.forecast(key.spec, key.op, name, key.dtype).call_s
            if predicted_s > max(HOPELESS * fastest_s, PROBLEM_S):
                found[name] = Measured((), predicted_s, None, None, None, fingerprint(name))
                continue
            found[name], results = self.tuner.check(problem, name)
            if not found[name].wrong:
                entry = self.entries.setdefault(key, _Entry(problem, results, {}))
                entry.samples_s[name] = []
                fastest_s = min(fastest_s, found[name].samples_s[0])

    def results(self) -> dict[Key, dict[str, Measured]]:
        """Let them race, and return what is known of each."""
        self._race()
        for key, entry in self.entries.items():
            for name, samples in entry.samples_s.items():
                before = self.found[key][name]
                self.found[key][name] = replace(before, samples_s=tuple(samples))
                self.tuner.forecaster.record(key.spec, key.op, name, key.dtype, float(np.median(samples)))
        return self.found

    def _race(self) -> None:
        """Laps of each backend in turn; one that is hopeless on a layer leaves it out."""
        lap = _in_order(self.entries)
        names = dict.fromkeys(name for entry in lap for name in entry.samples_s)
        limit_s = PROBLEM_S * len(lap)
        start = time.perf_counter()
        for number in range(MAX_ROUNDS):
            for name in names:
                _turn([(each, name) for each in lap if name in each.samples_s and not each.hopeless(name)])
            if number + 1 >= MIN_ROUNDS and time.perf_counter() - start > limit_s:
                break


class Laps:
    """Laps of single layers on backends that are chosen already, to be timed again beside something else."""

    def __init__(self, chosen: Mapping[Key, str]) -> None:
        self._chosen = chosen
        self._entries: dict[Key, _Entry] = {}
        problems = _Problems()
        for key, name in chosen.items():
            problem = problems.of(key)
            self._entries[key] = _Entry(problem, problem.run(name), {name: []})

    def run(self) -> None:
        """Time one lap."""
        _turn([(entry, name) for entry in _in_order(self._entries) for name in entry.samples_s])

    def median_s(self, key: Key) -> float:
        """Seconds of a call."""
        return float(np.median(self._entries[key].samples_s[self._chosen[key]]))


def _turn(lap: Sequence[tuple[_Entry, str]]) -> None:
    """Time a lap that follows its like, as a training step follows another."""
    for entry, name in lap:
        entry.problem.run(name, entry.out)
    for entry, name in lap:
        entry.call(name)


def _in_order(entries: Mapping[Key, _Entry]) -> list[_Entry]:
    """As in a training step: forward through the layers, then backward in reverse."""
    forward = [entry for key, entry in entries.items() if key.op == "forward"]
    backward = [entry for key, entry in entries.items() if key.op != "forward"]
    return [*forward, *reversed(backward)]


def _place(name: str) -> int:
    return PREFERENCE.index(name) if name in PREFERENCE else len(PREFERENCE)
