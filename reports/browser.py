"""What the page's script works on: every result, to sort and filter, and every ladder, to choose from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pandas as pd

from reports import ladder, tables
from reports.looks import look
from reports.wording import error, percent, seconds, significant, times


class _Column(NamedTuple):
    """A number of `tables.latest`, or of two of its columns, as it is shown."""

    head: str
    value: Callable[[pd.DataFrame], pd.Series[Any]]
    shown: Callable[[float], str]


_NUMBERS = (
    _Column("batch size", lambda rows: rows["batch"], lambda value: f"{value:,.0f}"),
    _Column("median time", lambda rows: rows["median_s"], seconds),
    _Column("IQR/median", lambda rows: rows["iqr_s"] / rows["median_s"], percent),
    _Column("images/s", lambda rows: rows["images_per_s"], significant),
    _Column("GFLOP/s", lambda rows: rows["gflops"], significant),
    _Column("least GiB/s", lambda rows: rows["least_gib_per_s"], significant),
    _Column("of attainable", lambda rows: rows["share"], percent),
    _Column("peak MiB", lambda rows: rows["peak_mib"], significant),
    _Column("error", lambda rows: rows["error"], error),
    _Column("compile time", lambda rows: rows["compile_s"], seconds),
    _Column("rounds", lambda rows: rows["rounds"], lambda value: f"{value:,.0f}"),
)


def results(frame: pd.DataFrame) -> dict[str, Any]:
    """Every timed case, by columns: `head`, `texts`, and for columns of numbers `keys` to sort by.

    `choices` are the columns to filter by, with what there is in each, in its order.
    """
    rows = tables.timed(frame)
    varying = tables.varying(frame)
    columns: list[dict[str, Any]] = [
        {"head": name, "texts": [str(value) for value in rows[name]]}
        for name in (*varying, "layer", "op", "backend")
    ]
    for column in _NUMBERS:
        values = column.value(rows)
        columns.append(
            {
                "head": column.head,
                "texts": [column.shown(value) for value in values],
                "keys": [None if pd.isna(value) else float(value) for value in values],
            }
        )
    batches = [f"{batch:,.0f}" for batch in sorted(rows["batch"].unique())]
    choices = {name: [str(value) for value in rows[name].unique()] for name in varying}
    choices |= {"op": tables.ops(rows), "backend": tables.backends(rows), "batch size": batches}
    return {"columns": columns, "choices": choices}


def ladders(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Every ladder of one setting: op, layer, batch and its rungs, in `ladder.all_rungs`' order."""
    return [
        {
            "op": place.op,
            "layer": place.layer,
            "batch": f"{place.batch:,}",
            "rungs": [
                [
                    row.backend, row.seconds, bool(row.predicted), seconds(row.seconds), times(row.step),
                    times(row.total),
                ]
                for row in steps
            ],
        }
        for place, steps in ladder.all_rungs(frame)
    ]  # fmt: skip


def data(frame: pd.DataFrame, parts: Mapping[str, pd.DataFrame], gains: Mapping[str, str]) -> str:
    """JSON for a script element; `parts` are the rows of each setting by its anchor.

    It has no "<": in a script element "</" and "<!" would mean something to the browser.
    """
    content = {
        "results": results(frame),
        "ladders": {anchor: ladders(rows) for anchor, rows in parts.items()},
        "colours": {name: look(name).colour for name in tables.backends(frame)},
        "gains": dict(gains),
    }
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", r"\u003c")
