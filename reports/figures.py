"""Figures by layer: each function draws rows of `tables.latest` on the Axes that it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle

from reports import tables
from reports.axes import layer_rows, plain, real_numbers
from reports.looks import ALERT, BAR, INK, MEDIUM, PALE, SMALL, WASH, dots, ink_on, look
from reports.wording import clip, short, times

LEAST_MIB = 2.0**-10  # what allocates less is drawn at 1 KiB: a logarithmic axis has no zero
_SHORT_NAMES = {"onnxruntime": "onnxrt"}  # what fits into a cell


def fastest(ax: Axes, frame: pd.DataFrame, layers: Sequence[str], batches: Sequence[int]) -> None:
    """A map of the fastest backend, a row per layer and a column per batch size, for the rows of one op.

    A cell names the backend and its lead over the runner-up. Where their quartile ranges overlap, the lead
    is in brackets and the cell is hatched in the colour of the runner-up. Grey cells have rows, but no
    times; blank ones have no rows.
    """
    grounds: list[Rectangle] = []
    cells = frame.groupby(["layer", "batch"])["status"].agg(set).reset_index()
    for row in tables.records(cells):
        if "timed" not in row.status:
            corner, failed = (batches.index(row.batch), layers.index(row.layer)), "failed" in row.status
            grounds.append(Rectangle(corner, 1, 1, facecolor=WASH))
            _cell(ax, corner, "failed" if failed else "skipped", "", ALERT if failed else PALE)
    for row in tables.records(tables.fastest(frame)):
        corner = (batches.index(row.batch), layers.index(row.layer))
        colour = look(row.backend).colour
        grounds.append(Rectangle(corner, 1, 1, facecolor=colour))
        within_noise = not (row.clear or math.isnan(row.margin))
        if within_noise:
            stripes = look(row.next_backend).colour
            ax.add_patch(
                Rectangle(corner, 1, 1, facecolor="none", edgecolor=stripes, hatch="////", linewidth=0)
            )
        lead = "" if math.isnan(row.margin) else times(row.margin)
        _cell(ax, corner, row.backend, f"({lead})" if within_noise else lead, ink_on(colour), colour)
    # One artist for all of them: a map may have a thousand.
    ax.add_collection(
        PatchCollection(
            grounds, facecolors=[ground.get_facecolor() for ground in grounds], edgecolors="white",
            linewidths=1.5, zorder=0.5,
        ),
        autolim=False,
    )  # fmt: skip
    ax.set_xlim(0, len(batches))
    ax.set_ylim(len(layers), 0)
    ax.set_xticks(np.arange(len(batches)) + 0.5, [short(batch) for batch in batches])
    ax.set_yticks(np.arange(len(layers)) + 0.5, [clip(layer, 40) for layer in layers])
    ax.set_xlabel("batch size (images)", fontsize=SMALL, color=INK)
    ax.set_ylabel("layer", fontsize=SMALL, color=INK)
    ax.tick_params(length=0, labelsize=MEDIUM, colors=INK, labeltop=True)  # a map may be tall
    for side in ax.spines.values():
        side.set_visible(False)


def _cell(
    ax: Axes, corner: tuple[int, int], name: str, below: str, ink: str, ground: str | None = None
) -> None:
    """A name and what stands below it; in brackets, on a ground of its own, free of hatching."""
    x, y = corner[0] + 0.5, corner[1] + 0.5
    text = f"{_SHORT_NAMES.get(name) or clip(name, 8)}\n{below}".rstrip()
    free = {"facecolor": ground, "edgecolor": "none", "pad": 1.0} if below.startswith("(") else None
    ax.text(
        x, y, text, ha="center", va="center", color=ink, clip_on=True, fontsize=SMALL, linespacing=1.15,
        bbox=free,
    )  # fmt: skip


def speedups(ax: Axes, ratios: pd.DataFrame, layers: Sequence[str]) -> None:
    """The baseline's time over each backend's, a row for each of `layers`, for the rows of one op.

    `ratios` are rows of `tables.speedups`; bars come of the quartiles of both, and hollow markers of a
    predicted time of the baseline.
    """
    place = {layer: row for row, layer in enumerate(layers)}
    for backend in tables.backends(ratios):
        rows, colour = ratios[ratios["backend"] == backend], look(backend).colour
        heights = rows["layer"].map(place)
        ax.hlines(heights, rows["low"], rows["high"], color=colour, linewidth=2.6, alpha=0.45)
        for predicted, here in rows.groupby("predicted"):
            dotted = dots(backend, hollow=bool(predicted))
            ax.plot(here["speedup"], here["layer"].map(place), **dotted, markersize=6)
    ax.axvline(1, color=PALE, linewidth=1)
    ends = ratios[["low", "high", "speedup"]]
    real_numbers(ax, "x", min(ends.min().min(), 1.0), max(ends.max().max(), 1.0))
    layer_rows(ax, layers)
    ax.set_xlabel("time of the baseline / time of the backend", fontsize=SMALL, color=INK)
    plain(ax)


def memory(ax: Axes, frame: pd.DataFrame, layers: Sequence[str]) -> None:
    """Peak memory of each backend, a row for each of `layers`, for the rows of one op of `tables.memory`.

    A grey bar shows im2col's matrix.
    """
    place = {layer: row for row, layer in enumerate(layers)}
    peaks = frame.assign(row=frame["layer"].map(place), peak_mib=frame["peak_mib"].clip(lower=LEAST_MIB))
    matrix = peaks.groupby("row")["im2col_mib"].max()
    matrix = matrix[matrix > LEAST_MIB]
    sizes = pd.concat([peaks["peak_mib"], matrix])
    low, high = sizes.min(), sizes.max()
    ax.barh(matrix.index, matrix, height=0.72, color=BAR, label="im2col's matrix", zorder=1)
    for backend in tables.backends(peaks):
        rows = peaks[peaks["backend"] == backend]
        ax.plot(rows["peak_mib"], rows["row"], **dots(backend), markersize=6, alpha=0.9)
    real_numbers(ax, "x", low, high)
    layer_rows(ax, layers)
    ax.set_xlabel("peak memory (MiB)", fontsize=SMALL, color=INK)
    plain(ax)
