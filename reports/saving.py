"""A figure as the files of a report: PNG and SVG."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

DPI = 150
SHOWN_DPI = 100
"""Pixels per inch at which the page shows a sheet; the PNG has more, for sharp screens."""

_SVG: dict[Any, Any] = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"]}
"""Letters stay letters: smaller, to be searched, and drawn in the reader's own fonts."""


@dataclass(frozen=True)
class Sheet:
    """A figure: its files' name without ending, heading, description for those who cannot see it.

    `width` and `height` are its size on the page in pixels. Its backends' colours may be `grounds` of
    letters.
    """

    name: str
    heading: str
    alt: str
    png: bytes
    svg: bytes
    width: int
    height: int
    grounds: bool = False


def save(name: str, heading: str, alt: str, figure: Figure, grounds: bool = False) -> Sheet:
    """The figure, which is of `DPI`, as a sheet."""
    width, height = (round(inches * SHOWN_DPI) for inches in figure.get_size_inches())
    return Sheet(name, heading, alt, _png(figure), _svg(figure, name), width, height, grounds)


def _png(figure: Figure) -> bytes:
    """The figure without transparency, and packed less hard: half the time of `savefig`, and smaller."""
    canvas: Any = FigureCanvasAgg(figure)
    png = io.BytesIO()
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3]
    Image.fromarray(pixels).save(png, format="png", dpi=(DPI, DPI), compress_level=3)
    return png.getvalue()


def _svg(figure: Figure, name: str) -> bytes:
    svg = io.BytesIO()
    # The salt names what is referred to, so that the same results give the same file.
    with mpl.rc_context(_SVG | {"svg.hashsalt": name}):
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return svg.getvalue()
