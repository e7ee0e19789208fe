"""Other libraries beside convbench, as a table in the terminal: `reports.peers` in text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from reports import peers as report
from reports.wording import significant


def show(console: Console, frame: pd.DataFrame, op: str, mode: str) -> None:
    """Print medians in microseconds with their spread, and the ratios, for one op and mode; or nothing."""
    rows = report.compared(frame, op, mode)
    if rows.empty:
        return
    ratios = report.ratios(rows)
    times = {(row["layer"], row["library"]): row for row in report.best(frame, op, mode).to_dict("records")}
    names = list(ratios.columns[:-1])
    table = Table("layer", "backend", box=None, pad_edge=False)
    for column in (report.OURS, *(part for name in names for part in (name, "ratio")), "best"):
        table.add_column(column, justify="right")
    for layer, ratio in ratios.iterrows():
        ours = times[layer, report.OURS]
        cells = [str(layer), ours["backend"], _microseconds(ours)]
        for name in names:
            row = times.get((layer, name))
            star = "*" if row and row["mode"] != mode else ""
            cells += [_microseconds(row), f"{ratio[name]:.2f}{star}"] if row else ["", ""]
        table.add_row(*cells, f"{ratio[report.BEST]:.2f}")
    for family, mean in report.means(rows).iterrows():
        cells = [part for name in names for part in ("", "" if mean.isna()[name] else f"{mean[name]:.2f}")]
        table.add_row(f"geometric mean, {family}", "", "", *cells, f"{mean[report.BEST]:.2f}", style="bold")
    console.print(
        f"{op}, {report.MODES[mode]}: microseconds, median \N{PLUS-MINUS SIGN} half the interquartile range; "
        "a ratio above 1 says that convbench is faster, best is against the fastest of the others"
    )
    console.print(table)
    if rows["instead"].any():
        console.print("* With fresh outputs: the library cannot write this into given memory.")
    console.print()


def _microseconds(row: Mapping[Any, Any]) -> str:
    spread = (row["q3_s"] - row["q1_s"]) / 2 / row["median_s"]
    return f"{significant(row['median_s'] * 1e6)} \N{PLUS-MINUS SIGN}{spread:.0%}"
