"""Two sides of a comparison, case by case: what each of them holds, and what both have times for."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from reports import tables
from reports.noise import burst_error, median_error

_RANK = {"failed": 0, "timed": 1, "skipped": 2}
LEAST_RUNS = 3
"""Runs of which the scatter of a case between runs can be told."""


def pair(base: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """A row per case of either side, of rows of `load` of one setting.

    Its columns are those of `tables.CASE`, with `layer` unique as in `tables.latest`, and with the prefixes
    `base_` and `new_`: `status` ("timed", "skipped", "failed", or "missing"), `reason`, `s` (the median over
    the side's runs), `runs` (how many), and `error`, the standard error of the logarithm of `s`. `log` is the
    logarithm of new over base, and `error` its standard error as far as the case itself tells.
    """
    sides = (_side(base).add_prefix("base_"), _side(new).add_prefix("new_"))
    pairs = sides[0].join(sides[1], how="outer", sort=False)
    order = pd.concat([base, new]).drop_duplicates(tables.CASE).set_index(tables.CASE).index
    pairs = pairs.reindex(order).reset_index()
    for side in ("base", "new"):
        pairs[f"{side}_status"] = pairs[f"{side}_status"].fillna("missing")
        pairs[f"{side}_reason"] = pairs[f"{side}_reason"].fillna("")
        pairs[f"{side}_runs"] = pairs[f"{side}_runs"].fillna(0).astype(int)
    return pairs.assign(
        layer=tables.unique_names(pairs),
        log=np.log(pairs["new_s"] / pairs["base_s"]),
        error=np.hypot(pairs["base_error"], pairs["new_error"]),
    )


def _side(frame: pd.DataFrame) -> pd.DataFrame:
    """Status, reason, median, its error and number of runs, by case. A case that failed once has failed."""
    ranked = frame.assign(rank=frame["status"].map(_RANK)).sort_values(["rank", "datetime"], kind="stable")
    states = ranked.drop_duplicates(tables.CASE).set_index(tables.CASE)[["status", "reason"]]
    rows = tables.timed(frame)
    rows = rows.assign(
        log=np.log(rows["median_s"]), burst=burst_error(rows["median_s"], rows["iqr_s"], rows["rounds"])
    )
    rows = rows.assign(level=rows["log"] - _run_levels(rows))
    by_case = rows.groupby(tables.CASE, sort=False)
    count = by_case.size()
    bursts = by_case["burst"].median() / count**0.5
    scatter = by_case["level"].agg(_scatter)
    times = pd.DataFrame(
        {"s": np.exp(by_case["log"].median()), "error": np.fmax(bursts, scatter), "runs": count}
    )
    return states.join(times)


def _run_levels(rows: pd.DataFrame) -> pd.Series:
    """By how much each row's whole run is above the others: what all of its cases have in common."""
    above = rows["log"] - rows.groupby(tables.CASE)["log"].transform("median")
    return above.groupby(rows["run"]).transform("median")


def _scatter(levels: pd.Series) -> float:
    return median_error(levels.to_numpy()) if len(levels) >= LEAST_RUNS else math.nan
