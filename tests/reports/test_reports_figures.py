"""Figures: drawn without warnings for few and many, with units on every axis, nothing cut off."""

import io
import json
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import reports
from reports import figures, sheets, tables

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
        "throughput": sheets.draw_throughput(frame[frame["op"] == "forward"]),
        "fastest": sheets.draw_fastest(frame),
        "memory": sheets.draw_memory(tables.memory(frame)),
    }


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
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        texts += [label for label in (*ax.get_xticklabels(), *ax.get_yticklabels()) if label.get_visible()]
        # Labels at the top are texts of their own.
        texts += [tick.label2 for tick in ax.xaxis.get_major_ticks() if tick.label2.get_visible()]
    found = {id(text): text for text in texts if text.get_text()}
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found.values()]


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
    assert {ax.get_xlabel() for ax in drawn["throughput"].axes} == {"batch size (images)"}
    assert {ax.get_ylabel() for ax in drawn["throughput"].axes} == {"images/s"}
    assert {ax.get_xlabel() for ax in drawn["fastest"].axes} == {"batch size (images)"}
    assert drawn["fastest"].axes[0].get_ylabel() == "layer"
    assert {ax.get_xlabel() for ax in drawn["memory"].axes} == {"peak memory (MiB)"}
    assert drawn["memory"].axes[0].get_ylabel() == "layer"


def test_maps_are_headed_by_their_op_and_memory_by_its_batch_too(frame, drawn):
    ops = tables.ops(frame)
    assert [ax.get_title() for ax in drawn["fastest"].axes] == ops
    (batch,) = set(tables.memory(frame)["batch"])
    titles = [ax.get_title() for ax in drawn["memory"].axes]
    assert titles == [f"{op}, batch {batch}" for op in tables.ops(tables.memory(frame))]


def test_a_panel_per_layer(frame, drawn):
    titles = [ax.get_title().replace("\n", "") for ax in drawn["throughput"].axes]
    assert titles == tables.layers(frame)


def test_throughput_draws_medians_and_quartiles(golden_frame):
    ax = new_axes()
    rows = golden_frame[(golden_frame["layer"] == "a:conv") & (golden_frame["op"] == "forward")]
    figures.throughput(ax, rows)
    handles, names = ax.get_legend_handles_labels()
    assert names == ["loops", "im2col", "numba"]
    line, _, (bars,) = handles[1].lines
    assert line.get_xdata().tolist() == [8, 32]
    assert line.get_ydata() == pytest.approx([2000, 1000])
    assert bars.get_segments()[1] == pytest.approx(np.array([[32, 1000 / 1.1], [32, 1000 / 0.9]]))
    assert to_hex(line.get_color()).upper() == figures.look("im2col").colour


def test_axes_are_labelled_with_real_numbers(golden_frame):
    ax = new_axes()
    figures.throughput(
        ax, golden_frame[(golden_frame["layer"] == "a:conv") & (golden_frame["op"] == "forward")]
    )
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["8", "32"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["10", "30", "100", "300", "1k"]
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_a_panel_without_times_says_so(golden_frame):
    ax = new_axes()
    figures.throughput(ax, golden_frame[golden_frame["status"] == "failed"])
    assert [text.get_text() for text in ax.texts] == ["nothing timed"]


def test_fastest_names_winners_leads_and_gaps(golden_frame):
    ax = new_axes()
    forward = golden_frame[golden_frame["op"] == "forward"]
    layers = tables.layers(golden_frame)
    figures.fastest(ax, forward, layers, [8, 32])
    cells = {}
    for text in ax.texts:
        x, y = text.get_position()
        cells.setdefault((layers[int(y)], int(x)), []).append(text.get_text())
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
    known = [figures.look(name) for name in figures._LOOKS]
    assert len({look.colour for look in known}) == len(known)
    assert len({look.marker for look in known[:8]}) == 8
    assert figures.look("mystery") == figures.look("mystery")
    assert figures.look("mystery").colour not in {look.colour for look in known}


@pytest.mark.parametrize(
    ("low", "high"), [(1, 1), (7, 7), (90, 110), (3, 4), (5, 1e5), (0.001, 100), (1e-4, 1e9), (1e-9, 1e12)]
)
def test_ticks_are_few_and_near_the_range(low, high):
    ticks = figures.ticks(low, high)
    assert 2 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert ticks[-1] >= low
    assert ticks[0] <= high
    assert all(f"{tick:.0e}"[0] in "1235" for tick in ticks)


def test_sheets_are_png_of_the_size_they_claim(golden_frame):
    made = [*sheets.throughput_sheets(golden_frame), sheets.fastest_sheet(golden_frame)]
    assert [sheet.name for sheet in made] == [
        "throughput-forward-convolution.png",
        "throughput-forward-pooling.png",
        "throughput-dw-convolution.png",
        "fastest.png",
    ]
    for sheet in made:
        assert sheet.png.startswith(b"\x89PNG")
        width = int.from_bytes(io.BytesIO(sheet.png).getvalue()[16:20], "big")
        assert width / sheet.width == pytest.approx(sheets.DPI / sheets.SHOWN_DPI, rel=0.01)
