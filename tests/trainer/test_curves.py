"""The picture of a training: what its axes show."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from trainer import Data, Settings, Training, build_model, load_data
from trainer.curves import draw_accuracies, draw_curves, draw_losses


@pytest.fixture(scope="module")
def data() -> Data:
    whole = load_data("digits", limit=40)
    return whole._replace(test_images=whole.test_images[:10], test_labels=whole.test_labels[:10])


def training_of(data: Data, steps: int) -> Training:
    """A training of five steps an epoch, after `steps` of them."""
    training = Training(build_model("simple", "im2col"), data, Settings(epochs=10, batch_size=8))
    while len(training.losses) < steps:
        training.run_epoch(lambda progress: len(training.losses) == steps)
    return training


@pytest.fixture(params=[0, 1, 3, 5, 13], ids=lambda steps: f"{steps} steps")
def training(request: pytest.FixtureRequest, data) -> Training:
    """Before the first step, in the first epoch, after it, and in a later one."""
    return training_of(data, request.param)


@pytest.fixture
def ax() -> Axes:
    figure = Figure()
    FigureCanvasAgg(figure)
    return figure.subplots()


def curve(ax: Axes, label: str) -> tuple[np.ndarray, np.ndarray]:
    (line,) = (line for line in ax.get_lines() if line.get_label() == label)
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_losses(training, ax):
    draw_losses(training, ax)
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "cross-entropy (nats)"
    assert ax.get_yscale() == "log"
    assert legend(ax) == ["each batch", "train", "test"]
    assert len(ax.get_lines()) == 3
    steps, losses = curve(ax, "each batch")
    np.testing.assert_array_equal(losses, training.losses)
    # Where an epoch ends, so does its last step.
    np.testing.assert_allclose(steps, np.arange(1, len(losses) + 1) / 5)
    for label in ("train", "test"):
        epochs, means = curve(ax, label)
        assert epochs.tolist() == [row["epoch"] for row in training.rows]
        assert means.tolist() == [row[f"{label}_loss"] for row in training.rows]


def test_accuracies(training, ax):
    draw_accuracies(training, ax)
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "accuracy"
    assert ax.get_yscale() == "linear"
    assert legend(ax) == ["train (while learning)", "test"]
    assert len(ax.get_lines()) == 2
    for label, column in (("train (while learning)", "train_accuracy"), ("test", "test_accuracy")):
        epochs, accuracies = curve(ax, label)
        assert epochs.tolist() == [row["epoch"] for row in training.rows]
        assert accuracies.tolist() == [row[column] for row in training.rows]
    ticks = [text.get_text() for text in ax.get_yticklabels()]
    assert all(tick.endswith("%") for tick in ticks)


def test_lines_of_the_same_colour_mean_the_same(data, ax):
    training = training_of(data, 10)
    draw_losses(training, ax)
    losses = {line.get_label(): line.get_color() for line in ax.get_lines()}
    ax.clear()
    draw_accuracies(training, ax)
    accuracies = {line.get_label(): line.get_color() for line in ax.get_lines()}
    assert losses["train"] == losses["each batch"] == accuracies["train (while learning)"]
    assert losses["test"] == accuracies["test"] != losses["train"]


@pytest.mark.parametrize(
    "span",
    [
        (0.01, 2.3),
        (1e-6, 2.3),
        (0.2, 0.9),
        (1.9, 2.1),
    ],
)
def test_the_log_axis_has_real_numbers(data, ax, span):
    """Not powers of ten; at least one that can be seen."""
    training = training_of(data, 1)
    training.losses = np.geomspace(*span[::-1], 50).tolist()
    draw_losses(training, ax)
    ax.figure.canvas.draw()
    low, high = ax.get_ylim()
    ticks = [
        (value, text.get_text())
        for minor in (False, True)
        for value, text in zip(ax.get_yticks(minor=minor), ax.get_yticklabels(minor=minor), strict=True)
        if low <= value <= high and text.get_text()
    ]
    assert ticks
    for value, text in ticks:
        assert float(text.replace("\N{MINUS SIGN}", "-")) == pytest.approx(value)


def test_a_png(training, tmp_path):
    path = tmp_path / "curves.png"
    draw_curves(training, path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.width > picture.height > 300
        assert len(picture.convert("L").getcolors()) > 10
    assert list(tmp_path.iterdir()) == [path]
