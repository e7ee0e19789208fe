"""Figures: drawn without warnings for few and many, with units on every axis, nothing cut off."""

import io
import json
import re
from itertools import combinations, cycle

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgba
from matplotlib.figure import Figure
from matplotlib.transforms import Affine2D

import reports
from reports import axes, figures, ladder, looks, panels, saving, scatter, sheets, tables, themed
from reports.machines import Ceiling
from reports.words import Words

MANY = [f"resnet50:layer{n // 6}.{n % 6}.conv{n % 3}" for n in range(25)]
SHAPES = {
    "one of everything": (["a:conv"], ["numba"], [32]),
    "one batch size": (["a:conv", "b:conv"], ["loops", "numba"], [32]),
    "unknown backends": (["a:conv"], ["numba", "mystery", "other"], [1, 8]),
    "many layers": (MANY, ["im2col", "numba"], [8, 32]),
    "many batch sizes": (["a:conv"], ["im2col", "numba"], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]),
    "long names": (["net:" + "block.deeper." * 5 + end for end in ("conv1", "conv2")], ["numba"], [8, 32]),
}


@pytest.fixture(scope="module", params=SHAPES, ids=lambda name: name.replace(" ", "-"))
def frame(request, tmp_path_factory, make):
    layers, names, batches = SHAPES[request.param]
    benchmarks = [
        make.timed(layer, name, batch, 0.001 * batch * (1 + n), op=op)
        for layer in layers
        for n, name in enumerate(names)
        for batch in batches
        for op in ("forward", "dx")
    ]
    path = tmp_path_factory.mktemp("figures") / "x.json"
    path.write_text(json.dumps(make.document(benchmarks)))
    return tables.latest(reports.load(path))


@pytest.fixture(scope="module")
def drawn(frame):
    """The figures of a shape by name."""
    return {
        "throughput": sheets.draw_against_batch(frame[frame["op"] == "forward"], panels.THROUGHPUT),
        "time": sheets.draw_against_batch(frame[frame["op"] == "dx"], panels.TIME),
        "fastest": sheets.draw_fastest(frame),
        "memory": sheets.draw_memory(tables.memory(frame)),
        **points(frame),
    }


def points(frame):
    """The figures with a point a case, a ladder, and speed-ups over the first backend."""
    relative, place = tables.relative(frame), ladder.example(frame)
    ratios = tables.speedups(frame, tables.backends(frame)[0])
    figures_ = {
        "roofline": sheets.draw_roofline(relative, Ceiling(300.0, 20.0)),
        "memory against speed": sheets.draw_memory_speed(relative),
        "error against speed": sheets.draw_error_speed(relative),
    }
    if place:
        figures_["ladder"] = sheets.draw_ladder(ladder.rungs(frame, place), place)
        figures_["speed-ups"] = sheets.draw_speedups(tables.at_largest_batch(ratios))
    return figures_


@pytest.fixture(scope="module")
def texts(drawn):
    """The texts of these figures with their boxes."""
    return {name: texts_of(figure) for name, figure in drawn.items()}


@pytest.fixture
def golden_frame(golden_path):
    return tables.latest(reports.load(golden_path))


def new_axes():
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def texts_of(figure):
    """All texts with their boxes, in pixels."""
    renderer = figure.canvas.get_renderer()
    figure.draw(renderer)
    texts = [*(figure.legends[0].get_texts() if figure.legends else [])]
    for ax in figure.axes:
        texts += [ax.title, *ax.texts]
        if not ax.axison:
            continue
        texts += [ax.xaxis.label, ax.yaxis.label]
        texts += [label for label in (*ax.get_xticklabels(), *ax.get_yticklabels()) if label.get_visible()]
        # Labels at the top are texts of their own.
        texts += [tick.label2 for tick in ax.xaxis.get_major_ticks() if tick.label2.get_visible()]
    found = {id(text): text for text in texts if text.get_text()}
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in found.values()]
    return boxes + [box for ax in figure.axes for artist in many_words(ax) for box in boxes_of(artist)]


def many_words(ax):
    """The artists of many texts."""
    return [artist for artist in ax.collections if isinstance(artist, Words)]


def words_of(ax):
    """The texts of these artists, with their places."""
    return [word for artist in many_words(ax) for word in artist.words]


def boxes_of(artist):
    """The texts of a drawn artist with the boxes of their ink, in pixels."""
    places = artist.get_offset_transform().transform(artist.get_offsets())
    return [
        (word.text, path.get_extents(Affine2D(matrix).translate(*place)))
        for word, path, place, matrix in zip(
            artist.words, artist.get_paths(), places, cycle(artist.get_transforms()), strict=False
        )
    ]


def test_nothing_is_cut_off(drawn, texts):
    for name, figure in drawn.items():
        width, height = figure.canvas.get_width_height()
        assert texts[name], name
        for text, box in texts[name]:
            assert box.x0 >= 0, (name, text)
            assert box.y0 >= 0, (name, text)
            assert box.x1 <= width, (name, text)
            assert box.y1 <= height, (name, text)


