"""Sheets: whole figures, of panels that other modules draw.

Sizes are in inches and add up, so that nothing has to be fitted: a sheet grows with its layers.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from reports import figures, ladder, panels, scatter, tables
from reports.axes import NAME_LENGTH
from reports.looks import BAR, INK, LARGE, MEDIUM, SMALL, legend_handles
from reports.machines import Ceiling
from reports.saving import DPI, Sheet, save
from reports.wording import FAMILIES, OP_NAMES, count, short

_COLUMNS = 4
_LINE = 0.16  # the height of a line of a title
_TITLE = 30  # characters of a panel's title that fit on a line
_ROW = 0.3  # the height of a layer in a panel of rows
_SQUARE = (3.3, 2.7)  # a panel of points

Handles = list[Line2D | Patch]


def batch_panels(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The ops and families of which something was timed: a sheet against batch size each."""
    known = tables.timed(frame)[["op", "family"]].drop_duplicates()
    there = set(known.itertuples(index=False, name=None))
    return [(op, family) for op in tables.ops(known) for family in FAMILIES if (op, family) in there]


def batch_sheet(
    frame: pd.DataFrame, op: str, family: str, quantity: panels.Quantity, suffix: str = ""
) -> Sheet:
    """A quantity against batch size, a panel per layer, for an op of convolutions or of pooling."""
    rows = frame[(frame["op"] == op) & (frame["family"] == family)]
    heading = f"{family.capitalize()}, {OP_NAMES.get(op, op)}"
    layers = count(rows["layer"].nunique(), "layer")
    alt = f"{heading}: {quantity.name} in {quantity.unit} against batch size, on {layers}"
    name = f"{quantity.name}-{op}-{family}{suffix}"
    return save(name, heading, alt, draw_against_batch(rows, quantity))


def fastest_sheet(frame: pd.DataFrame, suffix: str = "") -> Sheet:
    """The maps of the fastest backend, one per op, side by side."""
    alt = "Fastest backend per layer, batch size and op"
    return save(f"fastest{suffix}", "Fastest backend", alt, draw_fastest(frame), grounds=True)


def speedup_sheet(ratios: pd.DataFrame, baseline: str, suffix: str = "") -> Sheet:
    """Speed-ups over the baseline, a panel per op; `ratios` is of `tables.at_largest_batch`."""
    alt = f"Speed-ups over {baseline} per layer, backend and op"
    return save(f"speedup{suffix}", f"Speed-ups over {baseline}", alt, draw_speedups(ratios))


def roofline_sheet(frame: pd.DataFrame, ceiling: Ceiling | None, suffix: str = "") -> Sheet:
    """The roofline, a panel per op; `frame` is `tables.relative`."""
    alt = "GFLOP/s against FLOP per byte, with the measured ceilings"
    return save(f"roofline{suffix}", "Roofline", alt, draw_roofline(frame, ceiling))


def memory_sheet(peaks: pd.DataFrame, suffix: str = "") -> Sheet:
    """Peak memory, a panel per op, side by side; `peaks` is `tables.memory`."""
    alt = "Peak memory per layer, backend and op, in MiB"
    return save(f"memory{suffix}", "Peak memory", alt, draw_memory(peaks))


def memory_speed_sheet(frame: pd.DataFrame, suffix: str = "") -> Sheet:
    """Memory against speed, a panel per op; `frame` is `tables.relative` with known peaks."""
    alt = "Peak memory as a multiple of the arrays against speed"
    return save(f"memory-speed{suffix}", "Memory against speed", alt, draw_memory_speed(frame))


def error_speed_sheet(frame: pd.DataFrame, suffix: str = "") -> Sheet:
    """Error against speed, a panel per op; `frame` is `tables.relative`."""
    alt = "Error relative to the largest output against speed"
    return save(f"error-speed{suffix}", "Error against speed", alt, draw_error_speed(frame))


def ladder_sheet(steps: pd.DataFrame, place: ladder.Place, suffix: str = "") -> Sheet:
    """The ladder of one place; `steps` is `ladder.rungs`."""
    alt = f"Time of a call of each backend on {place.title}"
    return save(f"ladder{suffix}", place.title, alt, draw_ladder(steps, place))


def draw_against_batch(frame: pd.DataFrame, quantity: panels.Quantity) -> Figure:
    """The panels of `panels.against_batch` for the rows of one op."""
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
    boxes = {
        layer: panels.Box(
            left + number % columns * (panel[0] + gap[0]),
            top + number // columns * (panel[1] + gap[1]),
            *panel,
            title="\n".join(title),
        )
        for number, (layer, title) in enumerate(zip(layers, titles, strict=True))
    }
    panels.against_batch(_inches(figure), frame, quantity, boxes)
    _legend(figure, legend_handles(backends), width)
    return figure


def draw_fastest(frame: pd.DataFrame) -> Figure:
    """Maps of `figures.fastest`, one per op, with the same rows."""
    layers, ops = tables.layers(frame), tables.ops(frame)
    batches = sorted(int(batch) for batch in frame["batch"].unique())
    cell, gap, top = (0.67, 0.4), 0.22, 0.62
    left = 0.5 + _label_width(layers, 40, MEDIUM)
    map_width = max(cell[0] * len(batches), 1.4)
    width = left + len(ops) * map_width + (len(ops) - 1) * gap + 0.15
    height = top + cell[1] * len(layers) + 0.5
    figure = _figure(width, height)
    for number, op in enumerate(ops):
        ax = _axes(figure, left + number * (map_width + gap), top, map_width, cell[1] * len(layers))
        figures.fastest(ax, frame[frame["op"] == op], layers, batches)
        ax.set_title(op, fontsize=LARGE, color=INK, fontweight="bold")
        if number:
            _share_rows(ax)
    return figure


