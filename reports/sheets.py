"""Sheets: whole figures, of panels that `figures` draws, as PNG.

Sizes are in inches and add up, so that nothing has to be fitted: a sheet grows with its layers.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports import figures, tables
from reports.wording import FAMILIES, OP_NAMES, count, short

DPI = 150
SHOWN_DPI = 100
"""Pixels per inch at which the page shows a sheet; there are more in it, for sharp screens."""
_COLUMNS = 4
_LINE = 0.16  # the height of a line of a title
_TITLE = 30  # characters of a panel's title that fit on a line


@dataclass(frozen=True)
class Sheet:
    """A PNG: file name, heading, description for those who cannot see it, size on the page in pixels."""

    name: str
    heading: str
    alt: str
    png: bytes
    width: int
    height: int


def throughput_sheets(frame: pd.DataFrame, suffix: str = "") -> Iterator[Sheet]:
    """Throughput against batch size, a panel per layer, a sheet per op of convolutions and of pooling."""
    for op in tables.ops(frame):
        for family in FAMILIES:
            rows = frame[(frame["op"] == op) & (frame["family"] == family)]
            if len(tables.timed(rows)):
                heading = f"{family.capitalize()}, {OP_NAMES.get(op, op)}"
                alt = f"{heading}: throughput in images/s against batch size"
                yield _sheet(f"throughput-{op}-{family}{suffix}.png", heading, alt, draw_throughput(rows))


def fastest_sheet(frame: pd.DataFrame, suffix: str = "") -> Sheet:
    """The maps of the fastest backend, one per op, side by side."""
    alt = "Fastest backend per layer, batch size and op"
    return _sheet(f"fastest{suffix}.png", "Fastest backend", alt, draw_fastest(frame))


def memory_sheet(frame: pd.DataFrame, suffix: str = "") -> Sheet:
    """Peak memory, a panel per op, side by side; `frame` is `tables.memory`."""
    alt = "Peak memory per layer, backend and op, in MiB"
    return _sheet(f"memory{suffix}.png", "Peak memory", alt, draw_memory(frame))


def draw_throughput(frame: pd.DataFrame) -> Figure:
    """Panels of `figures.throughput` for the rows of one op."""
    layers = tables.layers(frame)
    titles = [textwrap.wrap(layer, _TITLE) or [""] for layer in layers]
    lines = max(map(len, titles))
    columns = min(_COLUMNS, len(layers))
    rows = -(-len(layers) // columns)
    backends = tables.backends(tables.timed(frame))
    panel, gap, left = (2.2, 1.65), (0.68, 0.55 + _LINE * lines), 0.68
    top = _legend_height(len(backends), columns * 2.88) + _LINE * lines + 0.1
    width = left + columns * panel[0] + (columns - 1) * gap[0] + 0.15
    height = top + rows * panel[1] + (rows - 1) * gap[1] + 0.5
    figure = _figure(width, height)
    for number, (layer, title) in enumerate(zip(layers, titles, strict=True)):
        row, column = divmod(number, columns)
        x, y = left + column * (panel[0] + gap[0]), top + row * (panel[1] + gap[1])
        ax = _axes(figure, x, y, *panel)
        figures.throughput(ax, frame[frame["layer"] == layer])
        ax.set_title("\n".join(title), fontsize=figures.MEDIUM, color=figures.INK, fontweight="bold", pad=5)
    _legend(figure, figures.legend_handles(backends), width)
    return figure


def draw_fastest(frame: pd.DataFrame) -> Figure:
    """Maps of `figures.fastest`, one per op, with the same rows."""
    layers, ops = tables.layers(frame), tables.ops(frame)
    batches = sorted(int(batch) for batch in frame["batch"].unique())
    cell, gap, top = (0.67, 0.4), 0.22, 0.62
    left = 0.5 + _label_width(layers, 40, figures.MEDIUM)
    map_width = max(cell[0] * len(batches), 1.4)
    width = left + len(ops) * map_width + (len(ops) - 1) * gap + 0.15
    height = top + cell[1] * len(layers) + 0.5
    figure = _figure(width, height)
    for number, op in enumerate(ops):
        ax = _axes(figure, left + number * (map_width + gap), top, map_width, cell[1] * len(layers))
        figures.fastest(ax, frame[frame["op"] == op], layers, batches)
        ax.set_title(op, fontsize=figures.LARGE, color=figures.INK, fontweight="bold")
        if number:
            _share_rows(ax)
    return figure


def draw_memory(frame: pd.DataFrame) -> Figure:
    """Panels of `figures.memory`, one per op, with the same rows."""
    layers, ops, backends = tables.layers(frame), tables.ops(frame), tables.backends(frame)
    left, row, gap = 0.45 + _label_width(layers, 46, figures.SMALL), 0.3, 0.4
    panel = (min(3.1, 9.6 / len(ops)), row * max(len(layers), 3))
    width = left + len(ops) * panel[0] + (len(ops) - 1) * gap + 0.25
    top = _legend_height(len(backends) + 1, width) + 0.45
    figure = _figure(width, top + panel[1] + 0.5)
    for number, op in enumerate(ops):
        ax = _axes(figure, left + number * (panel[0] + gap), top, *panel)
        figures.memory(ax, frame[frame["op"] == op], layers)
        title = f"{op}, batch {short(frame['batch'].iloc[0])}"
        ax.set_title(title, fontsize=figures.LARGE, color=figures.INK, fontweight="bold")
        if number:
            _share_rows(ax)
    handles: list[Line2D | Patch] = [Patch(color="#dedede", label="im2col's matrix")]
    for handle in figures.legend_handles(backends):
        handle.set_linestyle("none")
        handles.append(handle)
    _legend(figure, handles, width)
    return figure


def _share_rows(ax: Axes) -> None:
    """Leave out the names of the rows: the first panel has them."""
    ax.tick_params(axis="y", labelleft=False)
    ax.set_ylabel("")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes whose upper left corner is x inches from the left and y from the top."""
    across, down = figure.get_size_inches()
    return figure.add_axes((x / across, 1 - (y + height) / down, width / across, height / down))


def _label_width(labels: Sequence[str], most: int, size: float) -> float:
    """The inches that tick labels take, at 0.56 em a character."""
    return min(max(map(len, labels)), most) * 0.56 * size / 72


def _per_line(width: float) -> int:
    return max(int(width / 1.25), 1)


def _legend_height(entries: int, width: float) -> float:
    return 0.15 + 0.24 * -(-entries // _per_line(width))


def _legend(figure: Figure, handles: Sequence[Line2D | Patch], width: float) -> None:
    figure.legend(
        handles=list(handles), loc="upper center", ncols=min(len(handles), _per_line(width)), frameon=False,
        fontsize=figures.MEDIUM, labelcolor=figures.INK, columnspacing=1.6, handlelength=1.8, borderpad=0.2,
    )  # fmt: skip


def _sheet(name: str, heading: str, alt: str, figure: Figure) -> Sheet:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    width, height = (round(inches * SHOWN_DPI) for inches in figure.get_size_inches())
    alt = f"{alt} ({count(len(figure.axes), 'panel')})"
    return Sheet(name, heading, alt, buffer.getvalue(), width, height)