def test_texts_do_not_overlap(texts):
    for name, boxes in texts.items():
        for (one, first), (two, second) in combinations(boxes, 2):
            apart = (
                first.x1 <= second.x0 + 1
                or second.x1 <= first.x0 + 1
                or first.y1 <= second.y0 + 3  # boxes hold a line's descent, drawn or not
                or second.y1 <= first.y0 + 3
            )
            assert apart, (name, one, two)


def test_axes_have_labels_with_units(drawn):
    labels = {
        "fastest": ("batch size (images)", "layer"),
        "memory": ("peak memory (MiB)", "layer"),
        "roofline": ("FLOP per byte of the arrays", "GFLOP/s"),
        "memory against speed": ("peak memory / size of the arrays", "speed / speed of the fastest"),
        "error against speed": ("error / largest output", "speed / speed of the fastest"),
        "ladder": ("ms a call", ""),
        "speed-ups": ("time of the baseline / time of the backend", "layer"),
    }
    for name in set(drawn) & set(labels):
        axes = drawn[name].axes
        assert {ax.get_xlabel() for ax in axes} == {labels[name][0]}
        assert axes[0].get_ylabel() == labels[name][1]
    assert set(drawn) - set(labels) == {"throughput", "time"}


def test_a_panel_per_layer_with_its_units(frame, drawn):
    layers = tables.layers(frame)
    for name, unit in (("throughput", "images/s"), ("time", "ms a call")):
        (ax,) = drawn[name].axes
        bold = [artist for artist in many_words(ax) if artist.font.get_weight() == "bold"]
        titles = [word.text for artist in bold for word in artist.words]
        assert "".join(titles) == "".join(layers)  # some are broken into lines
        words = [word.text for word in words_of(ax)]
        assert words.count("batch size (images)") == len(layers)
        assert [text.get_text() for text in ax.texts] == [unit] * len(layers)


def test_maps_are_headed_by_their_op_and_memory_by_its_batch_too(frame, drawn):
    ops = tables.ops(frame)
    assert [ax.get_title() for ax in drawn["fastest"].axes] == ops
    (batch,) = set(tables.memory(frame)["batch"])
    titles = [ax.get_title() for ax in drawn["memory"].axes]
    assert titles == [f"{op}, batch {batch}" for op in tables.ops(tables.memory(frame))]


@pytest.fixture
def panel(golden_frame):
    """The throughput of a:conv forward, drawn on an Axes of four by three inches."""
    ax = new_axes()
    rows = golden_frame[(golden_frame["layer"] == "a:conv") & (golden_frame["op"] == "forward")]
    panels.against_batch(ax, rows, panels.THROUGHPUT, {"a:conv": panels.Box(1, 1, 2, 1.5, "a:conv")})
    return ax


def reader(ax, axis, one, other):
    """What turns places along an axis of `panel` into numbers: a logarithm through two of its labels."""
    places = {word.text: word[axis] for word in words_of(ax)}
    slope = np.log(other[1] / one[1]) / (places[other[0]] - places[one[0]])
    return lambda found: one[1] * np.exp(slope * (np.asarray(found) - places[one[0]]))


def test_throughput_draws_medians_and_quartiles(panel):
    assert [line.get_label() for line in panel.lines] == ["loops", "im2col", "numba"]
    im2col = panel.lines[1]
    to_x = reader(panel, 0, ("8", 8), ("32", 32))
    to_y = reader(panel, 1, ("10", 10), ("1k", 1000))
    assert to_x(im2col.get_xdata()) == pytest.approx([8, 32])
    assert to_y(im2col.get_ydata()) == pytest.approx([2000, 1000])
    assert to_hex(im2col.get_color()).upper() == looks.look("im2col").colour
    colour = to_rgba(looks.look("im2col").colour, 0.45)
    (bars,) = [lines for lines in panel.collections if lines.get_edgecolor().tolist() == [list(colour)]]
    (ends,) = [path.vertices for path in bars.get_paths()]
    assert to_y(ends[3:5, 1]) == pytest.approx([1000 / 1.1, 1000 / 0.9])
    assert np.isnan(ends[2::3]).all()  # gaps between the bars


def test_panels_are_labelled_with_real_numbers(panel):
    assert [word.text for word in words_of(panel)] == [
        "a:conv", "8", "32", "batch size (images)", "10", "30", "100", "300", "1k",
    ]  # fmt: skip
    assert [text.get_text() for text in panel.texts] == ["images/s"]


def test_a_panel_without_times_says_so(golden_frame):
    ax = new_axes()
    failed = golden_frame[golden_frame["status"] == "failed"]
    panels.against_batch(ax, failed, panels.TIME, {"b:conv": panels.Box(1, 1, 2, 1, "b:conv")})
    assert "nothing timed" in [text.get_text() for text in ax.texts]


