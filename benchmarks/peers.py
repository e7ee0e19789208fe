"""convbench beside other libraries: each in a process of its own, one at work at a time, in turn.

All get the same data, threads and cores. A library has compiled, has warmed up and has been checked before it
gets a time. It is called on its own tensors: nothing is converted while the clock runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.options import Options
from benchmarks.origin import machine, now
from benchmarks.suites import load_suite
from benchmarks.workers import Ask, worker
from kernels import available_backends, get_backend, own_backends
from kernels.files import replacing
from kernels.registry import Op, ops_of
from kernels.spec import Spec

VERSION = 2
SUITE = "peers"
OURS = "convbench"
ROUNDS = 7
SECONDS = 0.5
HOPELESS = 4.0
"""A backend of ours that takes this many times the fastest one's time is not timed further."""
HARMLESS_S = 0.01
"""A call that is expected to take less than this is worth a look, however fast others are."""
PAUSE_S = 0.05
"""Between two libraries: until the threads of the one before sleep. Who begins while those of onnxruntime
spin has all of its own on one core, and may keep them there for as long as it is timed."""
Mode = Literal["fresh", "out"]
MODES: tuple[Mode, ...] = ("fresh", "out")

Progress = Callable[[int, int, str], object]


@dataclass(frozen=True)
class Plan:
    """What is compared: `backends` are ours, `peers` the others.

    `seconds` is what each library gets for a layer, operation and mode.
    """

    suites: tuple[str, ...]
    ops: tuple[Op, ...]
    backends: tuple[str, ...]
    peers: tuple[str, ...]
    threads: int
    seconds: float

    @classmethod
    def read(
        cls,
        suites: Sequence[str] = (),
        ops: str | None = None,
        backends: str | None = None,
        peers: str | None = None,
        threads: int | None = None,
        seconds: float | None = None,
    ) -> Plan:
        """From the command line's words; None or empty takes the default. Raises ValueError."""
        ours = Options.read(suites or (SUITE,), backends, None, ops, None, threads)
        for name in ours.backends:
            if get_backend(name).peer:
                raise ValueError(f"--backends has {name!r}, which is a peer; expected it in --peers")
        if seconds is not None and not seconds > 0:
            raise ValueError(f"--seconds is {seconds}; expected more than 0")
        return cls(ours.suites, ours.ops, ours.backends, _peers(peers), ours.threads, seconds or SECONDS)

    def cases(self) -> list[tuple[Spec, Op]]:
        """Each layer with each of its operations. Raises ValueError."""
        layers = [layer for suite in self.suites for layer in load_suite(suite)]
        return [(layer, op) for layer in layers for op in ops_of(layer) if op in self.ops]


def _peers(text: str | None) -> tuple[str, ...]:
    installed = tuple(name for name in available_backends() if name not in own_backends())
    if text is None:
        return installed
    names = Options.read(backends=text).backends
    for name in names:
        if not get_backend(name).peer:
            raise ValueError(
                f"--peers has {name!r}, which is our own; expected some of {', '.join(installed)}"
            )
    return names


