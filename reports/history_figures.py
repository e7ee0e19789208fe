"""Figures of benchmarks over many runs: a panel per layer and op, a line per backend."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import history, tables
from reports.axes import plain, real_numbers
from reports.history import History
from reports.looks import INK, MEDIUM, SMALL, dots, legend_handles, look
from reports.wording import OP_NAMES, seconds

_PANEL = (3.3, 1.7)  # inches
_NAME = 34  # characters of a layer's name that fit on a line of a panel's title
_MOST_LABELS = 12


def draw(found: History) -> Figure:
    """All panels of one history; runs are side by side, the oldest on the left."""
    rows = found.rows
    there = history.runs(rows)
    layers, ops = list(dict.fromkeys(rows["layer"])), tables.ops(rows)
    backends = tables.backends(rows)
    legend = [backend for backend in backends if backend]
    width = max(len(ops) * _PANEL[0] + 0.4, 5.0)
    figure = Figure((width, len(layers) * _PANEL[1] + 1.9), layout="constrained")
    axes = figure.subplots(len(layers), len(ops), squeeze=False, sharex=True)
    for column, op in enumerate(ops):
        for line, layer in enumerate(layers):
            ax, part = axes[line, column], rows[(rows["layer"] == layer) & (rows["op"] == op)]
            if part.empty:
                ax.set_axis_off()
                continue
            panel(ax, part, there)
            lowest, title = ax, "\n".join(textwrap.wrap(layer, _NAME if len(ops) > 1 else 2 * _NAME))
            ax.set_title(f"{title}\n{OP_NAMES.get(op, op)}".strip(), fontsize=MEDIUM, color=INK)
        _label_runs(lowest, there)
    figure.suptitle(
        f"{found.title}\nmedian and quartiles, without half of the probe's drift; pale: as measured; "
        "hollow: disturbed",
        fontsize=MEDIUM, color=INK,
    )  # fmt: skip
    if legend:
        figure.legend(handles=legend_handles(legend), loc="outside lower center", ncols=6, fontsize=SMALL,
                      frameon=False)  # fmt: skip
    return figure


def panel(ax: Axes, rows: pd.DataFrame, there: pd.DataFrame) -> None:
    """The times of one layer and op over the runs `there`: a line per backend, with quartiles as bars.

    The pale line is as measured. Points of disturbed runs are hollow.
    """
    place = {run: number for number, run in enumerate(there["run"])}
    for backend in tables.backends(rows):
        own, style = rows[rows["backend"] == backend].sort_values("datetime", kind="stable"), look(backend)
        x, scale = own["run"].map(place), own["corrected_s"] / own["median_s"]
        bars = np.clip(
            [(own["median_s"] - own["q1_s"]) * scale, (own["q3_s"] - own["median_s"]) * scale], 0, None
        )
        if not own["corrected_s"].equals(own["median_s"]):
            ax.plot(x, own["median_s"], color=style.colour, linewidth=0.8, alpha=0.35)
        ax.errorbar(x, own["corrected_s"], yerr=bars, color=style.colour, linestyle=style.line, linewidth=1.2,
                    elinewidth=0.9, capsize=2)  # fmt: skip
        for disturbed, some in own.groupby("disturbed"):
            points = dots(backend, hollow=bool(disturbed))
            ax.plot(x[some.index], some["corrected_s"], **points, markersize=4.5)
    plain(ax)
    low, high = rows[["q1_s", "corrected_s"]].min().min(), rows[["q3_s", "corrected_s"]].max().max()
    real_numbers(ax, "y", low, high, seconds)


def _label_runs(ax: Axes, there: pd.DataFrame) -> None:
    """Date and commit of the runs; of many, only some."""
    step = -(-len(there) // _MOST_LABELS)
    shown = there.iloc[::step]
    labels = [f"{row.datetime:%Y-%m-%d %H:%M} {row.commit}".strip() for row in tables.records(shown)]
    ax.set_xticks(range(0, len(there), step), labels, rotation=45, ha="right", fontsize=SMALL)
    ax.set_xlim(-0.5, len(there) - 0.5)
    ax.tick_params(labelbottom=True)
