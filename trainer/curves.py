"""A picture of a training: loss and accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter

from trainer.training import Training

_TRAIN, _TEST = (
    "#0072b2",
    "#d55e00",
)  # blue and vermilion of M. Okabe and K. Ito: safe for colour-blind readers


def draw_curves(training: Training, path: Path) -> None:
    """Write a PNG with the loss of every step and epoch, and the accuracies."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    draw_losses(training, left)
    draw_accuracies(training, right)
    figure.suptitle(
        f"{training.model.name}, {training.settings.optimizer}, batch {training.settings.batch_size}"
    )
    figure.savefig(path, dpi=150)


def draw_losses(training: Training, ax: Axes) -> None:
    """The loss of each step, and the means over each epoch, on a log axis."""
    epochs = (np.arange(len(training.losses)) + 1) / training.steps_per_epoch
    ax.plot(epochs, training.losses, color=_TRAIN, alpha=0.3, linewidth=0.8, label="each batch")
    history = training.history()
    ax.plot(history["epoch"], history["train_loss"], "o-", color=_TRAIN, label="train")
    ax.plot(history["epoch"], history["test_loss"], "s-", color=_TEST, label="test")
    ax.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter("{x:g}")
    low, high = ax.get_ylim()
    ax.yaxis.set_minor_formatter("{x:g}" if high < 10 * low else NullFormatter())
    ax.grid(alpha=0.3)
    ax.legend()


def draw_accuracies(training: Training, ax: Axes) -> None:
    """Accuracy on training images, as they were learnt, and on test images, after each epoch."""
    history = training.history()
    ax.plot(history["epoch"], history["train_accuracy"], "o-", color=_TRAIN, label="train (while learning)")
    ax.plot(history["epoch"], history["test_accuracy"], "s-", color=_TEST, label="test")
    ax.set(xlabel="epoch", ylabel="accuracy")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    ax.grid(alpha=0.3)
    ax.legend(loc="lower right")
