"""Each benchmark over many runs: a table, and what has changed between the first run and the last.

Never over machines: a history is of one machine, dtype, number of threads and batch size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reports import tables
from reports.drift import disturbed
from reports.loading import Results, Run
from reports.wording import clip, count, seconds, times

MOST_CHANGES = 5
_RUNS = ["datetime", "run"]


@dataclass(frozen=True)
class History:
    """The timed rows of one setting and batch size, as `history_of` makes them; `title` says which."""

    title: str
    slug: str
    rows: pd.DataFrame


def history_of(results: Results) -> pd.DataFrame:
    """The timed rows of all runs, the oldest first, with names of layers as in `tables.latest`.

    Adds `commit` (its first seven digits, with a + where there were changes, or ""), `probe_ratio`, the
    median of the run's probes over the middle one of the machine's runs, `disturbed`, whether the probes tell
    of something else that had the machine, and `corrected_s`: `median_s` without half of the probe's drift,
    as a case feels anything between none and all of it (`reports.drift`). Where a run has no probes,
    `probe_ratio` is NaN and nothing is corrected.
    """
    facts = pd.DataFrame([_facts(run) for run in results.runs])
    rows = tables.timed(results.frame).merge(facts, on="run", how="left")
    rows = rows.assign(layer=tables.unique_names(rows)).sort_values(_RUNS, kind="stable", ignore_index=True)
    by_run = rows.drop_duplicates([*tables.SETTING, "run"])
    middle = by_run.groupby(tables.SETTING)["run_probe_s"].median().rename("middle_s")
    rows = rows.join(middle, on=tables.SETTING)
    ratio = rows.pop("run_probe_s") / rows.pop("middle_s")
    return rows.assign(probe_ratio=ratio, corrected_s=rows["median_s"] / np.sqrt(ratio.fillna(1.0)))


def histories(rows: pd.DataFrame) -> Iterator[History]:
    """What `history_of` returns, by setting and batch size."""
    for setting, own in tables.settings(rows):
        for batch in sorted({int(size) for size in own["batch"]}):
            size = f"batch {batch}" if batch else ""
            title = ", ".join(filter(None, [tables.describe(setting), size]))
            yield History(
                title, re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-"), own[own["batch"] == batch]
            )


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """The runs among rows of `history_of`, the oldest first."""
    return rows.drop_duplicates("run").sort_values(_RUNS, kind="stable", ignore_index=True)


def changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Each case's last time over its first, with drift taken off, the largest changes first.

    `ratio`, with `first_s`, `last_s`, `first` and `last` (the runs), of cases that are in two runs at least.
    """
    ordered = rows.sort_values(_RUNS, kind="stable")
    by_case = ordered.groupby(tables.CASE, sort=False)
    found = by_case.agg(
        first_s=("corrected_s", "first"),
        last_s=("corrected_s", "last"),
        first=("run", "first"),
        last=("run", "last"),
    )
    found = found[found["first"] != found["last"]].reset_index()
    found = found.assign(ratio=found["last_s"] / found["first_s"])
    order = np.log(found["ratio"]).abs().sort_values(ascending=False, kind="stable").index
    return pd.DataFrame(found.loc[order]).reset_index(drop=True)


def summary(rows: pd.DataFrame) -> str:
    """For each setting: its runs, and the cases that have changed most between their first run and last."""
    lines = []
    for setting, own in tables.settings(rows):
        there = runs(own)
        span = " to ".join(dict.fromkeys(f"{there['datetime'].iloc[end]:%Y-%m-%d}" for end in (0, -1)))
        lines.append(f"{tables.describe(setting)}: {count(len(there), 'run')}, {span}")
        changed = changes(own)
        if changed.empty:
            lines.append("  no case is in two runs")
        for row in tables.records(changed.head(MOST_CHANGES)):
            size = f" batch {row.batch}" if row.batch else ""
            name = " ".join(filter(None, [row.backend, row.op, clip(row.layer, 60)])) + size
            lines.append(f"  {times(row.ratio)} {name}: {seconds(row.first_s)} to {seconds(row.last_s)}")
    return "\n".join(lines)


def _facts(run: Run) -> dict[str, object]:
    probes = [probe for _, probe in run.probes]
    given = run.commit.get("id")
    commit = given[:7] if isinstance(given, str) else ""
    return {
        "run": run.name,
        "commit": commit + "+" if commit and run.commit.get("dirty") else commit,
        "disturbed": disturbed(run),
        "run_probe_s": float(np.median(probes)) if probes else np.nan,
    }
