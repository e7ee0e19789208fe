"""How far to believe a report: what was noisy, what drifted, and what was wrong with the machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from reports import tables
from reports.loading import Run
from reports.wording import count, percent, where

DRIFT = 0.10
"""A machine that became so much faster or slower while a run lasted has drifted."""


@dataclass(frozen=True)
class Doubt:
    """A reason to believe the figures less, and what to do about it."""

    what: str
    remedy: str


def doubts(frame: pd.DataFrame, runs: Iterable[Run]) -> list[Doubt]:
    """What speaks against the rows of `tables.latest` and the runs they are from."""
    return [*_noise(frame), *_drift(frame), *_findings(runs)]


def _noise(frame: pd.DataFrame) -> Iterator[Doubt]:
    found, timed = len(tables.noisy(frame)), len(tables.timed(frame))
    if found:
        yield Doubt(
            f"{found:,} of {count(timed, 'case')} ({percent(found / timed)}) are noisy: the middle half of "
            f"their rounds spreads over more than {percent(tables.NOISY)} of the median.",
            "Close what else runs on the machine, and run again; do not act on small differences between "
            "these cases.",
        )


def _drift(frame: pd.DataFrame) -> Iterator[Doubt]:
    """Of runs with probes: a fixed piece of work, timed again and again while a run lasts."""
    rows = tables.timed(frame)
    ends = rows.groupby("run")["probe_s"].agg(["min", "max"]).dropna()
    for run, (least, most) in zip(ends.index, ends.to_numpy(), strict=True):
        if most > (1 + DRIFT) * least:
            yield Doubt(
                f"While {run} was measured, the machine's speed changed: a fixed piece of work took up to "
                f"{percent(most / least - 1)} longer than at its best.",
                "Compare backends within a layer, which were timed one after the other, rather than layers "
                "with each other.",
            )


def _findings(runs: Iterable[Run]) -> Iterator[Doubt]:
    said = set()
    for run in runs:
        for finding in run.findings:
            doubt = Doubt(*(_sentence(finding.get(key)) for key in ("what", "remedy")))
            if finding.get("level") == "warn" and doubt not in said:
                said.add(doubt)
                yield doubt


def _sentence(words: Any) -> str:
    """With a capital and a full stop; empty for no words."""
    text = str(words or "").strip()
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}." if text else ""


def spread(frame: pd.DataFrame) -> str:
    """The noise seen, in a sentence."""
    rows = tables.noise(frame)
    worst = tables.largest(rows, "noise")
    return (
        f"Half of the cases have an interquartile range below {percent(rows['noise'].median())} "
        f"of their median; the noisiest is {worst.backend} on {where(worst)}, "
        f"with {percent(worst.noise)}."
    )
