"""A selection from saved benchmark results: what they hold need not be measured again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernels.machine import identity
from kernels.policy import Measured
from kernels.registry import backends
from kernels.selection import Key, Selection, foreign
from kernels.spec import ConvSpec, PoolSpec, Spec


def selection_from(path: Path) -> Selection:
    """The candidates in a file of results. Raises ValueError: no results, or those of another machine."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        there = content["machine_info"]["convbench"]["identity"]
        benchmarks = content["benchmarks"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no results of convbench; expected a file of `convbench bench`"
        ) from error
    differences = foreign(there, identity())
    if differences:
        raise ValueError(f"{path} was measured with {differences}; expected results of this machine")
    entries: dict[Key, dict[str, Measured]] = {}
    try:
        for benchmark in benchmarks:
            facts = benchmark["extra_info"]
            if facts["backend"] in backends():
                key = Key(_spec(facts), facts["op"], facts["dtype"], facts["threads"])
                entries.setdefault(key, {})[facts["backend"]] = _measured(facts, benchmark["stats"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds results of another version: no {error}; expected new ones") from error
    return Selection(identity(), entries)


def _spec(facts: dict[str, Any]) -> Spec:
    if facts["kind"] == "max_pool2d":
        return PoolSpec.parse(facts["descriptor"], "max")
    if facts["kind"] == "avg_pool2d":
        return PoolSpec.parse(facts["descriptor"], "avg")
    return ConvSpec.parse(facts["descriptor"])


def _measured(facts: dict[str, Any], stats: dict[str, Any]) -> Measured:
    """A candidate; without the single times, which few files have, their five-number summary."""
    samples = stats.get("data") or [stats[name] for name in ("min", "q1", "median", "q3", "max")]
    return Measured(
        tuple(map(float, samples)), None, facts["peak_bytes"], facts["error"], None, facts["fingerprint"]
    )
