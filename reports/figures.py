"""Figures by layer: each function draws rows of `tables.latest` on the Axes that it is given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

from reports import tables, words
from reports.axes import layer_rows, plain, real_numbers
from reports.looks import ALERT, BAR, INK, MEDIUM, PALE, SMALL, WASH, dots, ink_on, look
from reports.wording import clip, short, times
from reports.words import Word, Words

LEAST_MIB = 2.0**-10  # what allocates less is drawn at 1 KiB: a logarithmic axis has no zero
_SHORT_NAMES = {"onnxruntime": "onnxrt"}  # what fits into a cell


class _Cell(NamedTuple):
    """What a map shows at a corner: two lines on a ground, which may be hatched with `stripes`."""

    corner: tuple[int, int]
    name: str
    lead: str
    ink: str
    ground: str
    stripes: str | None = None


def fastest(ax: Axes, frame: pd.DataFrame, layers: Sequence[str], batches: Sequence[int]) -> None:
    """A map of the fastest backend, a row per layer and a column per batch size, for the rows of one op.

    A cell names the backend and its lead over the runner-up. Where their quartile ranges overlap, the lead
    is in brackets and the cell is hatched in the colour of the runner-up. Grey cells have rows, but no
    times; blank ones have no rows.
    """
    columns = {batch: number for number, batch in enumerate(batches)}
    heights = {layer: number for number, layer in enumerate(layers)}
    cells = [
        cell((columns[row.batch], heights[row.layer]), row)
        for cell, rows in ((_idle, _statuses(frame)), (_won, tables.fastest(frame)))
        for row in tables.records(rows)
    ]
    _fill(ax, cells)
    _name(ax, cells)
    ax.set_xlim(0, len(batches))
    ax.set_ylim(len(layers), 0)
    ax.set_xticks(np.arange(len(batches)) + 0.5, [short(batch) for batch in batches])
    ax.set_yticks(np.arange(len(layers)) + 0.5, [clip(layer, 40) for layer in layers])
    ax.set_xlabel("batch size (images)", fontsize=SMALL, color=INK)
    ax.set_ylabel("layer", fontsize=SMALL, color=INK)
    ax.tick_params(length=0, labelsize=MEDIUM, colors=INK, labeltop=True)  # a map may be tall
    for side in ax.spines.values():
        side.set_visible(False)


def _statuses(frame: pd.DataFrame) -> pd.DataFrame:
    """The places without a time, and whether something failed there."""
    by_place = frame.assign(timed=frame["status"].eq("timed"), failed=frame["status"].eq("failed")).groupby(
        ["layer", "batch"]
    )
    places = by_place[["timed", "failed"]].any().reset_index()
    return places[~places["timed"]]


def _idle(corner: tuple[int, int], row: Any) -> _Cell:
    name, ink = ("failed", ALERT) if row.failed else ("skipped", PALE)
    return _Cell(corner, name, "", ink, WASH)


def _won(corner: tuple[int, int], row: Any) -> _Cell:
    name, ground = _SHORT_NAMES.get(row.backend) or clip(row.backend, 8), look(row.backend).colour
    if math.isnan(row.margin):
        return _Cell(corner, name, "", ink_on(ground), ground)
    if row.clear:
        return _Cell(corner, name, times(row.margin), ink_on(ground), ground)
    stripes = look(row.next_backend).colour
    return _Cell(corner, name, f"({times(row.margin)})", ink_on(ground), ground, stripes)


def _fill(ax: Axes, cells: Sequence[_Cell]) -> None:
    """The cells' grounds and stripes. One artist for all of a kind: a map may have a thousand."""
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
    ax.add_collection(
        PolyCollection(
            [square + cell.corner for cell in cells], facecolors=[cell.ground for cell in cells],
            edgecolors="white", linewidths=1.5, zorder=0.5,
        ),
        autolim=False,
    )  # fmt: skip
    for stripes in sorted({cell.stripes for cell in cells if cell.stripes}):
        hatched = [square + cell.corner for cell in cells if cell.stripes == stripes]
        ax.add_collection(
            PolyCollection(hatched, facecolors="none", edgecolors=stripes, hatch="////", linewidths=0),
            autolim=False,
        )


def _name(ax: Axes, cells: Sequence[_Cell]) -> None:
    """The cells' letters; those in brackets on a ground of their own, free of hatching."""
    free = [cell for cell in cells if cell.stripes]
    words.grounds(
        ax,
        [_middle(cell) for cell in free],
        [max(words.width(cell.name), words.width(cell.lead)) for cell in free],
        [cell.ground for cell in free],
        SMALL,
    )
    alone = [Word(*_middle(cell), cell.name, cell.ink) for cell in cells if not cell.lead]
    above = [Word(*_middle(cell), cell.name, cell.ink) for cell in cells if cell.lead]
    below = [Word(*_middle(cell), cell.lead, cell.ink) for cell in cells if cell.lead]
    Words(ax, alone, SMALL)
    Words(ax, above, SMALL, words.MIDDLE - words.LINE / 2)
    Words(ax, below, SMALL, words.MIDDLE + words.LINE / 2)


def _middle(cell: _Cell) -> tuple[float, float]:
    return cell.corner[0] + 0.5, cell.corner[1] + 0.5


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
