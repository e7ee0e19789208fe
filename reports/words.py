"""Many short texts at once.

Matplotlib takes about a millisecond to lay out and draw each of its texts: in a large report they were most
of the time. Here all texts of one kind are one artist, which draws each different text's outline once and
stamps it. An SVG has letters instead.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import PathCollection
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.textpath import text_to_path
from matplotlib.transforms import IdentityTransform

from reports.looks import INK

BELOW, MIDDLE, ABOVE = 0.76, 0.36, -0.24
"""How many em (heights of a letter) below its place the baseline of a text on that side of it lies."""
LINE = 1.15
"""From one line to the next, in em."""
_SHIFTS = {"left": 0.0, "center": 0.5, "right": 1.0}


class Word(NamedTuple):
    """A text of one line, and where it stands, in the numbers of the axes."""

    x: float
    y: float
    text: str
    colour: str = INK


class Words(PathCollection):
    """Texts of one size in points, `align`ed about their places, their baselines `drop` em below."""

    def __init__(
        self,
        ax: Axes,
        words: Sequence[Word],
        size: float,
        drop: float = MIDDLE,
        align: str = "center",
        weight: str = "normal",
    ) -> None:
        self.words = [word for word in words if word.text]
        self.align, self.drop = align, drop
        self.font = FontProperties(weight=weight, size=size)
        super().__init__(
            [_outline(word.text, drop, align, weight) for word in self.words],
            sizes=[size**2],  # the paths are of letters a point high
            offsets=np.reshape([(word.x, word.y) for word in self.words], (-1, 2)),
            offset_transform=ax.transData,
            facecolors=[word.colour for word in self.words],
            linewidths=0,
            zorder=3,
        )
        self.set_transform(IdentityTransform())
        ax.add_collection(self, autolim=False)

    def draw(self, renderer: Any) -> None:
        """Stamp outlines on pixels; write letters elsewhere, which a reader can search."""
        if isinstance(renderer, RendererAgg):
            super().draw(renderer)
        else:
            self._write(renderer)

    def _write(self, renderer: Any) -> None:
        renderer.open_group("words")
        context = renderer.new_gc()
        anchor = Text(ha=self.align, transform=IdentityTransform())  # says which point of a text is at x
        places = self.get_offset_transform().transform(self.get_offsets())
        _, height = renderer.get_canvas_width_height()
        drop = renderer.points_to_pixels(self.drop * self.font.get_size_in_points())
        for word, (x, y) in zip(self.words, places, strict=True):
            context.set_foreground(word.colour)
            anchor.set_position((x, y))
            renderer.draw_text(context, x, height - y + drop, word.text, self.font, 0, mtext=anchor)
        context.restore()
        renderer.close_group("words")


def grounds(
    ax: Axes, places: Sequence[tuple[float, float]], widths: Sequence[float], colours: Any, size: float
) -> None:
    """A ground behind two lines of text at each place, the longer of them so many em wide."""
    pad, half = 0.13, LINE
    corners = np.array([(-1, -half), (1, -half), (1, half), (-1, half), (-1, -half)])
    found = PathCollection(
        [Path(corners * (width / 2 + pad, 1), closed=True) for width in widths],
        sizes=[size**2], offsets=np.reshape(places, (-1, 2)), offset_transform=ax.transData,
        facecolors=colours, linewidths=0, zorder=2,
    )  # fmt: skip
    found.set_transform(IdentityTransform())
    ax.add_collection(found, autolim=False)


@functools.lru_cache(maxsize=10_000)
def width(text: str, weight: str = "normal") -> float:
    """The width of a line of text, in em."""
    font = FontProperties(weight=weight, size=1)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


@functools.lru_cache(maxsize=10_000)
def _outline(text: str, drop: float, align: str, weight: str) -> Path:
    """The text in letters an em, here 1, high, its place at the origin."""
    vertices, codes = text_to_path.get_text_path(FontProperties(weight=weight), text)
    em = np.reshape(np.array(vertices, float), (-1, 2)) / text_to_path.FONT_SCALE
    return Path(em - (_SHIFTS[align] * width(text, weight), drop), codes)
