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

from reports import tables, words
from reports.axes import batch_ticks, log_limits
from reports.looks import GRID, INK, MEDIUM, PALE, SMALL, dots, look
from reports.wording import short
from reports.words import Word, Words

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
    letters = _Letters()
    values = _values(tables.timed(frame), quantity)
    by_layer = dict(list(values.groupby("layer", sort=False)))
    batches = frame.groupby("layer")["batch"].unique()
    for layer, box in boxes.items():
        here = by_layer.get(layer, values.iloc[:0])
        across, down = _across(batches[layer], box), _down(here, box)
        grid += [[(x, box.top), (x, box.top + box.height)] for x in across.place(across.ticks)]
        grid += [[(box.left, y), (box.left + box.width, y)] for y in down.place(down.ticks)]
        right, bottom = box.left + box.width, box.top + box.height
        frames.append([(box.left, box.top), (box.left, bottom), (right, bottom)])
        letters.add(ax, box, across, down, quantity.unit if len(here) else "")
        _mark(marks, here, across, down)
    _lines(ax, grid, colors=GRID, linewidths=0.7, snap=True, zorder=1)
    _lines(ax, frames, colors=PALE, linewidths=0.8, snap=True, zorder=1.5)
    letters.write(ax)
    for backend in tables.backends(values):
        _draw(ax, backend, marks[backend])


def _values(rows: pd.DataFrame, quantity: Quantity) -> pd.DataFrame:
    """The quantity of timed rows and its quartiles, small batches first: median, low, high."""
    values = {key: quantity.of(rows["batch"], rows[f"{key}_s"]) for key in ("q1", "median", "q3")}
    ends = np.sort([values["q1"], values["q3"]], axis=0)
    found = rows[["layer", "backend", "batch"]].assign(median=values["median"], low=ends[0], high=ends[1])
    return found.sort_values("batch", kind="stable")


def _mark(marks: Mapping[str, _Marks], values: pd.DataFrame, across: Scale, down: Scale) -> None:
    """Add what each backend has in a panel."""
    x = across.place(values["batch"])
    middle, low, high = (down.place(values[key]) for key in ("median", "low", "high"))
    line, bars = np.stack([x, middle], 1), np.stack([np.stack([x, low], 1), np.stack([x, high], 1)], 1)
    names = values["backend"].to_numpy()
    for backend in dict.fromkeys(names):
        marks[backend].lines.append(line[names == backend])
        marks[backend].bars += list(bars[names == backend])


def _across(batches: Sequence[int], box: Box) -> Scale:
    ticks, low, high = batch_ticks(sorted(batches))
    return Scale(low, high, box.left, box.left + box.width, ticks)


def _down(values: pd.DataFrame, box: Box) -> Scale:
    if values.empty:
        return Scale(1, 10, box.top + box.height, box.top, [])
    ticks, low, high = log_limits(values["low"].min(), values["high"].max())
    return Scale(low, high, box.top + box.height, box.top, ticks)


@dataclass
class _Letters:
    """The words of all panels, by how they are written."""

    titles: list[Word] = field(default_factory=list)
    below: list[Word] = field(default_factory=list)
    beside: list[Word] = field(default_factory=list)

    def add(self, ax: Axes, box: Box, across: Scale, down: Scale, unit: str) -> None:
        """A panel's title, its axes' numbers and units."""
        bottom, middle = box.top + box.height, box.left + box.width / 2
        lines = box.title.split("\n")
        step = words.LINE * MEDIUM / 72
        self.titles += [
            Word(middle, box.top - 0.07 - (len(lines) - number) * step, line)
            for number, line in enumerate(lines, 1)
        ]
        places = across.place(across.ticks)
        self.below += [
            Word(x, bottom + 0.05, short(tick)) for tick, x in zip(across.ticks, places, strict=True)
        ]
        self.below.append(Word(middle, bottom + 0.22, "batch size (images)"))
        if not unit:
            nothing = "nothing timed"
            ax.text(middle, box.top + box.height / 2, nothing, ha="center", color=PALE, fontsize=MEDIUM)
            return
        places = down.place(down.ticks)
        self.beside += [
            Word(box.left - 0.05, y, short(tick)) for tick, y in zip(down.ticks, places, strict=True)
        ]
        ax.text(
            box.left - 0.42, box.top + box.height / 2, unit, ha="right", va="center", rotation=90,
            fontsize=SMALL, color=INK,
        )  # fmt: skip

    def write(self, ax: Axes) -> None:
        """Put all of them on the Axes."""
        Words(ax, self.titles, MEDIUM, words.ABOVE, weight="bold")
        Words(ax, self.below, SMALL, words.BELOW)
        Words(ax, self.beside, SMALL, align="right")


def _draw(ax: Axes, backend: str, marks: _Marks) -> None:
    style = look(backend)
    _lines(ax, marks.bars, colors=style.colour, linewidths=2.6, alpha=0.45, zorder=2)
    _lines(ax, marks.lines, colors=style.colour, linewidths=1.3, linestyles=style.line, zorder=2.5)
    ax.plot(*np.concatenate(marks.lines).T, **dots(backend), markersize=4.5)


def _lines(ax: Axes, lines: Sequence[Any], **style: Any) -> None:
    """All of these lines as one path with gaps, which is smaller in an SVG, and drawn sooner."""
    gap = np.full((1, 2), np.nan)
    path = np.concatenate([points for line in lines for points in (line, gap)])
    ax.add_collection(LineCollection([path], **style), autolim=False)
