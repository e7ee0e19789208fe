"""What a choice rests on, in figures."""

from __future__ import annotations

from dataclasses import dataclass

from kernels.policy import Decision, Measured, probability_of_best
from kernels.selection import Choice, Key, Selection


@dataclass(frozen=True)
class Evidence:
    """A choice with the candidates that it was made from; `decision` is None where nothing was measured."""

    key: Key
    choice: Choice
    candidates: dict[str, Measured]
    decision: Decision | None

    @property
    def chosen(self) -> Measured | None:
        """What was measured of the choice."""
        return self.candidates.get(self.choice.backend)

    @property
    def runner_up(self) -> str | None:
        """The fastest of the others that could have been chosen."""
        ranked = self.decision.ranked if self.decision else ()
        return next((name for name in ranked if name != self.choice.backend), None)

    @property
    def margin(self) -> float | None:
        """How many times as long the runner-up takes."""
        if self.chosen is None or self.runner_up is None:
            return None
        return self.candidates[self.runner_up].median_s / self.chosen.median_s

    @property
    def probability(self) -> float | None:
        """How often the choice would be the fastest if all were measured again (bootstrap)."""
        if self.decision is None or not self.decision.ranked:
            return None
        left = {name: self.candidates[name] for name in self.decision.ranked}
        return probability_of_best(left).get(self.choice.backend)


def evidence(selection: Selection, key: Key, choice: Choice) -> Evidence:
    """What the `choice` for `key` rests on; `choice` is that of `kernels.explain`."""
    candidates = selection.entries.get(key, {})
    return Evidence(key, choice, candidates, selection.decision(key) if candidates else None)
