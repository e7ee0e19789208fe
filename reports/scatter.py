"""Figures of all layers at once, a point a case: near which ceiling, at what price in memory and error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from reports import tables
from reports.axes import plain, real_numbers, ticks
from reports.loading import MIB
from reports.looks import INK, PALE, SMALL, dots
from reports.machines import Ceiling
from reports.wording import significant, times

LEAST_SPEED = 1e-4
"""Shares of the fastest backend's speed are drawn from here on."""
_EXACT = 0.1
"""Errors of 0 are drawn at this part of the smallest other error: a logarithmic axis has no zero."""


def roofline(ax: Axes, frame: pd.DataFrame, ceiling: Ceiling | None) -> None:
    """GFLOP/s against FLOP per byte, for the timed rows of one op; lines are the measured ceilings.

    A byte is one of the arrays, moved once. Method: Williams, Waterman, Patterson, "Roofline: an insightful
    visual performance model for multicore architectures", CACM 52 (2009).
    """
    intensity = frame["flops"] / (frame["least_mib"] * MIB)
    _points(ax, frame, intensity, frame["gflops"])
    low, high = intensity.min(), intensity.max()
    top = frame["gflops"].max()
    if ceiling is not None:
        x = np.geomspace(low / 1.5, high * 1.5, 200)
        roof = np.minimum(ceiling.gemm_gflops, x * ceiling.copy_gbs)
        ax.plot(x, roof, color=INK, linewidth=1.4, label="measured ceilings", zorder=2)
        note = f"{significant(ceiling.gemm_gflops)} GFLOP/s, {significant(ceiling.copy_gbs)} GB/s"
        ax.set_title(note, fontsize=SMALL, color=INK, loc="right")
        top = max(top, roof.max())
    real_numbers(ax, "x", low, high)
    real_numbers(ax, "y", frame["gflops"].min(), top)
    ax.set_xlabel("FLOP per byte of the arrays", fontsize=SMALL, color=INK)
    ax.set_ylabel("GFLOP/s", fontsize=SMALL, color=INK)
    plain(ax)


def memory_against_speed(ax: Axes, frame: pd.DataFrame) -> None:
    """Peak memory, as a multiple of the arrays, against speed, for rows of one op of `tables.relative`.

    A dashed line marks the window matrix that im2col would build, in the middle of the layers.
    """
    least = 0.01
    sizes = (frame["peak_mib"] / frame["least_mib"]).clip(lower=least)
    _points(ax, frame, sizes, frame["speed"].clip(lower=LEAST_SPEED))
    factor = tables.copy_factor(frame)
    ax.axvline(factor, color=PALE, linestyle="--", linewidth=1)
    ax.set_title(f"im2col's matrix: {times(factor)}", fontsize=SMALL, color=INK, loc="right")
    real_numbers(ax, "x", min(sizes.min(), factor), max(sizes.max(), factor))
    _speed_axis(ax, frame)
    ax.set_xlabel("peak memory / size of the arrays", fontsize=SMALL, color=INK)
    plain(ax)


def error_against_speed(ax: Axes, frame: pd.DataFrame) -> None:
    """The error against speed, for rows of one op of `tables.relative`; no error at all is at the left."""
    errors = frame["error"]
    others = errors[errors > 0]
    exact = others.min() * _EXACT if len(others) else 1e-17
    shown = errors.where(errors > 0, exact)
    _points(ax, frame, shown, frame["speed"].clip(lower=LEAST_SPEED))
    low, high = shown.min(), shown.max()
    ax.set_xscale("log")
    ax.set_xlim(low / 3, high * 3)
    marks = [mark for mark in ticks(others.min(), high, 3) if mark > 3 * exact] if len(others) else []
    labels = [f"{mark:.0e}" for mark in marks]
    if len(others) < len(errors):
        marks, labels = [exact, *marks], ["none", *labels]
    ax.set_xticks(marks, labels)
    ax.minorticks_off()
    _speed_axis(ax, frame)
    ax.set_xlabel("error / largest output", fontsize=SMALL, color=INK)
    plain(ax)


def _speed_axis(ax: Axes, frame: pd.DataFrame) -> None:
    real_numbers(ax, "y", max(frame["speed"].min(), LEAST_SPEED), 1.0)
    ax.set_ylabel("speed / speed of the fastest", fontsize=SMALL, color=INK)


def _points(ax: Axes, frame: pd.DataFrame, x: pd.Series[Any], y: pd.Series[Any]) -> None:
    for backend in tables.backends(frame):
        mine = frame["backend"] == backend
        ax.plot(x[mine], y[mine], **dots(backend), markersize=5, alpha=0.85)
