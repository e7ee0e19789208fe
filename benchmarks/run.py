"""One benchmark run: its cases, what became of them, and what the saved file says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import psutil

from benchmarks.ceiling import Ceiling, measure_ceiling
from benchmarks.doctor import Finding, examine
from benchmarks.inputs import make_problem
from benchmarks.journal import Journal, key_of
from benchmarks.options import Options
from benchmarks.probe import Probe
from kernels import get_backend
from kernels.forecast import TIMED_CALLS, Forecast, Forecaster
from kernels.measure import TRACED_S, Memory
from kernels.problem import Problem
from kernels.registry import Op, ops_of
from kernels.spec import Spec

SCHEMA = 1


@dataclass(frozen=True)
class Case:
    """`op` on `layer` (with its batch) of `suite`, by `backend`."""

    suite: str
    layer: Spec
    op: Op
    backend: str
    dtype: str

    @property
    def id(self) -> str:
        return f"{self.name}-{self.op}-b{self.layer.N}-{self.backend}"

    @property
    def name(self) -> str:
        return self.layer.name or self.layer.descriptor

    @property
    def group(self) -> str:
        """What is compared: the same work by different backends."""
        return f"{self.name} {self.op} batch {self.layer.N}"

    @property
    def key(self) -> str:
        """What tells it from the others of its run, and its outcome from theirs."""
        layer = self.layer
        return key_of(
            {
                "suite": self.suite,
                "kind": layer.kind,
                "descriptor": layer.descriptor,
                "op": self.op,
                "backend": self.backend,
            }
        )

    def facts(self, threads: int) -> dict[str, Any]:
        """What a saved result says of its case."""
        layer = self.layer
        return {
            "schema": SCHEMA,
            "suite": self.suite,
            "layer": self.name,
            "kind": layer.kind,
            "op": self.op,
            "backend": self.backend,
            "batch": layer.N,
            "dtype": self.dtype,
            "threads": threads,
            "descriptor": layer.descriptor,
            "flops": layer.flops,
            "least_bytes": layer.least_bytes(self.dtype),
            "im2col_bytes": layer.im2col_bytes(self.dtype),
        }


def cases(options: Options) -> Iterator[Case]:
    """Every case of a run: by layer, operation and batch, small batches first, backends side by side.

    Raises ValueError for a suite that cannot be read.
    """
    for suite, layer in options.layers():
        for op in ops_of(layer):
            if op in options.ops:
                for batch in options.batch_sizes:
                    for backend in options.backends:
                        yield Case(suite, layer.with_batch(batch), op, backend, options.dtype)


@lru_cache(maxsize=1)
def problem_of(layer: Spec, op: Op, dtype: str) -> Problem:
    """The data of a case, kept for the next backend."""
    return make_problem(layer, op, dtype)


@dataclass
class Run:
    """The state of a run. What becomes of its cases is in its journal, which recalls an earlier part."""

    options: Options
    calls: int = TIMED_CALLS
    """Calls that each case takes at least: what has to fit into the budget."""
    journal: Journal = field(default_factory=Journal)
    keeps_data: bool = False
    """Whether entries hold every single time, beside the figures over all of them."""
    ceiling: Ceiling | None = None
    """What cases are held against; None until it is measured, and in a smoke test."""
    probe: Probe | None = None
    """What tells the machine's drift; None in a smoke test."""

    def __post_init__(self) -> None:
        self.forecaster = Forecaster(self.options.budget_s, self.calls, make_problem)
        self.memory = Memory(min(self.options.budget_s, TRACED_S))
        for ceiling in self.journal.all("ceiling"):
            self.ceiling = Ceiling(**ceiling)
        self._recall_forecasts()

    def _recall_forecasts(self) -> None:
        """What was measured or predicted before decides on larger batches, as if there had been no break."""
        outcomes = self.journal.outcomes
        for case in cases(self.options) if outcomes else ():
            call_s = _call_s(outcomes.get(case.key, {}))
            if call_s is not None:
                self.forecaster.record(case.layer, case.op, case.backend, case.dtype, call_s)

    @cached_property
    def findings(self) -> list[Finding]:
        """What the doctor finds, once."""
        return examine(self.options.threads)

    def examine_machine(self) -> None:
        """What the doctor finds, the first probe, and, once for the whole of the run, the ceilings."""
        self.journal.write("findings", [finding.as_dict() for finding in self.findings])
        self.probe = Probe(self.journal)
        self.probe.measure()
        if self.ceiling is None:
            self.ceiling = measure_ceiling(self.options.dtype)
            self.journal.write("ceiling", self.ceiling.as_dict())

    def forecast(self, case: Case) -> Forecast:
        return self.forecaster.forecast(case.layer, case.op, case.backend, case.dtype)

    def obstacle(self, case: Case) -> str | None:
        """Why a case cannot be run at all, or None."""
        unsupported = get_backend(case.backend).unsupported(case.layer, case.op, np.dtype(case.dtype))
        return unsupported or _too_large(case)

    def start(self, case: Case) -> None:
        self.journal.write("start", case.facts(self.options.threads))

    def keep(self, entry: dict[str, Any]) -> None:
        """Note a timed case, by pytest-benchmark's entry for it."""
        self.journal.write("timed", entry)

    def reason_to_skip(self, case: Case) -> str | None:
        """Why a case is not run, which is also noted; None where it is."""
        reason, predicted_s = self.obstacle(case), None
        if reason is None:
            forecast = self.forecast(case)
            if forecast.fits:
                return None
            predicted_s = forecast.call_s
            reason = f"predicted {predicted_s:.2g} s a call, over the budget"
        facts = case.facts(self.options.threads)
        self.journal.write("skipped", {**facts, "predicted_s": predicted_s, "reason": reason})
        return reason

    def fail(self, case: Case, reason: str) -> None:
        facts = case.facts(self.options.threads)
        self.journal.write("failed", {**facts, "predicted_s": None, "reason": reason})

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "options": self.options.as_dict(),
            "cases": len(self.journal.keys),
            "gains": {name: get_backend(name).gain for name in self.options.backends},
            "findings": self._all_findings(),
            "probes": self.journal.all("probe"),
            "skipped": self.journal.in_order("skipped"),
            "failed": self.journal.in_order("failed"),
            "resumed": self.journal.resumed,
        }

    def _all_findings(self) -> list[dict[str, Any]]:
        """What the doctor found, by the latest of the processes that took the run up."""
        found = [finding for findings in self.journal.all("findings") for finding in findings]
        return list({finding["check"]: finding for finding in found}.values())


def _call_s(outcome: Mapping[str, Any]) -> float | None:
    """Seconds of a call as far as an outcome tells."""
    seconds: float | None = outcome["stats"]["median"] if "stats" in outcome else outcome.get("predicted_s")
    return seconds


def _too_large(case: Case) -> str | None:
    """Why a case does not fit into memory: data, gradients and window matrix, and the float64 reference."""
    layer = case.layer
    need = layer.least_bytes(case.dtype) + layer.im2col_bytes(case.dtype) + 3 * layer.least_bytes("float64")
    available = psutil.virtual_memory().available
    if need > available:
        return f"needs up to {need / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are available"
    return None
