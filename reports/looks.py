"""How things look: inks, sizes of letters, and each backend's colour, marker and line.

A backend has one colour and one marker in every figure. The colours of the project's own backends are
those of Okabe and Ito, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/);
markers, and names in cells, say the same without colour.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

INK = "#222222"
PALE = "#8a8a8a"
GRID = "#e4e4e4"
WASH = "#f3f3f3"
"""Behind what has no value."""
BAR = "#dedede"
ALERT = "#b00020"
SMALL, MEDIUM, LARGE = 7.5, 8.5, 10.0  # points; the page shows a point as 1.39 pixels


@dataclass(frozen=True)
class Look:
    """How a backend is drawn."""

    colour: str
    marker: str
    line: Literal["-", "--", ":"] = "-"


_LOOKS = {
    "loops": Look("#0b0b0b", "o"),  # SVG leaves out what is pure black, and a dark page could not tell
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


def dots(backend: str, hollow: bool = False) -> dict[str, Any]:
    """What makes `Axes.plot` draw a backend's points: with an edge of ink, or hollow."""
    style = look(backend)
    shown: dict[str, Any] = {"label": backend, "color": style.colour, "marker": style.marker, "zorder": 3}
    if hollow:
        edge = {"markerfacecolor": "white", "markeredgecolor": style.colour, "markeredgewidth": 1.0}
    else:
        edge = {"markeredgecolor": INK, "markeredgewidth": 0.4}
    return shown | edge | {"linestyle": "none"}


def legend_handles(backends: Sequence[str]) -> list[Line2D]:
    """What a legend shows for each backend."""
    line = {"linewidth": 1.3, "markersize": 6}
    return [
        Line2D([], [], **dots(backend) | line | {"linestyle": look(backend).line}) for backend in backends
    ]


def ink_on(colour: str) -> str:
    """A black or white, whichever stands out more on `colour` (WCAG's relative luminance)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#fefefe" if luminance < 0.18 else "#010101"