@dataclass
class Comparison:
    """What came of a plan: `rows` of times, and what was `skipped`, or `wrong`, with the reason."""

    plan: Plan
    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write all of it, with the facts about the machine, as JSON; the file is whole or not there."""
        content = {
            "convbench_peers": VERSION,
            "datetime": now(),
            "machine": machine(self.plan.threads),
            **asdict(self),
        }
        with replacing(path) as partial:
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")


def compare(plan: Plan, progress: Progress = lambda done, total, what: None) -> Comparison:
    """Measure; `progress` is called with cases done, cases in all, and the one that begins.

    Raises ValueError where a library's process ends.
    """
    cases = plan.cases()
    comparison = Comparison(plan)
    with ExitStack() as stack:
        asked = {
            library: stack.enter_context(
                worker(library, ["-m", "benchmarks.peer_worker", str(plan.threads)], plan.threads)
            )
            for library in (OURS, *plan.peers)
        }
        for done, (layer, op) in enumerate(cases):
            progress(done, len(cases), f"{op} {layer.name or layer.descriptor}")
            _Case(comparison, layer, op, asked).run()
    progress(len(cases), len(cases), "")
    return comparison


class _Case:
    """One operation on one layer, by all libraries."""

    def __init__(self, comparison: Comparison, layer: Spec, op: Op, asked: Mapping[str, Ask]) -> None:
        self.comparison, self.plan, self.asked = comparison, comparison.plan, asked
        self.facts = {
            "layer": layer.name or layer.descriptor,
            "kind": layer.kind,
            "descriptor": layer.descriptor,
            "op": op,
            "flops": layer.flops,
            "least_bytes": layer.least_bytes("float32"),
        }
        self.rounds_s: dict[tuple[str, str, Mode], list[list[float]]] = {}

    def run(self) -> None:
        """Prepare all, let them take turns, and keep what came of it."""
        ready = dict(self._prepared())
        for backend in self._hopeless(ready):
            call_s = ready.pop((OURS, backend))["call_s"]
            reason = f"over {HOPELESS:g} times the time of the fastest of ours"
            self._leave_out("skipped", OURS, backend, reason, call_s)
        entries = [
            (library, backend, mode)
            for mode in MODES
            for (library, backend), answer in ready.items()
            if mode == "fresh" or answer["into"]
        ]
        self.rounds_s = {entry: [] for entry in entries}
        for number in range(ROUNDS):
            # Each round begins with another one: nobody always comes after the same neighbour's heat.
            turn = number % max(1, len(entries))
            for entry in (*entries[turn:], *entries[:turn]):
                self._burst(*entry)
        for entry, rounds in self.rounds_s.items():
            self._keep(*entry, rounds, ready[entry[:2]]["error"])
        for ask in self.asked.values():
            ask(do="forget")

    def _prepared(self) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
        """Ours first, the plainest last: what the others take bounds the time for it."""
        layer = f"{self.facts['kind']} {self.facts['descriptor']}"
        ours = [(OURS, backend) for backend in reversed(self.plan.backends)]
        limit_s: float | None = None
        for library, backend in (*ours, *((peer, peer) for peer in self.plan.peers)):
            answer = self.asked[library](
                do="prepare",
                layer=layer,
                op=self.facts["op"],
                backend=backend,
                limit_s=limit_s if library == OURS else self.plan.seconds,
            )
            left_out = [what for what in ("skipped", "wrong") if what in answer]
            for what in left_out:
                self._leave_out(what, library, backend, answer[what], answer.get("call_s"))
            if left_out:
                continue
            if library == OURS:
                enough_s = max(HARMLESS_S, HOPELESS * answer["call_s"])
                limit_s = enough_s if limit_s is None else min(limit_s, enough_s)
            yield (library, backend), answer

    @staticmethod
    def _hopeless(ready: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
        """The backends of ours that need no better measurement than their first calls."""
        ours = {backend: answer["call_s"] for (library, backend), answer in ready.items() if library == OURS}
        return [name for name, call_s in ours.items() if call_s > HOPELESS * min(ours.values())]

    def _leave_out(
        self, what: str, library: str, backend: str, reason: str, call_s: float | None = None
    ) -> None:
        entry = {**self.facts, "library": library, "backend": backend, "reason": reason, "call_s": call_s}
        getattr(self.comparison, what).append(entry)

    def _burst(self, library: str, backend: str, mode: Mode) -> None:
        time.sleep(PAUSE_S)
        seconds = self.plan.seconds / ROUNDS
        times = self.asked[library](do="time", backend=backend, mode=mode, seconds=seconds)
        if "wrong" in times:
            raise ValueError(
                f"{library} failed on {self.facts['layer']}, after it was checked: {times['wrong']}"
            )
        self.rounds_s[library, backend, mode].append(times)

    def _keep(self, library: str, backend: str, mode: Mode, rounds: list[list[float]], error: float) -> None:
        """The median of each round, within which ratios are taken, and their quartiles."""
        medians = [float(np.median(each)) for each in rounds]
        q1, median, q3 = np.quantile(medians, [0.25, 0.5, 0.75]).tolist()
        self.comparison.rows.append(
            {
                **self.facts,
                "library": library,
                "backend": backend,
                "mode": mode,
                "median_s": median,
                "q1_s": q1,
                "q3_s": q3,
                "rounds_s": medians,
                "calls": sum(map(len, rounds)),
                "error": error,
            }
        )
