"""How measurements decide: what is wrong or too large is dropped, the fastest wins, an order settles ties.

cuDNN's benchmark mode and MIOpen's find step take the least time seen. Here what is within the noise counts
as equal, and a fixed order decides, so that tuning again does not flip the choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

ERROR_BUDGET = 1e-4
"""The largest error, relative to the largest output, that a candidate may make."""
NOISE = 0.02
"""Medians closer than this are equal, however sure they are."""


@dataclass(frozen=True)
class Measured:
    """What is known of one backend on one problem.

    `samples_s`: seconds of single calls; empty where it was not timed, and `predicted_s` says what a call
    would take. `workspace_bytes`: memory beyond inputs and results, None if not measured. `error`: the
    largest, relative to the largest output of the float64 reference; None where no result was made. `wrong`
    says what is wrong with the result. `fingerprint` names the code that was measured.
    """

    samples_s: tuple[float, ...]
    predicted_s: float | None
    workspace_bytes: int | None
    error: float | None
    wrong: str | None
    fingerprint: str

    @property
    def median_s(self) -> float:
        """Seconds of a call: the median of the samples, or what was predicted."""
        if self.samples_s:
            return float(np.median(self.samples_s))
        return self.predicted_s if self.predicted_s is not None else float("inf")


@dataclass(frozen=True)
class Decision:
    """`ranked`: the names left, the choice first, then by median. `dropped`: the others, and why."""

    ranked: tuple[str, ...]
    dropped: Mapping[str, str]
    tied: tuple[str, ...]
    """Those within the noise of the fastest, among which the order decided."""

    @property
    def choice(self) -> str | None:
        """The backend to use; None where all are dropped."""
        return self.ranked[0] if self.ranked else None


def decide(
    candidates: Mapping[str, Measured],
    order: Sequence[str],
    memory_limit: int | None = None,
    error_budget: float = ERROR_BUDGET,
) -> Decision:
    """Which of the candidates to use, for workspaces of at most `memory_limit` bytes (None: any)."""
    dropped = {
        name: reason
        for name, measured in candidates.items()
        if (reason := _objection(measured, memory_limit, error_budget))
    }
    left = {name: measured for name, measured in candidates.items() if name not in dropped}
    ranked = sorted(left, key=lambda name: left[name].median_s)
    if not ranked:
        return Decision((), dropped, ())
    fastest = left[ranked[0]]
    tied = [name for name in ranked if _within_noise(fastest, left[name])]
    choice = min(tied, key=lambda name: order.index(name) if name in order else len(order))
    ranked.remove(choice)
    return Decision((choice, *ranked), dropped, tuple(tied))


def _objection(measured: Measured, memory_limit: int | None, error_budget: float) -> str | None:
    if measured.wrong:
        return measured.wrong
    if measured.error is not None and not measured.error <= error_budget:
        return f"error {measured.error:.1e}, over {error_budget:g}"
    if memory_limit is not None and (measured.workspace_bytes or 0) > memory_limit:
        return f"workspace {measured.workspace_bytes:,} bytes, over {memory_limit:,}"
    return None


def _within_noise(fastest: Measured, other: Measured) -> bool:
    if other.median_s <= fastest.median_s * (1 + NOISE):
        return True
    return bool(other.samples_s) and _least_ratio(other, fastest) <= 1


def _least_ratio(slower: Measured, faster: Measured) -> float:
    """Of samples that were taken in turn: where the 95 % interval of the median ratio begins.

    What made one of them slow, on a busy machine, made its neighbour slow, too. The interval: R. McGill et
    al., "Variations of Box Plots", 1978.
    """
    samples = faster.samples_s or (faster.median_s,) * len(slower.samples_s)
    ratios = np.array([a / b for a, b in zip(slower.samples_s, samples, strict=False)])
    lower, median, upper = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(median - 1.57 * (upper - lower) / len(ratios) ** 0.5)


def probability_of_best(
    candidates: Mapping[str, Measured], seed: int = 0, draws: int = 500
) -> dict[str, float]:
    """How often each candidate has the least median when the samples are drawn again (bootstrap)."""
    rng = np.random.default_rng(seed)
    medians = []
    for measured in candidates.values():
        samples = np.array(measured.samples_s or (measured.median_s,))
        medians.append(np.median(rng.choice(samples, (draws, len(samples))), axis=1))
    winners = np.argmin(medians, axis=0)
    return {name: float(np.mean(winners == index)) for index, name in enumerate(candidates)}
