"""What runs recorded about their machines, as far as figures and sentences lean on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reports.loading import Run


@dataclass(frozen=True)
class Ceiling:
    """What the machine was measured to reach: 1e9 operations/s, and 1e9 bytes/s read and written."""

    gemm_gflops: float
    copy_gbs: float

    @property
    def balance(self) -> float:
        """The operations for each byte below which memory is the limit."""
        return self.gemm_gflops / self.copy_gbs


@dataclass(frozen=True)
class Machine:
    """Its ceilings, if they were measured, and the bytes of its caches by name, the smallest first."""

    ceiling: Ceiling | None = None
    caches: Mapping[str, int] = field(default_factory=dict)


def machine_of(runs: Iterable[Run], setting: Any) -> Machine:
    """The machine of a setting (machine, dtype, threads) by its latest runs that say so."""
    found = Machine()
    for run in sorted(runs, key=lambda run: run.datetime):
        if run.machine == setting.machine:
            ceiling = _ceiling(run.facts.get("ceiling"), setting)
            found = Machine(ceiling or found.ceiling, caches(run.facts.get("caches")) or found.caches)
    return found


def ceiling(facts: Any) -> Ceiling | None:
    """The ceilings among a run's facts; None where they are missing or no numbers."""
    if not isinstance(facts, Mapping):
        return None
    rates: list[Any] = [facts.get(key) for key in ("gemm_gflops", "copy_gbs")]
    return Ceiling(*map(float, rates)) if all(map(_positive, rates)) else None


def _ceiling(facts: Any, setting: Any) -> Ceiling | None:
    found = ceiling(facts)
    same = found and (facts.get("dtype"), facts.get("threads")) == (setting.dtype, setting.threads)
    return found if same else None


def caches(facts: Any) -> dict[str, int]:
    """The bytes of each cache among a run's facts, the smallest first; empty where they are missing."""
    if not isinstance(facts, Mapping):
        return {}
    known = {str(name): size for name, size in facts.items() if _positive(size)}
    return dict(sorted(known.items(), key=lambda item: item[1]))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
