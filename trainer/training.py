"""The training loop: a step for each batch, in an order that follows from the seed; a test every epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, get_args

import numpy as np
import pandas as pd

from kernels.axis import as_int
from kernels.threads import sharing_cores
from trainer.data import Data
from trainer.loss import softmax_cross_entropy
from trainer.network import Model
from trainer.optimizers import SGD, Adam, Optimizer

OptimizerName = Literal["sgd", "adam"]
Schedule = Literal["constant", "linear"]
"""Whether the learning rate stays, or falls to zero in a line from the first step to the last."""
LR = {"sgd": 0.05, "adam": 0.001}
"""Learning rates where none is given."""
EVALUATED = 256
"""Images a call in evaluation."""
COLUMNS = ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "time_s", "images_per_s"]
"""Those of a history: losses are means over the images, accuracies 0 to 1, times those of the steps."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a training; `lr` is that of `LR` for None. Raises ValueError, TypeError."""

    epochs: int = 20
    batch_size: int = 64
    lr: float | None = None
    optimizer: OptimizerName = "sgd"
    momentum: float = 0.9
    schedule: Schedule = "linear"
    seed: int = 0

    def __post_init__(self) -> None:
        as_int("epochs", self.epochs, 1)
        as_int("batch_size", self.batch_size, 1)
        as_int("seed", self.seed, 0)
        if self.optimizer not in get_args(OptimizerName):
            raise ValueError(f"optimizer is {self.optimizer!r}; expected 'sgd' or 'adam'")
        if self.schedule not in get_args(Schedule):
            raise ValueError(f"schedule is {self.schedule!r}; expected 'constant' or 'linear'")
        if self.lr is None:
            object.__setattr__(self, "lr", LR[self.optimizer])
        if not (_is_number(self.lr) and 0 < self.lr < math.inf):
            raise ValueError(f"lr is {self.lr!r}; expected a number above 0")
        if not (_is_number(self.momentum) and 0 <= self.momentum < 1):
            raise ValueError(f"momentum is {self.momentum!r}; expected a number from 0 to below 1")

    def make_optimizer(self, model: Model) -> Optimizer:
        """The optimizer over the model's parameters."""
        assert self.lr is not None
        if self.optimizer == "adam":
            return Adam(model.values, model.slopes, self.lr)
        return SGD(model.values, model.slopes, self.lr, self.momentum)


