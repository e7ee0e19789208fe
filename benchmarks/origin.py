"""When and where a result was made, as saved files say it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kernels.machine import identity, machine_facts
from kernels.threads import pinned_threads


def now() -> str:
    """The time: 2025-01-31T12:00:00+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def stamp() -> str:
    """The time as a file's name, by which files sort: 2025-01-31T120000Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")


def machine(threads: int) -> dict[str, Any]:
    """The facts about this machine, with `threads` threads; pytest's plugin asks py-cpuinfo for more."""
    here = identity()
    with pinned_threads(threads):
        return machine_facts({"brand_raw": here["cpu"], "flags": here["isa"].split()}, threads)
