"""Tables: each function takes rows of `load` and returns a DataFrame.

All of them but `latest` expect what `latest` returns. Cases are compared only within a setting: one
machine, dtype and number of threads.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from reports.wording import BACKENDS, OPS, count, in_order

SETTING = ["machine", "dtype", "threads"]
NOISY = 0.1
"""The noise (IQR/median) from which a case is noisy."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e[+-]?\d+)?")
CASE = [*SETTING, "suite", "layer", "kind", "descriptor", "op", "backend", "batch"]
"""All that makes a case; what several runs hold of it are measurements of the same thing."""
_PLACE = [*SETTING, "family", "op", "layer", "batch"]


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per case: where several runs hold the same one, that of the run with the latest datetime.

    A case is a backend on an op of a layer at a batch size in one setting. Adds `family`, "convolution"
    or "pooling". Where one layer's name stands for several suites, kinds or geometries, what tells them
    apart is added to it, so that `layer` is unique.
    """
    newest = frame.sort_values("datetime", kind="stable").drop_duplicates(CASE, keep="last")
    newest = newest.sort_index().reset_index(drop=True)
    pools = newest["kind"].str.contains("pool")
    return newest.assign(family=np.where(pools, "pooling", "convolution"), layer=unique_names(newest))


def unique_names(frame: pd.DataFrame) -> pd.Series[str]:
    """The layer of each row, with what tells it from others of its name."""
    geometry = frame["descriptor"].str.replace(r"mb\d+_?", "", regex=True)
    parts = frame[["layer", "suite", "kind"]].assign(geometry=geometry)
    names = frame["layer"].copy()
    for name, rows in parts.groupby("layer", sort=False):
        varying = [part for part in ("suite", "kind", "geometry") if len(rows[part].unique()) > 1]
        if varying:
            extra = rows[varying].agg(", ".join, axis=1)
            names.loc[rows.index] = f"{name} (" + extra + ")"
    return names


def settings(frame: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Each setting, a named tuple of machine, dtype and threads, and its rows."""
    for setting in records(frame[SETTING].drop_duplicates()):
        yield setting, frame[(frame[SETTING] == list(setting)).all(axis=1)]


def varying(frame: pd.DataFrame) -> list[str]:
    """The parts of a setting that are not the same in all rows."""
    return [key for key in SETTING if len(frame[key].unique()) > 1]


def describe(setting: Any, keys: list[str] = SETTING) -> str:
    """A setting, or these parts of it, in words; what is not known is left out."""
    threads = count(setting.threads, "thread") if setting.threads else ""
    words = {"machine": setting.machine, "dtype": setting.dtype, "threads": threads}
    return ", ".join(words[key] for key in keys if words[key])


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples."""
    return frame.itertuples(index=False)


def by_layer(frame: pd.DataFrame) -> Iterator[tuple[str, str, list[Any]]]:
    """Each op and layer, in their orders, with its rows as named tuples.

    One pass over the rows: to cut a frame into hundreds of small ones takes seconds.
    """
    found: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for row in records(frame):
        found[row.op, row.layer].append(row)
    for op in ops(frame):
        for layer in layers(frame[frame["op"] == op]):
            yield op, layer, found[op, layer]


def largest(frame: pd.DataFrame, column: str) -> Any:
    """The row, a named tuple, with the largest number in `column`."""
    return next(records(frame.loc[[frame[column].idxmax()]]))


def timed(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that have times."""
    return frame[frame["status"] == "timed"]


def layers(frame: pd.DataFrame) -> list[str]:
    """The layers in the order of the file, convolutions before pooling."""
    ordered = frame.sort_values("family", kind="stable")
    return [str(name) for name in ordered["layer"].unique()]


def ops(frame: pd.DataFrame) -> list[str]:
    """The ops, forward first."""
    return in_order(frame["op"], OPS)


def backends(frame: pd.DataFrame) -> list[str]:
    """The backends, from the plainest on."""
    return in_order(frame["backend"], BACKENDS)


