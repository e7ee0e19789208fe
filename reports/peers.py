"""Other libraries beside convbench: what `convbench peers` saved, as a DataFrame, a table and a figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.figures import GRID, INK, MEDIUM, SMALL, legend_handles, look, ticks
from reports.wording import OP_NAMES, in_order, short

OURS = "convbench"
VERSION = 1
MODES = {"fresh": "fresh outputs", "out": "written into out"}
_PEERS = ("torch", "onnxruntime", "openvino", "jax", "scipy")


def load(path: Path) -> pd.DataFrame:
    """A row for each layer, op, library, backend and mode, with `median_s`, `q1_s`, `q3_s`, `calls`, `error`.

    Raises ValueError for a file that is none of `convbench peers`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["convbench_peers"] != VERSION:
            raise ValueError(f"version {content['convbench_peers']}")
        return pd.DataFrame(content["rows"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no comparison with peers; expected a file of `convbench peers`"
        ) from error


def best(frame: pd.DataFrame, op: str, mode: str) -> pd.DataFrame:
    """The fastest row of each layer and library, for one op and mode: of ours, the backend that won."""
    rows = frame[(frame["op"] == op) & (frame["mode"] == mode)]
    fastest = rows.loc[rows.groupby(["layer", "library"], sort=False)["median_s"].idxmin()]
    return fastest.reset_index(drop=True)


def peers(frame: pd.DataFrame) -> list[str]:
    """The other libraries, in their order."""
    return in_order((name for name in frame["library"].unique() if name != OURS), _PEERS)


def ratios(frame: pd.DataFrame, op: str, mode: str) -> pd.DataFrame:
    """The times of peers over ours, a row a layer, a column a peer, then "best peer": the least of them.

    Above 1, ours is the faster one.
    """
    rows = best(frame, op, mode)
    if rows.empty:
        return pd.DataFrame()
    medians = rows.pivot_table(index="layer", columns="library", values="median_s", sort=False)
    if OURS not in medians or len(medians.columns) < 2:
        return pd.DataFrame()
    found = medians[[name for name in peers(frame) if name in medians]].div(medians[OURS], axis=0)
    found["best peer"] = found.min(axis=1)
    return found.dropna(how="all")


def means(table: pd.DataFrame) -> dict[str, float]:
    """The geometric mean of each column of `ratios`, over the layers that it has."""
    return {str(name): float(np.exp(np.log(column).mean())) for name, column in table.items()}


def draw(ax: Axes, table: pd.DataFrame) -> None:
    """Ratios by layer on a logarithmic axis, a marker for each peer; right of 1, convbench is faster."""
    layers = list(table.index)
    columns = [name for name in table.columns if name != "best peer"]
    for name in columns:
        style = look(name)
        ax.plot(
            table[name], range(len(layers)), linestyle="none", marker=style.marker, markersize=6,
            color=style.colour, markeredgecolor=INK, markeredgewidth=0.4, zorder=3,
        )  # fmt: skip
    low, high = min(table[columns].min().min(), 0.9), max(table[columns].max().max(), 1.1)
    ax.axvline(1, color=INK, linewidth=1.2, zorder=2)
    ax.set_xscale("log")
    ax.set_xlim(low / 1.15, high * 1.15)
    ax.xaxis.set_major_locator(FixedLocator(ticks(low, high, 9)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_yticks(range(len(layers)), [name.removeprefix("peers:") for name in layers])
    ax.tick_params(labelsize=SMALL, colors=INK, length=2.5)
    ax.grid(visible=True, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.set_xlabel("time of the library / time of convbench", fontsize=SMALL, color=INK)


def write(frame: pd.DataFrame, path: Path) -> bool:
    """Draw the ratios, a row of figures for each op, as a PNG; False where there are none to draw."""
    tables = {(op, mode): ratios(frame, op, mode) for op in frame["op"].unique() for mode in MODES}
    ops = [op for op in OP_NAMES if any(not tables.get((op, mode), pd.DataFrame()).empty for mode in MODES)]
    if not ops:
        return False
    heights = [1.0 + 0.24 * max(len(tables[op, mode]) for mode in MODES) for op in ops]
    figure = Figure(figsize=(13, 0.6 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(ops), len(MODES), squeeze=False, height_ratios=heights)
    for row, op in enumerate(ops):
        for ax, (mode, words) in zip(grid[row], MODES.items(), strict=True):
            table = tables[op, mode]
            if table.empty:
                ax.set_axis_off()
                continue
            draw(ax, table)
            against_best = f"geometric mean against the best: {means(table)['best peer']:.2f}"
            ax.set_title(f"{OP_NAMES[op]}, {words}\n{against_best}", fontsize=MEDIUM, color=INK)
    handles = legend_handles(peers(frame))
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False)
    figure.savefig(path, dpi=150)
    return True
