"""Axes: logarithmic ones labelled with real numbers, batch sizes, a plain frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports.looks import GRID, INK, PALE, SMALL
from reports.wording import clip, short

NAME_LENGTH = 46
"""Characters of a layer's name beside its row; the middle of longer ones is left out."""


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


def log_limits(low: float, high: float) -> tuple[list[float], float, float]:
    """Ticks for a logarithmic axis, and where it begins and ends, with room for `low` to `high`."""
    chosen = ticks(low, high)
    low, high = min(chosen[0], low), max(chosen[-1], high)
    room = 1.06 * (high / low) ** 0.05
    return chosen, low / room, high * room


def batch_ticks(batches: Sequence[int]) -> tuple[list[float], float, float]:
    """As `log_limits` for batch sizes as they are; where they crowd, every second one, or fewer."""
    span = math.log(batches[-1] * 1.3**2 / batches[0])
    shown = [batches[-1]]
    for batch in reversed(batches[:-1]):
        if math.log(shown[-1] / batch) > 0.11 * span:
            shown.append(batch)
    return [float(batch) for batch in reversed(shown)], batches[0] / 1.3, batches[-1] * 1.3


def real_numbers(
    ax: Axes, which: Literal["x", "y"], low: float, high: float, shown: Callable[[float], str] = short
) -> None:
    """A logarithmic axis with room at its ends, labelled with numbers as `shown`, not powers."""
    chosen, low, high = log_limits(low, high)
    if which == "x":
        ax.set_xscale("log")
        ax.set_xlim(low, high)
        _fix(ax.xaxis, chosen, shown)
    else:
        ax.set_yscale("log")
        ax.set_ylim(low, high)
        _fix(ax.yaxis, chosen, shown)


def _fix(axis: Axis, values: Sequence[float], shown: Callable[[float], str]) -> None:
    axis.set_major_locator(FixedLocator(values))
    axis.set_major_formatter(FuncFormatter(lambda value, _: shown(value)))
    axis.set_minor_locator(NullLocator())


def layer_rows(ax: Axes, layers: Sequence[str]) -> None:
    """A row for each layer, the first at the top; row n is at height n."""
    ax.set_ylim(len(layers) - 0.4, -0.6)
    ax.set_yticks(range(len(layers)), [clip(layer, NAME_LENGTH) for layer in layers])
    ax.tick_params(axis="y", left=False)  # a name needs no mark
    ax.tick_params(axis="x", labeltop=len(layers) > 20)  # the lower labels are far away then
    ax.set_ylabel("layer", fontsize=SMALL, color=INK)


def plain(ax: Axes) -> None:
    """Pale lines at short ticks, and no frame but the two axes."""
    ax.grid(visible=True, color=GRID, linewidth=0.7)
    ax.set_axisbelow(True)
    ax.tick_params(labelsize=SMALL, colors=INK, length=2.5)
    for name, side in ax.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(PALE)
