"""Many texts as one artist: outlines in pixels, letters in an SVG."""

import io
import re

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reports import words
from reports.words import Word, Words


@pytest.fixture
def ax():
    """Axes over a figure of four by two inches, 100 pixels each, which count in pixels."""
    figure = Figure(figsize=(4, 2), dpi=100)
    FigureCanvasAgg(figure)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    ax.set(xlim=(0, 400), ylim=(0, 200))
    return ax


def ink(ax):
    """The left, right, top and bottom of what is drawn, in pixels."""
    ax.figure.canvas.draw()
    rows, columns = np.nonzero(np.asarray(ax.figure.canvas.buffer_rgba())[:, :, 0] < 128)
    return columns.min(), columns.max(), rows.min(), rows.max()


def svg(ax):
    file = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):
        ax.figure.savefig(file, format="svg", dpi=72)
    return file.getvalue()


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize("align", ["left", "center", "right"])
def test_outlines_are_where_matplotlib_draws_the_text(ax, align, weight):
    Words(ax, [Word(200, 100, "tiled 1.50x")], 20, 0.0, align, weight)
    found = ink(ax)
    ax.collections[0].remove()
    ax.text(200, 100, "tiled 1.50x", fontsize=20, ha=align, va="baseline", weight=weight)
    with mpl.rc_context({"text.hinting": "no_hinting"}):
        assert found == pytest.approx(ink(ax), abs=1)


def test_the_middle_of_capitals_and_digits_is_at_their_place(ax):
    Words(ax, [Word(200, 100, "H8")], 40)
    left, right, top, bottom = ink(ax)
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((200, 100), abs=2)


def test_each_text_has_one_outline_however_often_it_stands(ax):
    drawn = Words(ax, [Word(10, 10, "numba"), Word(50, 10, "numba"), Word(90, 10, "fft"), Word(9, 9, "")], 8)
    one, two, other = drawn.get_paths()
    assert one is two
    assert one is not other


def test_an_svg_has_letters_in_their_colours(ax):
    Words(ax, [Word(100, 150, "numba", "#0072b2"), Word(300, 50, "$a$ < b", "#b00020")], 10, 0.5, "right")
    text = svg(ax)
    first, second = re.findall("<text.*</text>", text)
    assert first.endswith(">numba</text>")
    assert second.endswith(">$a$ &lt; b</text>")  # no formula
    assert "fill: #0072b2" in first
    assert "text-anchor: end" in first
    assert 'x="72" y="41"' in first  # points: 150 of 200 pixels up, and half a letter down
    assert "<use" not in text


def test_a_ground_is_as_wide_as_its_text(ax):
    words.grounds(ax, [(200, 100)], [words.width("numba")], ["black"], 20)
    left, right, top, bottom = ink(ax)
    em = 20 / 72 * 100
    assert right - left == pytest.approx((words.width("numba") + 0.26) * em, abs=2)
    assert bottom - top == pytest.approx(2 * words.LINE * em, abs=2)


def test_nothing_to_write_leaves_the_axes_blank(ax):
    Words(ax, [], 8)
    words.grounds(ax, [], [], [], 8)
    ax.figure.canvas.draw()
    assert np.asarray(ax.figure.canvas.buffer_rgba()).min() == 255
    assert "<text" not in svg(ax)
