"""Figures: each function draws rows of `tables.latest` on the Axes that it is given.

A backend has one colour and one marker in every figure. The colours of the project's own backends are
those of Okabe and Ito, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/);
markers, and names in cells, say the same without colour.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports import tables
from reports.wording import clip, short, times

INK = "#222222"
PALE = "#8a8a8a"
GRID = "#e4e4e4"
SMALL, MEDIUM, LARGE = 7.5, 8.5, 10.0  # points; the page shows a point as 1.39 pixels
LEAST_MIB = 2.0**-10  # what allocates less is drawn at 1 KiB: a logarithmic axis has no zero


@dataclass(frozen=True)
class Look:
    """How a backend is drawn."""

    colour: str
    marker: str
    line: Literal["-", "--", ":"] = "-"


_LOOKS = {
    "loops": Look("#000000", "o"),
    "window": Look("#E69F00", "s"),
    "im2col": Look("#56B4E9", "^"),
    "einsum": Look("#009E73", "D"),
    "numba": Look("#D55E00", "v"),
    "tiled": Look("#0072B2", "P"),
    "winograd": Look("#CC79A7", "X"),
    "fft": Look("#F0E442", "h"),
    # Peers: dashed, and darker or greyer than the project's own.
    "torch": Look("#882255", "<", "--"),
    "jax": Look("#44AA99", ">", "--"),
    "onnxruntime": Look("#999933", "d", "--"),
    "openvino": Look("#332288", "8", "--"),
    "scipy": Look("#777777", "p", "--"),
}
_SHORT_NAMES = {"onnxruntime": "onnxrt"}  # what fits into a cell
_SPARE_COLOURS = ("#AA4499", "#117733", "#661100", "#6699CC", "#AA4466", "#4477AA")
_SPARE_MARKERS = ("*", "8", "H", "p", "d", "<", ">")


def look(backend: str) -> Look:
    """The look of a backend; an unknown one gets a spare one that depends on its name alone."""
    if backend in _LOOKS:
        return _LOOKS[backend]
    number = zlib.crc32(backend.encode())
    colour = _SPARE_COLOURS[number % len(_SPARE_COLOURS)]
    marker = _SPARE_MARKERS[number // len(_SPARE_COLOURS) % len(_SPARE_MARKERS)]
    return Look(colour, marker, ":")


def throughput(ax: Axes, frame: pd.DataFrame) -> None:
    """Images per second against batch size, a line per backend, for the rows of one layer and op.

    Bars reach from the first to the third quartile of the rounds.
    """
    rows = tables.timed(frame)
    for backend in tables.backends(rows):
        line = rows[rows["backend"] == backend].sort_values("batch")
        style = look(backend)
        middle = line["images_per_s"]
        low, high = line["batch"] / line["q3_s"], line["batch"] / line["q1_s"]
        spread = np.clip(np.array([middle - low, high - middle]), 0, None)
        ax.errorbar(
            line["batch"], middle, yerr=spread, label=backend, color=style.colour, linestyle=style.line,
            linewidth=1.3, marker=style.marker, markersize=4.5, markeredgecolor=INK, markeredgewidth=0.4,
            elinewidth=1.1, capsize=2.2,
        )  # fmt: skip
    _batch_axis(ax, sorted(frame["batch"].unique()))
    if rows.empty:
        ax.set_yticks([])
        ax.text(0.5, 0.5, "nothing timed", transform=ax.transAxes, ha="center", color=PALE, fontsize=MEDIUM)
    else:
        _real_numbers(ax, "y", (rows["batch"] / rows["q3_s"]).min(), (rows["batch"] / rows["q1_s"]).max())
    ax.set_ylabel("images/s", fontsize=SMALL, color=INK)
    _plain(ax)


def fastest(ax: Axes, frame: pd.DataFrame, layers: Sequence[str], batches: Sequence[int]) -> None:
    """A map of the fastest backend, a row per layer and a column per batch size, for the rows of one op.

    A cell names the backend and its lead over the runner-up, in brackets where their quartile ranges
    overlap. Hatched cells have rows, but no times; blank ones have no rows.
    """
    cells = frame.groupby(["layer", "batch"])["status"].agg(set).reset_index()
    for row in tables.records(cells):
        if "timed" in row.status:
            continue
        corner, failed = (batches.index(row.batch), layers.index(row.layer)), "failed" in row.status
        ax.add_patch(Rectangle(corner, 1, 1, facecolor="#f3f3f3", edgecolor="#cfcfcf", hatch="////", lw=0))
        _cell(ax, corner, "failed" if failed else "skipped", "", "#b00020" if failed else "#666666")
    for row in tables.records(tables.fastest(frame)):
        corner = (batches.index(row.batch), layers.index(row.layer))
        colour = look(row.backend).colour
        ax.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", lw=1.5))
        lead = "" if math.isnan(row.margin) else times(row.margin)
        _cell(ax, corner, row.backend, lead if row.clear or not lead else f"({lead})", _ink_on(colour))
    ax.set_xlim(0, len(batches))
    ax.set_ylim(len(layers), 0)
    ax.set_xticks(np.arange(len(batches)) + 0.5, [short(batch) for batch in batches])
    ax.set_yticks(np.arange(len(layers)) + 0.5, [clip(layer, 40) for layer in layers])
    ax.set_xlabel("batch size (images)", fontsize=SMALL, color=INK)
    ax.set_ylabel("layer", fontsize=SMALL, color=INK)
    ax.tick_params(length=0, labelsize=MEDIUM, colors=INK, labeltop=True)  # a map may be tall
    for side in ax.spines.values():
        side.set_visible(False)


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
    ax.barh(matrix.index, matrix, height=0.72, color="#dedede", label="im2col's matrix", zorder=1)
    for backend in tables.backends(peaks):
        rows, style = peaks[peaks["backend"] == backend], look(backend)
        ax.plot(
            rows["peak_mib"], rows["row"], linestyle="none", label=backend, marker=style.marker, markersize=6,
            color=style.colour, markeredgecolor=INK, markeredgewidth=0.4, zorder=3, alpha=0.9,
        )  # fmt: skip
    _real_numbers(ax, "x", low, high)
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_yticks(range(len(layers)), [clip(layer, 46) for layer in layers])
    ax.tick_params(axis="x", labeltop=len(layers) > 20)  # the lower labels are far away then
    ax.set_xlabel("peak memory (MiB)", fontsize=SMALL, color=INK)
    ax.set_ylabel("layer", fontsize=SMALL, color=INK)
    _plain(ax)


def legend_handles(backends: Sequence[str]) -> list[Line2D]:
    """What a legend shows for each backend."""
    return [
        Line2D(
            [], [], label=backend, color=style.colour, linestyle=style.line, linewidth=1.3,
            marker=style.marker, markersize=6, markeredgecolor=INK, markeredgewidth=0.4,
        )
        for backend in backends
        for style in [look(backend)]
    ]  # fmt: skip


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Two to `most` round numbers for a logarithmic axis from `low` to `high`.

    The finest of some series that has no more than `most` in the range; where it has fewer than two, the
    numbers around the range.
    """
    for values in _series(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        inside = [value for value in values if low / 1.05 <= value <= high * 1.05]
        if len(inside) < 2:
            first = max(sum(value <= low for value in values) - 1, 0)
            last = max(len(values) - sum(value >= high for value in values), first + 1)
            return values[first : last + 1]
        if len(inside) <= most:
            return inside
    return inside


def _series(first: int, last: int) -> Iterator[list[float]]:
    """Round numbers between two powers of ten, from 1 2 5 10 to one in six decades."""
    powers = range(first, last + 1)
    for digits in ((1, 2, 5), (1, 3)):
        yield [float(f"{digit}e{power}") for power in powers for digit in digits]
    for step in (1, 2, 3, 6):
        yield [float(f"1e{power}") for power in powers if power % step == 0]


def _real_numbers(ax: Axes, which: str, low: float, high: float) -> None:
    """A logarithmic axis with room at its ends, labelled with numbers, not powers."""
    chosen = ticks(low, high)
    low, high = min(chosen[0], low), max(chosen[-1], high)
    room = 1.06 * (high / low) ** 0.05
    if which == "x":
        ax.set_xscale("log")
        ax.set_xlim(low / room, high * room)
        _fix(ax.xaxis, chosen)
    else:
        ax.set_yscale("log")
        ax.set_ylim(low / room, high * room)
        _fix(ax.yaxis, chosen)


def _batch_axis(ax: Axes, batches: Sequence[int]) -> None:
    """The batch sizes as they are, on a logarithmic axis; where they crowd, every second one, or fewer."""
    ax.set_xscale("log")
    ax.set_xlim(batches[0] / 1.3, batches[-1] * 1.3)
    span = math.log(batches[-1] * 1.3**2 / batches[0])
    shown = [batches[-1]]
    for batch in reversed(batches[:-1]):
        if math.log(shown[-1] / batch) > 0.11 * span:
            shown.append(batch)
    _fix(ax.xaxis, [float(batch) for batch in reversed(shown)])
    ax.set_xlabel("batch size (images)", fontsize=SMALL, color=INK)


def _fix(axis: Axis, values: Sequence[float]) -> None:
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.set_minor_locator(NullLocator())


def _plain(ax: Axes) -> None:
    ax.grid(visible=True, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=SMALL, colors=INK, length=2.5)
    for name, side in ax.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(PALE)


def _cell(ax: Axes, corner: tuple[int, int], name: str, below: str, colour: str) -> None:
    x, y = corner[0] + 0.5, corner[1] + 0.5
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": colour, "clip_on": True}
    shift = 0.2 if below else 0.0
    ax.text(x, y - shift, _SHORT_NAMES.get(name) or clip(name, 8), fontsize=SMALL, fontweight="bold", **style)
    if below:
        ax.text(x, y + shift, below, fontsize=SMALL, **style)


def _ink_on(colour: str) -> str:
    """Black or white, whichever stands out more on `colour` (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "white" if luminance < 0.18 else "black"
