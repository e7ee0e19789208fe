"""Networks that have been trained: read from a run or a file of weights, and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from trainer.models import build_model, matching_model
from trainer.network import Model
from trainer.run import WEIGHTS, newest_folder, parse_backend, plan_of
from trainer.training import EVALUATED
from trainer.weights import read_weights


class Trained(NamedTuple):
    """A network, the file of its weights, and the data that it learnt from, as far as that is known."""

    model: Model
    path: Path
    data: str
    data_dir: str | None


def load_trained(path: Path | None, runs: Path, name: str | None, backend: str | None) -> Trained:
    """The network in `path`, a file of weights or the folder of a run; the newest of `runs` for None.

    `name` is the model's; None takes the run's, or the one that the weights fit. Raises ValueError where
    there is none, or it does not fit.
    """
    path = path or newest_folder(runs)
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected a file of weights, or the folder of a run")
    data, data_dir = "digits", None
    if path.is_dir():
        plan = plan_of(path)
        name, data, data_dir, path = name or plan.model, plan.data, plan.data_dir, path / WEIGHTS
    arrays = read_weights(path)
    model = build_model(name or matching_model(arrays, str(path)), parse_backend(backend or "auto"))
    model.assign(arrays, str(path))
    return Trained(model, path, data, data_dir)


def confusion(model: Model, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many images of each class (rows) are taken for each (columns): (10, 10) int64."""
    counts = np.zeros((10, 10), np.int64)
    for start in range(0, len(images), EVALUATED):
        taken_for = model(images[start : start + EVALUATED]).argmax(axis=1)
        np.add.at(counts, (labels[start : start + EVALUATED], taken_for), 1)
    return counts