@dataclass
class Progress:
    """Where a training is: the epoch under way (from 0), its finished steps, and their sums."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    correct: int = 0
    images: int = 0
    time_s: float = 0.0


class Training:
    """A model, its data and its optimizer between two steps.

    `losses` holds the loss of every step so far, `rows` the history, a row an epoch. All of it can be saved
    between any two steps (`trainer.run`), and goes on to the same numbers.
    """

    def __init__(self, model: Model, data: Data, settings: Settings) -> None:
        for images, labels in (data[:2], data[2:]):
            _check_data(model, images, labels)
        self.model = model
        self.data = data
        self.settings = settings
        self.optimizer = settings.make_optimizer(model)
        self.progress = Progress()
        self.losses: list[float] = []
        self.rows: list[dict[str, Any]] = []
        shape = data.train_images.shape
        self._batch = np.empty((min(settings.batch_size, shape[0]), *shape[1:]), np.float32)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch, the last of them perhaps smaller."""
        return -(-len(self.data.train_labels) // self.settings.batch_size)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.progress.epoch >= self.settings.epochs

    def history(self) -> pd.DataFrame:
        """A row for each finished epoch: losses and accuracies (0 to 1), seconds, images a second."""
        return pd.DataFrame(self.rows, columns=COLUMNS)

    def run_epoch(self, on_step: Callable[[Progress], object] | None = None) -> bool:
        """Finish the epoch under way; False where `on_step`, called after each step, returned True to stop.

        Raises ValueError when the loss is no finite number any more.
        """
        # What overflows shows in the loss, which is looked at.
        with sharing_cores(), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._run_epoch(on_step)

    def _run_epoch(self, on_step: Callable[[Progress], object] | None) -> bool:
        order = np.random.default_rng([self.settings.seed, self.progress.epoch]).permutation(
            len(self.data.train_labels)
        )
        for step in range(self.progress.step, self.steps_per_epoch):
            start = time.perf_counter()
            self._step(order[step * self.settings.batch_size : (step + 1) * self.settings.batch_size])
            self.progress.time_s += time.perf_counter() - start
            if on_step and on_step(self.progress) and self.progress.step < self.steps_per_epoch:
                return False
        self._end_epoch()
        return True

    def _step(self, picked: np.ndarray) -> None:
        progress = self.progress
        # mode="clip" lets take write into the buffer directly.
        x = np.take(self.data.train_images, picked, axis=0, out=self._batch[: len(picked)], mode="clip")
        labels = self.data.train_labels[picked]
        logits = self.model.forward(x)
        correct = int(np.count_nonzero(logits.argmax(axis=1) == labels))
        loss, dlogits = softmax_cross_entropy(logits, labels)
        self._check(loss, f"in step {progress.step + 1} of epoch {progress.epoch + 1}")
        self.model.backward(dlogits)
        self.optimizer.lr = self._lr()
        self.optimizer.step()
        self.losses.append(loss)
        progress.step += 1
        progress.loss += loss * len(picked)
        progress.correct += correct
        progress.images += len(picked)

    def _check(self, loss: float, when: str) -> None:
        if not math.isfinite(loss):
            raise ValueError(
                f"the loss became {loss} {when}; expected a finite number: try an lr smaller than "
                f"{self.settings.lr:g}"
            )

    def _lr(self) -> float:
        """The learning rate of the step under way."""
        assert self.settings.lr is not None
        if self.settings.schedule == "constant":
            return self.settings.lr
        done = self.progress.epoch * self.steps_per_epoch + self.progress.step
        return self.settings.lr * (1 - done / (self.settings.epochs * self.steps_per_epoch))

    def _end_epoch(self) -> None:
        done = self.progress
        test_loss, test_accuracy = evaluate(self.model, self.data.test_images, self.data.test_labels)
        self._check(test_loss, f"on the test images after epoch {done.epoch + 1}")
        self.rows.append(
            {
                "epoch": done.epoch + 1,
                "train_loss": done.loss / done.images,
                "train_accuracy": done.correct / done.images,
                "test_loss": test_loss,
                "test_accuracy": test_accuracy,
                "time_s": done.time_s,
                "images_per_s": done.images / done.time_s,
            }
        )
        self.progress = Progress(epoch=done.epoch + 1)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float | np.floating | np.integer) and not isinstance(value, bool)


def _check_data(model: Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Whether images and labels can be learnt from; what is amiss is said before the first step."""
    expected = f"(N, {', '.join(map(str, model.shape))}) of {model.dtype} and (N,) ints, N at least 1"
    fits = images.shape == (len(labels), *model.shape) and images.dtype == model.dtype
    if not (fits and len(labels) and labels.ndim == 1 and labels.dtype.kind in "iu"):
        found = f"{images.shape} of {images.dtype}, labels {labels.shape} of {labels.dtype}"
        raise ValueError(f"data has images {found}; expected {expected}")


def evaluate(model: Model, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean loss and accuracy (0 to 1) of the model on images (N, C, H, W) with labels (N,), N at least 1."""
    _check_data(model, images, labels)
    loss, correct = 0.0, 0
    for start in range(0, len(images), EVALUATED):
        logits = model(images[start : start + EVALUATED])
        of_batch = labels[start : start + EVALUATED]
        loss += softmax_cross_entropy(logits, of_batch)[0] * len(of_batch)
        correct += int(np.count_nonzero(logits.argmax(axis=1) == of_batch))
    return loss / len(images), correct / len(images)


def train(
    model: Model,
    data: Data,
    epochs: int = 20,
    batch_size: int = 64,
    lr: float | None = None,
    optimizer: OptimizerName = "sgd",
    momentum: float = 0.9,
    seed: int = 0,
    schedule: Schedule = "linear",
) -> pd.DataFrame:
    """Train `model` in place, and return the history, a row an epoch (see `Training.history`).

    `lr` is 0.05 for "sgd" and 0.001 for "adam" unless given; `momentum` is for "sgd"; `seed` decides the
    order of the images; the `schedule` "linear" lets the learning rate fall to zero, "constant" keeps it.
    Raises ValueError or TypeError for settings that are none, and ValueError when the loss is no finite
    number any more.
    """
    training = Training(model, data, Settings(epochs, batch_size, lr, optimizer, momentum, schedule, seed))
    while not training.finished:
        training.run_epoch()
    return training.history()