def fastest(frame: pd.DataFrame) -> pd.DataFrame:
    """The fastest backend of each layer, op and batch size, with its lead.

    Adds `next_backend`, and `margin`, the runner-up's median time over the winner's: NaN without a
    runner-up. `clear` says whether the quartile ranges of the two are apart.
    """
    ranked = timed(frame).sort_values("median_s", kind="stable").groupby(_PLACE, sort=False)
    shown = ["backend", "median_s", "q1_s"]
    runners_up = ranked.nth(1)[[*_PLACE, *shown]].set_axis(
        [*_PLACE, *(f"next_{key}" for key in shown)], axis=1
    )
    best = ranked.nth(0).merge(runners_up, on=_PLACE, how="left")
    return best.assign(
        margin=best["next_median_s"] / best["median_s"], clear=best["q3_s"] < best["next_q1_s"]
    )


def win_counts(best: pd.DataFrame) -> list[tuple[str, int]]:
    """Each backend in a table of `fastest` with the number of its rows, the most frequent first."""
    numbers = best["backend"].value_counts()
    return sorted(((name, int(numbers[name])) for name in backends(best)), key=lambda item: -item[1])


def wins(frame: pd.DataFrame) -> pd.DataFrame:
    """Per op and family, how often each backend is the fastest, and what it costs to use it always.

    `wins` of `cases` (layer, batch) cases. `slowdown` is the geometric mean, over the cases that the
    backend has times for, of its median over the fastest one's; `worst` is the largest such ratio.
    """
    rows = timed(frame).copy()
    rows["ratio"] = rows["median_s"] / rows.groupby(_PLACE)["median_s"].transform("min")
    rows["log_ratio"] = np.log(rows["ratio"])
    best = fastest(frame).groupby(["family", "op", "backend"]).size()
    table = rows.groupby(["family", "op", "backend"]).agg(
        measured=("ratio", "size"), mean_log=("log_ratio", "mean"), worst=("ratio", "max")
    )
    table = table.assign(wins=best.reindex(table.index).fillna(0).astype(int))
    cases = table.groupby(level=["family", "op"])["wins"].transform("sum")
    table = table.assign(cases=cases, slowdown=np.exp(table.pop("mean_log"))).reset_index()
    return table.sort_values(["wins", "slowdown"], ascending=[False, True], kind="stable", ignore_index=True)


