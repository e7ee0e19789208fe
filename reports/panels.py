"""Small multiples: many panels with logarithmic axes, drawn as one.

Matplotlib takes some 50 ms for the ticks and labels of each of its Axes, minutes for a large report. Here a
panel is a box in one Axes that counts in inches from its upper left corner, and what all panels have of one
kind is one artist.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from reports import tables
from reports.axes import batch_ticks, log_limits
from reports.looks import GRID, INK, MEDIUM, PALE, SMALL, dots, look
from reports.wording import short

_Points = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Quantity:
    """Something that follows from a batch size and the seconds of a call."""

    name: str
    unit: str
    of: Callable[[pd.Series[Any], pd.Series[Any]], pd.Series[Any]]


THROUGHPUT = Quantity("throughput", "images/s", lambda batch, seconds: batch / seconds)
TIME = Quantity("time", "ms a call", lambda batch, seconds: seconds * 1e3)


class Box(NamedTuple):
    """Where a panel lies: inches from the left and from the top, and its title, lines broken."""

    left: float
    top: float
    width: float
    height: float
    title: str


class Scale(NamedTuple):
    """A logarithmic axis that lays `low` to `high` over `start` to `end`, in inches."""

    low: float
    high: float
    start: float
    end: float
    ticks: Sequence[float]

    def place(self, values: Any) -> Any:
        """Where numbers lie."""
        share = np.log(np.asarray(values, float) / self.low) / np.log(self.high / self.low)
        return self.start + share * (self.end - self.start)


@dataclass
class _Marks:
    """What one backend has in all panels."""

    lines: list[_Points] = field(default_factory=list)
    bars: list[_Points] = field(default_factory=list)


def against_batch(ax: Axes, frame: pd.DataFrame, quantity: Quantity, boxes: Mapping[str, Box]) -> None:
    """A quantity against batch size, a panel for each layer in `boxes`, a line per backend, for one op.

    Bars reach from the first to the third quartile of the rounds. The Axes is to cover its figure, in inches.
    """
    marks: defaultdict[str, _Marks] = defaultdict(_Marks)
    grid: list[list[tuple[float, float]]] = []
    frames: list[list[tuple[float, float]]] = []
    by_layer = dict(list(frame.groupby("layer", sort=False)))
    for layer, box in boxes.items():
        rows = by_layer[layer]
        values = _values(tables.timed(rows), quantity)
        across, down = _across(rows, box), _down(values, box)
        grid += [[(x, box.top), (x, box.top + box.height)] for x in across.place(across.ticks)]
        grid += [[(box.left, y), (box.left + box.width, y)] for y in down.place(down.ticks)]
        right, bottom = box.left + box.width, box.top + box.height
        frames.append([(box.left, box.top), (box.left, bottom), (right, bottom)])
        _letters(ax, box, across, down, quantity.unit if len(values) else "")
        for backend, mine in values.groupby("backend", sort=False):
            x = across.place(mine["batch"])
            middle, low, high = (down.place(mine[key]) for key in ("median", "low", "high"))
            marks[str(backend)].lines.append(np.column_stack([x, middle]))
            marks[str(backend)].bars += list(np.stack([np.stack([x, low], 1), np.stack([x, high], 1)], 1))
    ax.add_collection(LineCollection(grid, colors=GRID, linewidths=0.7, zorder=1), autolim=False)
    ax.add_collection(LineCollection(frames, colors=PALE, linewidths=0.8, zorder=1.5), autolim=False)
    for backend in tables.backends(tables.timed(frame)):
        _draw(ax, backend, marks[backend])


def _values(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The quantity of timed rows and its quartiles, small batches first: median, low, high."""
    values = {key: quantity.of(rows["batch"], rows[f"{key}_s"]) for key in ("q1", "median", "q3")}
    ends = np.sort([values["q1"], values["q3"]], axis=0)
    found = rows[["backend", "batch"]].assign(median=values["median"], low=ends[0], high=ends[1])
    return found.sort_values("batch", kind="stable")


def _across(rows: pd.DataFrame, box: Box) -> Scale:
    ticks, low, high = batch_ticks(sorted(rows["batch"].unique()))
    return Scale(low, high, box.left, box.left + box.width, ticks)


def _down(values: pd.DataFrame, box: Box) -> Scale:
    if values.empty:
        return Scale(1, 10, box.top + box.height, box.top, [])
    ticks, low, high = log_limits(values["low"].min(), values["high"].max())
    return Scale(low, high, box.top + box.height, box.top, ticks)


def _letters(ax: Axes, box: Box, across: Scale, down: Scale, unit: str) -> None:
    """The panel's title, its axes' numbers and units."""
    bottom, middle = box.top + box.height, box.left + box.width / 2
    small: dict[str, Any] = {"fontsize": SMALL, "color": INK}
    ax.text(
        middle, box.top - 0.07, box.title, ha="center", va="bottom", fontsize=MEDIUM, color=INK, weight="bold"
    )
    for tick, x in zip(across.ticks, across.place(across.ticks), strict=True):
        ax.text(x, bottom + 0.05, short(tick), ha="center", va="top", **small)
    ax.text(middle, bottom + 0.22, "batch size (images)", ha="center", va="top", **small)
    if not unit:
        ax.text(middle, box.top + box.height / 2, "nothing timed", ha="center", color=PALE, fontsize=MEDIUM)
        return
    for tick, y in zip(down.ticks, down.place(down.ticks), strict=True):
        ax.text(box.left - 0.05, y, short(tick), ha="right", va="center", **small)
    ax.text(box.left - 0.42, box.top + box.height / 2, unit, ha="right", va="center", rotation=90, **small)


def _draw(ax: Axes, backend: str, marks: _Marks) -> None:
    style = look(backend)
    ax.add_collection(
        LineCollection(marks.bars, colors=style.colour, linewidths=2.6, alpha=0.45, zorder=2), autolim=False
    )
    ax.add_collection(
        LineCollection(marks.lines, colors=style.colour, linewidths=1.3, linestyles=style.line, zorder=2.5),
        autolim=False,
    )
    ax.plot(*np.concatenate(marks.lines).T, **dots(backend), markersize=4.5)
