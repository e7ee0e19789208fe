"""The answer in words: who is fastest how often, and what choosing layer by layer saves."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from reports import tables
from reports.wording import count, listing, percent


@dataclass(frozen=True)
class Verdict:
    """Who wins an op at one batch size.

    `wins` are backends with the number of layers on which each is the fastest, the most frequent first, and
    `close` how many of these leads are within the noise. `single` is the backend that takes the least time
    for all the layers together, among those that do them all, and `saving` the part of that time which the
    fastest of each layer saves; None where no backend does them all.
    """

    op: str
    batch: int
    wins: tuple[tuple[str, int], ...]
    close: int
    single: str | None
    saving: float | None

    @property
    def layers(self) -> int:
        """How many there are."""
        return sum(number for _, number in self.wins)

    def sentence(self) -> str:
        """The verdict in words, without its batch size."""
        (first, most), *others = self.wins
        words = f"{self.op}: {first} is fastest on {most} of {count(self.layers, 'layer')}"
        if others:
            words += f", {listing(f'{name} on {number}' for name, number in others)}"
        if self.close:
            words += f" ({self.close} of these within the noise)"
        if self.single is None:
            return f"{words}; no single backend does them all."
        if not others:
            return f"{words}."
        return f"{words}; choosing per layer saves {percent(self.saving or 0.0)} over {self.single} alone."


def verdicts(frame: pd.DataFrame) -> list[Verdict]:
    """One verdict per op, all at the `tables.common_batch` of the timed rows; `frame` is of one setting."""
    rows = tables.timed(frame)
    here = rows[rows["batch"] == tables.common_batch(rows)]
    return [_verdict(here[here["op"] == op]) for op in tables.ops(here)]


def sentences(frame: pd.DataFrame) -> list[str]:
    """The verdicts in words; the first says at which batch size, and opens the report."""
    found = verdicts(frame)
    first, *others = [verdict.sentence() for verdict in found]
    return [f"On this machine, at batch {found[0].batch:,}, {first}", *others]


def _verdict(rows: pd.DataFrame) -> Verdict:
    best = tables.fastest(rows)
    single, saving = _single(rows, float(best["median_s"].sum()), len(best))
    return Verdict(
        op=str(rows["op"].iloc[0]),
        batch=int(rows["batch"].iloc[0]),
        wins=tuple(tables.win_counts(best)),
        close=int((~best["clear"] & best["margin"].notna()).sum()),
        single=single,
        saving=saving,
    )


def _single(rows: pd.DataFrame, fastest_s: float, layers: int) -> tuple[str | None, float | None]:
    """The best backend for everything, and the part of its time that the fastest of each layer saves."""
    sums = rows.groupby("backend")["median_s"].agg(["sum", "size"])
    whole = sums.loc[sums["size"] == layers, "sum"]
    if whole.empty:
        return None, None
    return str(whole.idxmin()), 1 - fastest_s / float(whole.min())