def speedups(frame: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """How much faster each backend is than the baseline, case by case.

    `speedup` is the baseline's median time over the backend's; `low` and `high` come of their quartiles.
    `predicted` marks cases in which the baseline was skipped and its predicted time stands in.
    """
    base = frame[frame["backend"] == baseline]
    skipped = base["status"] == "skipped"
    base = base.assign(predicted=skipped)[(base["status"] == "timed") | skipped].copy()
    for column in ("median_s", "q1_s", "q3_s"):
        base[f"base_{column}"] = base[column].where(~skipped, base["predicted_s"])
    base = base[[*_PLACE, "predicted", "base_median_s", "base_q1_s", "base_q3_s"]].dropna()
    others = timed(frame[frame["backend"] != baseline])
    pairs = others.merge(base, on=_PLACE)
    return pairs.assign(
        speedup=pairs["base_median_s"] / pairs["median_s"],
        low=pairs["base_q1_s"] / pairs["q3_s"],
        high=pairs["base_q3_s"] / pairs["q1_s"],
    )


def at_largest_batch(ratios: pd.DataFrame) -> pd.DataFrame:
    """The rows of `speedups` at each layer's largest batch size with a measured baseline.

    A layer whose baseline was never measured is there with a predicted one, at the largest batch size
    among those at which most backends have times.
    """
    place = [*SETTING, "op", "layer"]
    known = ratios.groupby([*place, "batch"])["backend"].transform("size").where(ratios["predicted"], 0)
    rows = ratios.assign(known=known, measured=~ratios["predicted"])
    for column in ("measured", "known", "batch"):  # each keeps the best of what the one before left
        rows = rows[rows[column] == rows.groupby(place)[column].transform("max")]
    return rows.drop(columns=["known", "measured"])


def mean_speedups(ratios: pd.DataFrame) -> pd.DataFrame:
    """The geometric mean of speed-ups over layers, per family, op and backend, with least and most.

    `layers` is their number. Predicted baselines count only in an op that has no measured one; then
    `predicted` is True.
    """
    group = ["family", "op"]
    only_predicted = ratios.groupby(group)["predicted"].transform("all")
    rows = ratios[only_predicted | ~ratios["predicted"]].copy()
    rows["log"] = np.log(rows["speedup"])
    table = rows.groupby([*group, "backend"]).agg(
        layers=("speedup", "size"),
        mean_log=("log", "mean"),
        least=("speedup", "min"),
        most=("speedup", "max"),
        predicted=("predicted", "all"),
    )
    return table.assign(speedup=np.exp(table.pop("mean_log"))).reset_index()


def correctness(frame: pd.DataFrame) -> pd.DataFrame:
    """Per backend and op, the row with the largest error, and the number of cases checked."""
    rows = timed(frame)
    rows = rows.assign(checked=rows.groupby(["backend", "op"])["error"].transform("size"))
    return rows.loc[rows.groupby(["backend", "op"])["error"].idxmax()]


def common_batch(rows: pd.DataFrame) -> int:
    """The largest batch size that has at least three quarters as many rows as any other.

    Slow backends are often skipped at large ones. `rows` must not be empty.
    """
    known = rows.groupby("batch").size()
    largest: int = known.index[known >= 0.75 * known.max()].max()
    return largest


def memory(frame: pd.DataFrame) -> pd.DataFrame:
    """The timed rows with a known peak, all at their `common_batch`; empty where none is known."""
    rows = timed(frame).dropna(subset=["peak_mib"])
    return rows.loc[rows["batch"].eq(common_batch(rows))] if len(rows) else rows


def relative(frame: pd.DataFrame) -> pd.DataFrame:
    """The timed rows at their `common_batch`, with `speed`: the fastest backend's median over the row's."""
    rows = timed(frame)
    least = rows.groupby(_PLACE)["median_s"].transform("min")
    rows = rows.assign(speed=least / rows["median_s"])
    return rows.loc[rows["batch"].eq(common_batch(rows))]


def copy_factor(frame: pd.DataFrame) -> float:
    """The window matrix of im2col over the arrays of the call, in the median over convolutions, if any."""
    convolutions = frame[frame["family"] == "convolution"]
    layers = (convolutions if len(convolutions) else frame).drop_duplicates("layer")
    return float((layers["im2col_mib"] / layers["least_mib"]).median())


def compile_times(frame: pd.DataFrame) -> pd.DataFrame:
    """Per backend and op: the seconds of all compilations, their number, and the row of the longest."""
    rows = timed(frame).dropna(subset=["compile_s"])
    by = rows.groupby(["backend", "op"])["compile_s"]
    number = (rows["compile_s"] > 0).groupby([rows["backend"], rows["op"]]).transform("sum")
    rows = rows.assign(total_s=by.transform("sum"), compilations=number)
    return rows.loc[by.idxmax()]


def untimed(frame: pd.DataFrame, status: str) -> pd.DataFrame:
    """The skipped or failed cases, with `group`: the reason, numbers that differ from case to case as "…"."""
    rows = frame[frame["status"] == status]
    wording = rows["reason"].map(lambda reason: _NUMBER.sub("…", reason))
    return rows.assign(group=rows.groupby(["backend", wording])["reason"].transform(_common))


def _common(reasons: pd.Series[str]) -> str:
    """What reasons that differ in their numbers alone have in common."""
    numbers = [_NUMBER.findall(reason) for reason in reasons]
    shown = iter(column[0] if len(set(column)) == 1 else "…" for column in zip(*numbers, strict=True))
    return _NUMBER.sub(lambda _: next(shown), str(reasons.iloc[0]))


def noise(frame: pd.DataFrame) -> pd.DataFrame:
    """The timed rows with `noise`, the interquartile range over the median, the noisiest first."""
    rows = timed(frame)
    return rows.assign(noise=rows["iqr_s"] / rows["median_s"]).sort_values(
        "noise", ascending=False, kind="stable"
    )


def noisy(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `noise` with more of it than `NOISY`."""
    rows = noise(frame)
    return rows[rows["noise"] > NOISY]
