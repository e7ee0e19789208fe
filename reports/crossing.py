"""Where backends cross over: the batch size at which another one becomes the fastest, and why.

The reasons are worked out from the figures. With the times of both backends at both batch sizes,

- what a call costs whatever its batch is where the line through a backend's two times meets batch 0;
- a working set is the larger of the call's arrays and what the backend allocates at its peak;
- a layer's intensity is its operations for each byte of its arrays; below the balance of the machine's
  ceilings memory is the limit, above it arithmetic (the roofline model).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from reports import tables
from reports.loading import MIB
from reports.machines import Machine
from reports.wording import seconds, significant, size

_SLOWER = 1.1
"""An image that costs so many times as much as in a small batch has become slower."""


@dataclass(frozen=True)
class Crossing:
    """`before` is the fastest up to the batch size `last`, `after` from `first` on, both clearly."""

    op: str
    layer: str
    before: str
    last: int
    after: str
    first: int
    why: str


def crossings(frame: pd.DataFrame, machine: Machine) -> list[Crossing]:
    """All crossings in the rows of one setting, ops and layers in their order.

    Only leads beyond the noise count (`clear` in `tables.fastest`), and only pairs of backends that have
    times at both batch sizes.
    """
    rows = tables.timed(frame)
    best = tables.fastest(rows)
    best = best[best["clear"] & best["margin"].notna()]
    by_case = {(row.op, row.layer, row.batch, row.backend): row for row in tables.records(rows)}
    found = []
    for op, layer, winners in tables.by_layer(best):
        for one, other in pairwise(sorted(winners, key=lambda row: row.batch)):
            if one.backend == other.backend:
                continue
            pair = [
                by_case.get((op, layer, at.batch, who.backend)) for who in (one, other) for at in (one, other)
            ]
            if None not in pair:
                why = _why(_Line(*pair[:2]), _Line(*pair[2:]), machine)
                found.append(Crossing(op, layer, one.backend, one.batch, other.backend, other.batch, why))
    return found


class _Line:
    """A backend at two batch sizes, rows of `load`: `small` and `large`."""

    def __init__(self, small: Any, large: Any) -> None:
        self.small, self.large = small, large
        self.name = small.backend

    @property
    def call_s(self) -> float:
        """What a call costs whatever its batch."""
        n, m = self.small.batch, self.large.batch
        price: float = (self.small.median_s * m - self.large.median_s * n) / (m - n)
        return max(0.0, price)

    @property
    def image_s(self) -> tuple[float, float]:
        """What an image costs in the small and in the large batch."""
        return self.small.median_s / self.small.batch, self.large.median_s / self.large.batch

    @property
    def working_set(self) -> tuple[float, float]:
        """Bytes in the small and in the large batch."""
        small, large = (
            max(row.least_mib, row.peak_mib if pd.notna(row.peak_mib) else 0.0) * MIB
            for row in (self.small, self.large)
        )
        return small, large


def _why(before: _Line, after: _Line, machine: Machine) -> str:
    reasons = [*_call(before, after), *_cache(before, machine), *_intensity(before, machine)]
    if reasons:
        return f"{'; '.join(reasons)}."
    return (
        f"An image costs {_change(before)}, {_change(after)}; neither the price of a call, nor the caches, "
        "nor the intensity explains it."
    )


def _call(before: _Line, after: _Line) -> Iterator[str]:
    """Whether `after` lost in the small batch for the price of its call alone."""
    rest = [line.small.median_s - line.call_s for line in (before, after)]
    if after.call_s > before.call_s and rest[1] < rest[0]:
        share = f"{after.call_s / after.small.median_s:.0%}".replace("%", " %")
        yield (
            f"{after.name} pays about {seconds(after.call_s)} a call whatever the batch, {share} of its time "
            f"at batch {after.small.batch:,} ({before.name}: {seconds(before.call_s)})"
        )


def _cache(before: _Line, machine: Machine) -> Iterator[str]:
    """Whether `before` becomes slower as it outgrows a cache."""
    (less, more), (cheap, dear) = before.working_set, before.image_s
    passed = [name for name, there in machine.caches.items() if less <= there < more]
    if passed and dear >= _SLOWER * cheap:
        name = passed[-1]
        yield (
            f"{before.name}'s working set grows from {size(less)} to {size(more)}, past the "
            f"{size(machine.caches[name])} of {name}, and an image costs it {seconds(dear)} instead of "
            f"{seconds(cheap)}"
        )


def _intensity(line: _Line, machine: Machine) -> Iterator[str]:
    """Whether the layer's limit turns from memory to arithmetic, or back."""
    if machine.ceiling is None:
        return
    small, large = (row.flops / (row.least_mib * MIB) for row in (line.small, line.large))
    balance = machine.ceiling.balance
    if (small < balance) != (large < balance):
        limits = ("memory", "arithmetic") if small < large else ("arithmetic", "memory")
        yield (
            f"the layer's intensity goes from {significant(small)} to {significant(large)} FLOP/byte, "
            f"past the {significant(balance)} at which the limit turns from {limits[0]} to {limits[1]}"
        )


def _change(line: _Line) -> str:
    small, large = (seconds(each) for each in line.image_s)
    return f"{line.name} {small} at batch {line.small.batch:,} and {large} at {line.large.batch:,}"
