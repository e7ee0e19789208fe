"""Other libraries beside convbench: what `convbench peers` saved, as a DataFrame, a table and a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.axes import plain, ticks
from reports.looks import INK, MEDIUM, PALE, SMALL, dots, legend_handles
from reports.tables import records
from reports.wording import FAMILIES, OP_NAMES, in_order, short

OURS = "convbench"
VERSION = 2
MODES = {"fresh": "fresh outputs", "out": "written into out"}
BEST = "best peer"
_COLUMNS = [
    "layer", "kind", "descriptor", "op", "flops", "least_bytes", "library", "backend", "mode",
    "median_s", "q1_s", "q3_s", "rounds_s", "calls", "error",
]  # fmt: skip
_PEERS = ("torch", "onnxruntime", "openvino", "jax", "scipy")


def load(path: Path) -> pd.DataFrame:
    """A row for each layer, op, library, backend and mode.

    It has the median call of each round in `rounds_s`, the quartiles of these as `q1_s`, `median_s` and
    `q3_s`, the number of `calls`, and the `error`. Raises ValueError for a file that is not of
    `convbench peers`.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["convbench_peers"] != VERSION:
            raise ValueError(f"version {content['convbench_peers']}")
        return pd.DataFrame(content["rows"], columns=_COLUMNS)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no comparison with peers; expected a file of `convbench peers`"
        ) from error


def best(frame: pd.DataFrame, op: str, mode: str) -> pd.DataFrame:
    """The fastest row of each layer and library, for one op and mode: of ours, the backend that won.

    A peer that cannot write into `out` takes part there with its fresh outputs: it has no better way.
    """
    rows = frame[frame["op"] == op]
    there = rows[rows["mode"] == mode]
    if mode == "out":
        cases = pd.MultiIndex.from_frame(rows[["layer", "library"]])
        lacking = ~cases.isin(pd.MultiIndex.from_frame(there[["layer", "library"]]))
        there = pd.concat([there, rows[lacking & (rows["library"] != OURS)]]).sort_index()
    fastest = there.loc[there.groupby(["layer", "library"], sort=False)["median_s"].idxmin()]
    return fastest.reset_index(drop=True)


def peers(frame: pd.DataFrame) -> list[str]:
    """The other libraries, in their order."""
    return in_order((name for name in frame["library"].unique() if name != OURS), _PEERS)


def compared(frame: pd.DataFrame, op: str, mode: str) -> pd.DataFrame:
    """A row for each layer and peer: `ratio`, the peer's time over ours, with its quartiles `q1` and `q3`.

    Above 1, ours is the faster one. A ratio is taken in each round, in which both found the machine alike;
    `ratio` is the median over rounds. `ours` is the backend that won; `instead` says that fresh outputs stand
    in for those in `out`.
    """
    rows = best(frame, op, mode)
    ours = {row.layer: row for row in records(rows[rows["library"] == OURS])}
    others = rows[(rows["library"] != OURS) & rows["layer"].isin(list(ours))]
    rounds = [np.divide(row.rounds_s, ours[row.layer].rounds_s) for row in records(others)]
    quartiles = np.quantile(rounds, [0.25, 0.5, 0.75], axis=1) if rounds else np.empty((3, 0))
    found = others[["layer", "library"]].assign(
        family=np.where(others["kind"].str.endswith("pool2d"), "pooling", "convolution"),
        instead=others["mode"] != mode,
        ours=[ours[layer].backend for layer in others["layer"]],
    )
    return found.assign(**dict(zip(("q1", "ratio", "q3"), quartiles, strict=True)))


def ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Those of `compared`, a row a layer, a column a peer, then "best peer": the least of them."""
    found = rows.pivot_table(index="layer", columns="library", values="ratio")
    found = found.reindex(index=rows["layer"].unique(), columns=peers(rows))
    found[BEST] = found.min(axis=1)
    return found


def means(rows: pd.DataFrame) -> pd.DataFrame:
    """The geometric mean of each column of `ratios` over the layers that it has, a row a family."""
    families = in_order(rows["family"], FAMILIES)
    averages = [np.exp(np.log(ratios(rows[rows["family"] == family])).mean()) for family in families]
    return pd.DataFrame(averages, index=families, columns=[*peers(rows), BEST])


def draw(ax: Axes, rows: pd.DataFrame) -> None:
    """Ratios of `compared` by layer, a marker for each peer; right of 1, convbench is faster.

    Bars reach from the first to the third quartile of the rounds; a hollow marker is of a peer that has no
    `out`. Below the layers are the geometric means; at the right, the backend of ours that won.
    """
    layers = list(rows["layer"].unique())
    averages = means(rows)
    below = [len(layers) + 0.4 + number for number in range(len(averages))]
    places = dict(zip(layers, range(len(layers)), strict=True))
    for name in peers(rows):
        theirs = rows[rows["library"] == name]
        _markers(ax, name, theirs[~theirs["instead"]], places, hollow=False)
        _markers(ax, name, theirs[theirs["instead"]], places, hollow=True)
        ax.plot(averages[name], below, **dots(name), markersize=7)
    for layer, backend in rows.drop_duplicates("layer")[["layer", "ours"]].itertuples(index=False):
        beside = ax.get_yaxis_transform()
        ax.text(1.01, places[layer], backend, transform=beside, va="center", fontsize=SMALL - 1, color=INK)
    ax.axvline(1, color=INK, linewidth=1.2, zorder=2)
    ax.axhline(len(layers) - 0.3, color=PALE, linewidth=0.8, zorder=2)
    names = [layer.removeprefix("peers:") for layer in layers]
    ax.set_yticks([*places.values(), *below], [*names, *(f"mean, {family}" for family in averages.index)])
    ax.set_ylim(below[-1] + 0.6, -0.6)
    plain(ax)
    ax.set_xlabel("time of the library / time of convbench", fontsize=SMALL, color=INK)


def _markers(ax: Axes, library: str, rows: pd.DataFrame, places: Mapping[str, int], hollow: bool) -> None:
    """A library's ratios with their quartiles."""
    middle = rows["ratio"]
    ax.errorbar(
        middle, rows["layer"].map(places), xerr=[middle - rows["q1"], rows["q3"] - middle],
        **dots(library, hollow), markersize=6, elinewidth=1.1,
    )  # fmt: skip


def _hollow() -> Line2D:
    """What a legend shows for hollow markers."""
    return Line2D(
        [], [], label="hollow: fresh outputs, as it cannot write into out", linestyle="none", marker="o",
        markersize=6, color=PALE, markerfacecolor="white", markeredgewidth=1.2,
    )  # fmt: skip


def _scale(ax: Axes, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high`, and beyond 1 in any case."""
    low, high = min(low, 0.9), max(high, 1.1)
    ax.set_xscale("log")
    ax.set_xlim(low / 1.15, high * 1.15)
    ax.xaxis.set_major_locator(FixedLocator(ticks(low, high, 9)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    ax.xaxis.set_minor_locator(NullLocator())


def write(frame: pd.DataFrame, path: Path) -> bool:
    """Draw the ratios, a row of figures for each op, as a PNG; False where there are none to draw."""
    found = {(op, mode): compared(frame, op, mode) for op in OP_NAMES for mode in MODES}
    ops = [op for op in OP_NAMES if not all(found[op, mode].empty for mode in MODES)]
    if not ops:
        return False
    heights = [1.7 + 0.24 * max(found[op, mode]["layer"].nunique() for mode in MODES) for op in ops]
    figure = Figure(figsize=(14, 0.6 + sum(heights)), layout="constrained")
    grid = figure.subplots(len(ops), len(MODES), squeeze=False, height_ratios=heights)
    for op, axes in zip(ops, grid, strict=True):
        both = pd.concat([found[op, mode] for mode in MODES])
        for mode, ax in zip(MODES, axes, strict=True):
            rows = found[op, mode]
            if rows.empty:
                ax.set_axis_off()
                continue
            draw(ax, rows)
            _scale(ax, both["q1"].min(), both["q3"].max())
            against_best = ", ".join(f"{family} {mean:.2f}" for family, mean in means(rows)[BEST].items())
            title = f"{OP_NAMES[op]}, {MODES[mode]}\ngeometric mean against the best: {against_best}"
            ax.set_title(title, fontsize=MEDIUM, color=INK)
    handles = legend_handles(peers(frame))
    if any(rows["instead"].any() for rows in found.values()):
        handles.append(_hollow())
    figure.legend(handles=handles, loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False)
    figure.savefig(path, dpi=150)
    return True
