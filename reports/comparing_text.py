"""A comparison in words and tables, for a terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reports import tables
from reports.comparing import Comparison
from reports.noise import LEVEL
from reports.wording import NOTHING, count, listing, percent, seconds, significant

MOST_CASES = 20
"""Rows of single cases in a terminal; Markdown, which folds them, has all."""


@dataclass(frozen=True)
class Sheet:
    """A table of texts; where it is `folded`, it may be long."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def verdict(comparison: Comparison) -> str:
    """The outcome in a few sentences: what regressed, or what could have been seen."""
    groups, cases = comparison.slower
    limit = percent(comparison.fail_on)
    sentences = []
    if len(comparison.failing):
        sentences.append(f"{count(len(comparison.failing), 'case')} newly failing.")
    if comparison.unsteady:
        sentences.append(f"No verdict on times: {listing(comparison.unsteady)}. Measure again.")
    elif len(groups) or len(cases):
        parts = [f"{_name(row)} by {percent(row.ratio - 1)}" for row in tables.records(_widest(groups))]
        covered = {(row.backend, op) for row in tables.records(groups) for op in (row.op, "")}
        single = [row for row in tables.records(cases)
                  if not {(row.backend, row.op), (row.backend, "")} & covered]  # fmt: skip
        parts += [count(len(single), "single case")] if single else []
        sentences.append(f"Slower by more than {limit}: {listing(parts)}.")
    else:
        sentences.append(f"No regression beyond {limit}.")
    least = comparison.groups["limits"].median()
    if not comparison.unsteady and np.isfinite(least):
        sentences.append(f"A change of a whole backend shows here from about {percent(least)} on.")
    return " ".join(sentences)


def drift(comparison: Comparison) -> str:
    """What the machine did between the runs, and how that was told."""
    found = comparison.drift
    probe = ""
    if found.probe:
        low, high = (np.exp(found.probe.log + sign * found.probe.margin) for sign in (-1, 1))
        probe = f"; the probe's ratio is {_ratio(np.exp(found.probe.log))} ({_ratio(low)} to {_ratio(high)})"
    else:
        probe = "; there are no probes to tell it from a change of all"
    words = {
        "cases": "taken off all ratios: what most backends have in common",
        "probe": "taken off all ratios: half of the probe's drift, as cases feel none to all of it",
        "unknown": "nothing is taken off the ratios; every interval allows for what is not known",
    }[found.source]
    return f"Machine: {_ratio(np.exp(found.log))}, {words}{probe}."


def sheets(comparison: Comparison) -> Iterator[Sheet]:
    """Backends; single cases, the largest changes first; and what is in one side only, or failed."""
    interval = f"{LEVEL:.0%} interval"
    rows: list[tuple[str, ...]] = [
        (row.backend, row.op or "all", f"{row.cases}", f"{row.layers}", *_numbers(row), row.verdict)
        for row in tables.records(comparison.groups)
        if row.backend
    ]
    if rows:
        columns = ("backend", "op", "cases", "layers", "new / base", interval, "p", "verdict")
        yield Sheet("By backend (geometric means)", columns, rows)
    order = np.log(comparison.cases["ratio"]).abs().sort_values(ascending=False, kind="stable").index
    rows = [
        (*_case(row), seconds(row.base_s), seconds(row.new_s), *_numbers(row), row.verdict)
        for row in tables.records(comparison.cases.loc[order])
    ]
    case = ("case", "backend", "op", "batch")
    figures = ("base", "new", "new / base", interval, "p", "verdict")
    yield Sheet("By case, the largest changes first", (*case, *figures), rows, folded=True)
    rows = [
        (*_case(row), row.base_status, row.new_status, row.new_reason or row.base_reason)
        for row in tables.records(comparison.unpaired)
    ]
    if rows:
        yield Sheet("Not compared", (*case, "in base", "in new", "reason"), rows, folded=True)


def markdown(comparisons: Sequence[Comparison]) -> str:
    """All of it as Markdown; cases are folded."""
    parts = []
    for comparison in comparisons:
        parts += [f"### {tables.describe(comparison.setting)}", verdict(comparison), drift(comparison)]
        parts += ["\n".join(f"- {note}" for note in comparison.notes)] if comparison.notes else []
        for sheet in sheets(comparison):
            table = "\n".join(map(_line, [sheet.header, tuple("---" for _ in sheet.header), *sheet.rows]))
            title = f"{sheet.title}: {len(sheet.rows)}" if sheet.folded else sheet.title
            fold = f"<details><summary>{title}</summary>\n\n{table}\n\n</details>"
            parts.append(fold if sheet.folded else f"**{title}**\n\n{table}")
    return "\n\n".join(parts) + "\n"


def show(console: Console, comparisons: Sequence[Comparison]) -> None:
    """All of it in a terminal, with the first `MOST_CASES` of the folded tables."""
    for comparison in comparisons:
        console.print(f"[bold]{tables.describe(comparison.setting)}[/bold]")
        console.print(f"{verdict(comparison)}\n{drift(comparison)}")
        for note in comparison.notes:
            console.print(f"- {note}")
        for sheet in sheets(comparison):
            shown = sheet.rows[:MOST_CASES] if sheet.folded else sheet.rows
            table = Table(*sheet.header, box=None, pad_edge=False)
            for row in shown:
                table.add_row(*map(escape, row))
            more = len(sheet.rows) - len(shown)
            console.print(f"\n{sheet.title}{f' ({more} more with --csv)' if more else ''}")
            console.print(table)
        console.print()


def table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """All cases, compared or not, in one table; a ratio without a number is one that is not known."""
    found = [
        pd.concat([comparison.cases, comparison.unpaired], ignore_index=True) for comparison in comparisons
    ]
    columns = [*tables.CASE, "base_status", "new_status", "base_s", "new_s", "base_runs", "new_runs", "ratio",
               "low", "high", "p", "verdict", "base_reason", "new_reason"]  # fmt: skip
    return pd.concat(found, ignore_index=True).reindex(columns=columns)


def _widest(groups: pd.DataFrame) -> pd.DataFrame:
    """Without the ops of backends that are slower over all."""
    whole = set(groups.loc[groups["op"] == "", "backend"])
    return groups[groups["op"].eq("") | ~groups["backend"].isin(whole)]


def _name(row: Any) -> str:
    return f"{row.backend} {row.op}".strip()


def _case(row: Any) -> tuple[str, str, str, str]:
    layer = f"{row.layer} [{row.descriptor}]" if not row.backend and row.descriptor else row.layer
    return layer, row.backend, row.op, str(row.batch or "")


def _numbers(row: Any) -> tuple[str, str, str]:
    """Ratio, interval and p."""
    if not np.isfinite(row.ratio):
        return NOTHING, NOTHING, NOTHING
    p = "< 0.001" if row.p < 0.001 else f"{row.p:.3f}"
    return _ratio(row.ratio), f"{_ratio(row.low)} to {_ratio(row.high)}", p


def _ratio(value: float) -> str:
    """Two decimals, or three digits where there are more before the point."""
    return f"{value:.2f}" if value < 100 else significant(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
