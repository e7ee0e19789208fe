"""The ladder: one layer, and what each rewriting of it buys, from the slowest backend to the fastest."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import tables
from reports.axes import plain, real_numbers
from reports.looks import INK, LARGE, MEDIUM, SMALL, look
from reports.wording import seconds, times

_RUNG = ["backend", "seconds", "predicted", "step", "total"]


class Place(NamedTuple):
    """Where backends are compared: an op on a layer at a batch size, in one setting."""

    op: str
    layer: str
    batch: int

    @property
    def title(self) -> str:
        """The place in words."""
        return f"{self.layer}, {self.op}, batch {self.batch:,}"


def rungs(frame: pd.DataFrame, place: Place) -> pd.DataFrame:
    """The backends at a place of one setting, the slowest first.

    Columns: backend, seconds (of a call), predicted (a skipped backend's time is), step (over the rung
    before; NaN for the first) and total (over the first).
    """
    op, layer, batch = place
    here = frame[(frame["op"] == op) & (frame["layer"] == layer) & (frame["batch"] == batch)]
    return _steps(_known(here))[_RUNG].reset_index(drop=True)


def all_rungs(frame: pd.DataFrame) -> Iterator[tuple[Place, list[Any]]]:
    """Every place of one setting with at least two rungs, ops, layers and batch sizes in their order.

    A rung is a named tuple with the columns of `rungs`, among others.
    """
    known = _known(frame)
    by_place: defaultdict[Place, list[Any]] = defaultdict(list)
    for rung in tables.records(_steps(known)):
        by_place[Place(rung.op, rung.layer, rung.batch)].append(rung)
    batches = sorted(known["batch"].unique())
    for place in itertools.starmap(
        Place, itertools.product(tables.ops(known), tables.layers(known), batches)
    ):
        if len(by_place[place]) >= 2:
            yield place, by_place[place]


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with a time, measured or predicted, as `seconds` and `predicted`."""
    predicted = frame["status"].eq("skipped")
    seconds_ = frame["median_s"].where(~predicted, frame["predicted_s"])
    return frame.assign(seconds=seconds_, predicted=predicted).dropna(subset=["seconds"])


def _steps(known: pd.DataFrame) -> pd.DataFrame:
    """The rows of `_known`, the slowest first, with their factors within each place."""
    found = known[[*Place._fields, "backend", "seconds", "predicted"]]
    found = found.sort_values("seconds", ascending=False, kind="stable")
    times_ = found.groupby(list(Place._fields), sort=False)["seconds"]
    return found.assign(
        step=times_.shift() / found["seconds"], total=times_.transform("max") / found["seconds"]
    )


def example(frame: pd.DataFrame, layer: str | None = None) -> Place | None:
    """The place that a report shows first: of `layer`, or the most telling; None where there is none.

    That has the most rungs; among these a convolution, the earliest op, the most work.
    """
    known = _known(frame if layer is None else frame[frame["layer"] == layer])
    facts = known.groupby(["op", "layer", "batch"]).agg(
        rungs=("backend", "size"), flops=("flops", "max"), family=("family", "first")
    )
    facts = facts[facts["rungs"] >= 2].reset_index()
    if facts.empty:
        return None
    order = facts["op"].map(tables.ops(facts).index)
    best = facts.assign(order=order).sort_values(
        ["rungs", "family", "order", "flops"], ascending=[False, True, True, False], kind="stable"
    )
    return Place(best["op"].iloc[0], best["layer"].iloc[0], int(best["batch"].iloc[0]))


def draw(ax: Axes, steps: pd.DataFrame, place: Place) -> None:
    """Bars of `rungs`, the slowest at the top, each with its time and the factor over the bar above."""
    heights = np.arange(len(steps))
    for height, row in zip(heights, tables.records(steps), strict=True):
        about = "≈ " if row.predicted else ""
        style = look(row.backend)
        ax.barh(
            height,
            row.seconds * 1e3,
            color="none" if row.predicted else style.colour,
            edgecolor=style.colour,
            height=0.62,
        )
        step = "" if height == 0 else f", {times(row.step)} faster"
        ax.annotate(
            f"{about}{seconds(row.seconds)}{step}", (row.seconds * 1e3, height), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=SMALL, color=INK,
        )  # fmt: skip
    low, high = steps["seconds"].min() / 3, steps["seconds"].max()
    real_numbers(ax, "x", low * 1e3, high * 1e3)
    ax.set_yticks(heights, steps["backend"])
    ax.set_ylim(len(steps) - 0.4, -0.6)
    ax.set_xlabel("ms a call", fontsize=SMALL, color=INK)
    ax.set_title(place.title, fontsize=LARGE, color=INK, fontweight="bold")
    plain(ax)
    ax.tick_params(axis="y", labelsize=MEDIUM, left=False)
