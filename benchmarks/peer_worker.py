"""One library in a process of its own: `python -m benchmarks.peer_worker THREADS`.

`benchmarks.peers` starts it. It prepares layers, checks what the library computes, and times calls in short
bursts, as it is asked to.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from benchmarks.suites import parse_line
from kernels import get_backend
from kernels.forecast import Forecaster
from kernels.peer import Native
from kernels.problem import Problem
from kernels.registry import Backend, Op
from kernels.spec import Spec
from kernels.threads import pinned_threads

SEED = 0
DTYPE = "float32"
WARM_UP = 0.2
"""The part of a burst that is not timed: caches and threads wake up. A call as long as a burst needs none."""
MOST_CALLS = 5000
PRE_TRIAL_S = 0.03
"""Seconds of calls that show how fast a backend may be: one that is hopeless is timed no further."""


class Library:
    """The layer and operation under way, on each backend that was prepared for it."""

    def __init__(self) -> None:
        self._natives: dict[str, Native] = {}
        self._calls_s: dict[str, float] = {}
        self._checked: tuple[tuple[Spec, Op], Problem] | None = None

    def prepare(self, layer: str, op: Op, backend: str, limit_s: float | None = None) -> dict[str, Any]:
        """Compile, call, and compare with the float64 reference.

        Answers with the error, the seconds of a call, and whether results can be written `into` memory; else
        with a reason: "skipped" or "wrong". A backend that computes on NumPy's arrays is skipped where a call
        of it would take more than `limit_s`.
        """
        (spec,) = parse_line(layer)
        chosen = get_backend(backend)
        reason = unsupported(chosen, spec, op)
        if reason:
            return {"skipped": reason}
        if limit_s is not None and not hasattr(chosen.operations, "native"):
            forecast = Forecaster(limit_s, 1).forecast(spec, op, backend, DTYPE)
            if not forecast.fits:
                return {"skipped": "too slow to be timed", "call_s": forecast.call_s}
        checked = self._problem(spec, op)
        native = _native(replace(checked), backend)  # without the reference, which goes with the first burst
        error = 0.0
        for call in filter(None, (native.fresh, native.into)):
            verdict = checked.judge(backend, native.arrays(call()))
            if verdict.wrong:
                return {"wrong": verdict.wrong}
            error = max(error, verdict.error)
        if chosen.peer:
            self._checked = None  # no other backend in this process will be compared with it
        call_s = min(_times(native.fresh, PRE_TRIAL_S, warm_up_s=0.0))
        self._natives[backend], self._calls_s[backend] = native, call_s
        return {"error": error, "call_s": call_s, "into": native.into is not None}

    def _problem(self, spec: Spec, op: Op) -> Problem:
        """The data, whose reference is computed once for several backends."""
        if self._checked is None or self._checked[0] != (spec, op):
            self._checked = (spec, op), Problem.random(spec, op, DTYPE, SEED)
        return self._checked[1]

    def time(self, backend: str, mode: str, seconds: float) -> list[float]:
        """The seconds of each call of a burst, with "fresh" results or with "out"."""
        self._checked = None
        native = self._natives[backend]
        call = native.fresh if mode == "fresh" else native.into
        assert call is not None
        return _times(call, seconds, warm_up_s=WARM_UP * seconds if self._calls_s[backend] < seconds else 0.0)

    def forget(self) -> None:
        """Make room for the next layer."""
        self._natives.clear()
        self._calls_s.clear()
        self._checked = None
        gc.collect()


def unsupported(backend: Backend, spec: Spec, op: Op) -> str | None:
    """Why `_native` cannot do `op` on `spec`, or None."""
    supports = getattr(backend.operations, "native_supports", backend.unsupported)
    reason: str | None = supports(spec, op, np.dtype(DTYPE))
    return reason


def _native(problem: Problem, backend: str) -> Native:
    """A problem as its library likes it best: for ours, the arguments of a public function."""
    native = getattr(get_backend(backend).operations, "native", None)
    if native is not None:
        found: Native = native(problem.spec, problem.op, problem.arrays)
        return found
    call = problem.call(backend)
    return Native(call, partial(call, out=problem.as_out(problem.run(backend))), problem.shown)


def _times(call: Callable[[], Any], seconds: float, warm_up_s: float) -> list[float]:
    """The seconds of each of as many calls as fit, one at least, after others to warm up."""
    now = time.perf_counter
    start = now()
    while now() - start < warm_up_s:
        call()
    times: list[float] = []
    gc.disable()
    try:
        start = begin = now()
        while (not times or begin - start < seconds) and len(times) < MOST_CALLS:
            begin = now()
            call()
            times.append(now() - begin)
    finally:
        gc.enable()
    return times


def main(threads: int) -> None:
    """Answer requests until there are no more; what goes wrong with one is an answer, too."""
    # Libraries may print what they like: answers go where requests expect them, all else to stderr.
    with os.fdopen(os.dup(1), "w") as answers, pinned_threads(threads):
        os.dup2(2, 1)
        library = Library()
        for line in sys.stdin:
            request = json.loads(line)
            function = getattr(library, request.pop("do"))
            try:
                answer = function(**request)
            except Exception as error:
                answer = {"wrong": f"{type(error).__name__}: {error}".splitlines()[0]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