def draw_speedups(ratios: pd.DataFrame) -> Figure:
    """Panels of `figures.speedups`, one per op, with the same rows."""
    return _rows(ratios, figures.speedups, lambda rows: "", _points(tables.backends(ratios)))


def draw_memory(peaks: pd.DataFrame) -> Figure:
    """Panels of `figures.memory`, one per op, with the same rows."""
    matrix = Patch(color=BAR, label="im2col's matrix")
    batch = f", batch {short(peaks['batch'].iloc[0])}"
    return _rows(peaks, figures.memory, lambda rows: batch, [matrix, *_points(tables.backends(peaks))])


def draw_roofline(frame: pd.DataFrame, ceiling: Ceiling | None) -> Figure:
    """Panels of `scatter.roofline`, one per op."""
    return _squares(frame, lambda ax, rows: scatter.roofline(ax, rows, ceiling))


def draw_memory_speed(frame: pd.DataFrame) -> Figure:
    """Panels of `scatter.memory_against_speed`, one per op."""
    return _squares(frame, scatter.memory_against_speed)


def draw_error_speed(frame: pd.DataFrame) -> Figure:
    """Panels of `scatter.error_against_speed`, one per op."""
    return _squares(frame, scatter.error_against_speed)


def draw_ladder(steps: pd.DataFrame, place: ladder.Place) -> Figure:
    """The panel of `ladder.draw`."""
    left, panel, top = 0.3 + _label_width(list(steps["backend"]), 20, MEDIUM), (5.2, _ROW * len(steps)), 0.4
    figure = _figure(left + panel[0] + 1.9, top + panel[1] + 0.5)
    ladder.draw(_axes(figure, left, top, *panel), steps, place)
    return figure


def _rows(
    frame: pd.DataFrame,
    draw: Callable[[Axes, pd.DataFrame, list[str]], None],
    more: Callable[[pd.DataFrame], str],
    handles: Handles,
) -> Figure:
    """Panels side by side, one per op, with a row for each layer; `more` follows the op in a title."""
    layers, ops = tables.layers(frame), tables.ops(frame)
    left, gap = 0.45 + _label_width(layers, NAME_LENGTH, SMALL), 0.4
    panel = (min(3.1, 9.6 / len(ops)), _ROW * max(len(layers), 3))
    width = left + len(ops) * panel[0] + (len(ops) - 1) * gap + 0.25
    top = _legend_height(len(handles), width) + 0.45
    figure = _figure(width, top + panel[1] + 0.5)
    for number, op in enumerate(ops):
        ax = _axes(figure, left + number * (panel[0] + gap), top, *panel)
        rows = frame[frame["op"] == op]
        draw(ax, rows, layers)
        ax.set_title(f"{op}{more(rows)}", fontsize=LARGE, color=INK, fontweight="bold")
        if number:
            _share_rows(ax)
    _legend(figure, handles, width)
    return figure


def _squares(frame: pd.DataFrame, draw: Callable[[Axes, pd.DataFrame], None]) -> Figure:
    """Panels of points side by side, one per op."""
    ops, left, gap = tables.ops(frame), 0.75, 0.75
    width = left + len(ops) * _SQUARE[0] + (len(ops) - 1) * gap + 0.2
    handles = _points(tables.backends(frame))
    top = _legend_height(len(handles), width) + 0.4
    figure = _figure(width, top + _SQUARE[1] + 0.5)
    for number, op in enumerate(ops):
        ax = _axes(figure, left + number * (_SQUARE[0] + gap), top, *_SQUARE)
        draw(ax, frame[frame["op"] == op])
        ax.set_title(op, fontsize=LARGE, color=INK, fontweight="bold", loc="left")
    _legend(figure, handles, width)
    return figure


def _points(backends: Sequence[str]) -> Handles:
    """The handles of a legend without lines."""
    handles: Handles = []
    for handle in legend_handles(backends):
        handle.set_linestyle("none")
        handles.append(handle)
    return handles


def _share_rows(ax: Axes) -> None:
    """Leave out the names of the rows: the first panel has them."""
    ax.tick_params(axis="y", labelleft=False)
    ax.set_ylabel("")


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _inches(figure: Figure) -> Axes:
    """Axes over the whole figure that count in inches from its upper left corner."""
    width, height = figure.get_size_inches()
    ax = figure.add_axes((0, 0, 1, 1), facecolor="none")
    ax.set_axis_off()
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    return ax


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes whose upper left corner is x inches from the left and y from the top."""
    across, down = figure.get_size_inches()
    place = (x / across, 1 - (y + height) / down, width / across, height / down)
    return figure.add_axes(place, facecolor="none")


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
        fontsize=MEDIUM, labelcolor=INK, columnspacing=1.6, handlelength=1.8, borderpad=0.2,
    )  # fmt: skip