def test_fastest_names_winners_leads_and_gaps(golden_frame):
    ax = new_axes()
    forward = golden_frame[golden_frame["op"] == "forward"]
    layers = tables.layers(golden_frame)
    figures.fastest(ax, forward, layers, [8, 32])
    cells = {}
    for word in words_of(ax):
        cells.setdefault((layers[int(word.y)], int(word.x)), []).append(word.text)
    assert {
        place: " ".join(words).replace("\N{MULTIPLICATION SIGN}", "x") for place, words in cells.items()
    } == {
        ("a:conv", 0): "im2col 2.00x",
        ("a:conv", 1): "numba 2.00x",
        ("b:conv", 0): "numba 4.50x",
        ("b:conv", 1): "failed",
        ("c:conv", 0): "im2col (1.01x)",
        ("d:pool", 0): "numba 50.0x",
    }
    (within_noise,) = [squares for squares in ax.collections if squares.get_hatch()]
    (square,) = within_noise.get_paths()
    assert square.get_extents().p0.tolist() == [0, layers.index("c:conv")]
    assert to_hex(within_noise.get_edgecolor()[0]).upper() == looks.look("numba").colour


def test_memory_draws_peaks_and_the_matrix(golden_frame):
    ax = new_axes()
    rows = tables.memory(golden_frame)
    rows = rows[(rows["op"] == "forward") & (rows["layer"] == "a:conv")]
    figures.memory(ax, rows, ["a:conv"])
    points = {line.get_label(): line.get_xdata().tolist() for line in ax.lines}
    assert points == {"loops": [figures.LEAST_MIB], "im2col": [64], "numba": [1]}
    (matrix,) = ax.patches
    assert matrix.get_x() + matrix.get_width() == 32


def test_looks_are_fixed_and_differ():
    known = [looks.look(name) for name in looks._LOOKS]
    assert len({look.colour for look in known}) == len(known)
    assert len({look.marker for look in known[:8]}) == 8
    assert looks.look("mystery") == looks.look("mystery")
    assert looks.look("mystery").colour not in {look.colour for look in known}


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (7, 7), (90, 110), (3, 4), (5, 1e5), (0.001, 100), (1e-4, 1e9), (1e-9, 1e12)]
)
def test_ticks_are_few_and_near_the_range(low, high):
    ticks = axes.ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert ticks[-1] >= low
    assert ticks[0] <= high
    assert all(f"{tick:.0e}"[0] in "1235" for tick in ticks)


def test_sheets_are_png_and_svg_of_the_size_they_claim(golden_frame):
    relative = tables.relative(golden_frame)
    made = [
        *(
            sheets.batch_sheet(golden_frame, *panel, panels.TIME)
            for panel in sheets.batch_panels(golden_frame)
        ),
        sheets.fastest_sheet(golden_frame),
        sheets.roofline_sheet(relative, None),
    ]
    assert [sheet.name for sheet in made] == [
        "time-forward-convolution", "time-forward-pooling", "time-dw-convolution", "fastest", "roofline",
    ]  # fmt: skip
    for sheet in made:
        assert sheet.png.startswith(b"\x89PNG")
        width = int.from_bytes(io.BytesIO(sheet.png).getvalue()[16:20], "big")
        assert width / sheet.width == pytest.approx(saving.DPI / saving.SHOWN_DPI, rel=0.01)
        inches = float(re.search(rb'width="([0-9.]+)pt"', sheet.svg)[1]) / 72
        assert inches * saving.SHOWN_DPI == pytest.approx(sheet.width, abs=1)
        assert b"<text" in sheet.svg  # letters stay letters


def test_the_roofline_is_the_lower_of_both_ceilings(golden_frame):
    ax = new_axes()
    rows = tables.relative(golden_frame)
    scatter.roofline(ax, rows, Ceiling(gemm_gflops=400.0, copy_gbs=0.2))
    (roof,) = (line for line in ax.lines if line.get_label() == "measured ceilings")
    x, y = roof.get_data()
    assert y == pytest.approx(np.minimum(400, 0.2 * x))
    numba = next(line for line in ax.lines if line.get_label() == "numba")
    assert numba.get_xdata()[0] == pytest.approx(1e9 / 2**20)  # a gigaflop and a MiB an image
    assert numba.get_ydata()[0] == pytest.approx(8 / 0.008)


def test_what_makes_no_error_stands_apart(golden_frame):
    ax = new_axes()
    rows = tables.relative(golden_frame)
    rows.loc[rows["backend"] == "loops", "error"] = 0.0
    scatter.error_against_speed(ax, rows)
    loops = next(line for line in ax.lines if line.get_label() == "loops")
    others = np.concatenate([line.get_xdata() for line in ax.lines if line.get_label() != "loops"])
    assert max(loops.get_xdata()) < min(others) / 5
    assert ax.get_xticklabels()[0].get_text() == "none"


def test_a_themed_picture_follows_the_scheme_of_its_reader(golden_frame):
    svg = sheets.roofline_sheet(tables.relative(golden_frame), None).svg
    dark = themed.themed(svg, grounds=False).decode()
    assert "prefers-color-scheme:dark" in dark
    for ink in (looks.INK, looks.GRID, looks.look("loops").colour):
        assert ink.lower() in svg.decode()
        drawn = dark.partition("</style>")[2]
        assert ink.lower() not in drawn
    assert looks.look("numba").colour.lower() in dark  # seen on both
    letters = themed.themed(svg, grounds=True).decode().partition("</style>")[2]
    assert looks.look("loops").colour.lower() in letters
