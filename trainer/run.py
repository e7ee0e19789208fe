"""A training in a folder: its checkpoint, weights, history and curves, and going on after a break."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from kernels.files import replacing
from kernels.threads import pinned_threads, thread_count
from trainer.curves import draw_curves
from trainer.data import load_data
from trainer.models import build_model
from trainer.training import Progress, Settings, Training
from trainer.weights import read_weights, save_weights

CHECKPOINT, WEIGHTS, HISTORY, CURVES = "checkpoint.npz", "weights.npz", "history.csv", "curves.png"
_CHANGEABLE = ("epochs", "backend", "selection", "threads", "data_dir")
"""What may differ when a run goes on."""


@dataclass(frozen=True)
class Plan:
    """What a run is to do; `Settings` and more.

    `backend` is a name, or "conv1=im2col,pool1=window"; `selection` the file that "auto" reads, if another
    than the default one.
    """

    model: str
    data: str = "digits"
    data_dir: str | None = None
    limit: int | None = None
    backend: str = "auto"
    selection: str | None = None
    threads: int | None = None
    epochs: int = 20
    batch_size: int = 64
    lr: float | None = None
    optimizer: str = "sgd"
    momentum: float = 0.9
    schedule: str = "linear"
    seed: int = 0

    def settings(self) -> Settings:
        """The part that is the training's."""
        return Settings(**{field.name: getattr(self, field.name) for field in fields(Settings)})

    def start(self) -> Training:
        """The training before its first step. Raises ValueError or TypeError for a plan that is none."""
        settings = self.settings()
        model = build_model(self.model, parse_backend(self.backend), self.seed)
        return Training(model, load_data(self.data, data_dir=self.data_dir, limit=self.limit), settings)


def parse_backend(text: str) -> str | dict[str, str]:
    """A backend for all layers ("numba"), or one for each ("conv1=im2col,pool1=window")."""
    if "=" not in text:
        return text
    pairs = [word.partition("=") for word in text.split(",")]
    by_layer = {name: backend for name, _, backend in pairs}
    if not all(name and backend for name, _, backend in pairs) or len(by_layer) < len(pairs):
        raise ValueError(f"backend is {text!r}; expected a name, or LAYER=NAME,LAYER=NAME, each layer once")
    return by_layer


class Run:
    """A training and the folder that it is kept in."""

    def __init__(self, folder: Path, plan: Plan, training: Training) -> None:
        self.folder = folder
        self.plan = plan
        self.training = training

    @classmethod
    def begin(cls, folder: Path, plan: Plan) -> Run:
        """A new run. Raises ValueError where `folder` holds one already, and for a plan that is none."""
        if (folder / CHECKPOINT).exists():
            raise ValueError(f"{folder} holds a run already; expected --resume to go on, or another --out")
        plan = replace(plan, threads=thread_count(plan.threads))
        training = plan.start()
        run = cls(folder, replace(plan, lr=training.settings.lr), training)
        run.save()  # what cannot be written should say so now, and the folder is taken
        return run

    @classmethod
    def resume(cls, folder: Path, changes: Mapping[str, Any]) -> Run:
        """The run in `folder`, where it left off, with `changes` to what may change of its plan.

        Raises ValueError: no run there, one of another plan, or one that has finished.
        """
        path = folder / CHECKPOINT
        if not path.exists():
            raise ValueError(f"{folder} holds no run; expected a folder with a {CHECKPOINT}")
        arrays = read_weights(path)
        about = _about(path, arrays)
        plan = about["plan"]
        for name, value in changes.items():
            begun = getattr(plan, name)
            if value != begun and name not in _CHANGEABLE:
                option = f"--{name.replace('_', '-')}"
                raise ValueError(
                    f"{option} is {value} but the run in {folder} has {begun}; expected the same"
                )
        plan = replace(plan, **{name: changes[name] for name in _CHANGEABLE if name in changes})
        plan = replace(plan, threads=thread_count(plan.threads))
        training = plan.start()
        training.progress = about["progress"]
        if training.finished:
            raise ValueError(
                f"the run in {folder} has finished its {training.progress.epoch} epochs; expected --epochs "
                "above that to go on"
            )
        if about["images"] != len(training.data.train_labels):
            raise ValueError(
                f"{plan.data} has {len(training.data.train_labels)} images to train on but the run in "
                f"{folder} had {about['images']}; expected the same data"
            )
        training.rows = about["rows"]
        training.losses = arrays["losses"].tolist()
        training.model.assign(_group(arrays, "parameters"), str(path))
        for name, array in _group(arrays, "optimizer").items():
            training.optimizer.state[name][...] = array
        return cls(folder, plan, training)

    def go(
        self,
        on_step: Callable[[Progress], object] = lambda progress: None,
        on_epoch: Callable[[dict[str, Any]], object] = lambda row: None,
    ) -> bool:
        """Train to the end, with a checkpoint after each epoch; False if it was stopped before.

        Ctrl-C (SIGINT, and SIGTERM) stops it after the step under way, with a checkpoint. `on_step` is called
        after each step, `on_epoch` with each new row of the history.
        """
        training = self.training
        with pinned_threads(thread_count(self.plan.threads)), asked_to_stop() as stop:
            while not training.finished and not stop.is_set():
                whole = training.run_epoch(lambda progress: (on_step(progress), stop.is_set())[1])
                self.save()
                if whole:
                    on_epoch(training.rows[-1])
        with replacing(self.folder / CURVES) as path:
            draw_curves(training, path)
        return training.finished

    def save(self) -> None:
        """Write the checkpoint, the weights and the history; each is whole at any moment."""
        training = self.training
        about = {
            "plan": asdict(self.plan),
            "progress": asdict(training.progress),
            "rows": training.rows,
            "images": len(training.data.train_labels),
        }
        save_weights(
            self.folder / CHECKPOINT,
            {
                **{f"parameters/{name}": array for name, array in training.model.parameters().items()},
                **{f"optimizer/{name}": array for name, array in training.optimizer.state.items()},
                "losses": np.array(training.losses),
                "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            },
        )
        training.model.save(self.folder / WEIGHTS)
        with replacing(self.folder / HISTORY) as path:
            training.history().to_csv(path, index=False)


def plan_of(folder: Path) -> Plan:
    """The plan of the run in `folder`. Raises ValueError where there is none."""
    path = folder / CHECKPOINT
    plan: Plan = _about(path, read_weights(path))["plan"]
    return plan


def _about(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads(arrays["about"].tobytes())
        return {**about, "plan": Plan(**about["plan"]), "progress": Progress(**about["progress"])}
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint; expected one that `convbench train` wrote") from error


def _group(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    head = f"{group}/"
    return {name.removeprefix(head): array for name, array in arrays.items() if name.startswith(head)}


def new_folder(root: Path, plan: Plan) -> Path:
    """The next free folder for a run in `root`: model-data-1, -2 and so on."""
    stem = f"{plan.model}-{Path(plan.data).name.partition('.')[0] or 'data'}"
    number = 1
    while (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"


def newest_folder(root: Path, model: str = "*") -> Path:
    """The folder in `root` of the run, of `model` if given, that was saved last. Raises ValueError."""
    saved = sorted(root.glob(f"{model}-*/{CHECKPOINT}"), key=lambda path: path.stat().st_mtime)
    if not saved:
        what = "" if model == "*" else f" of {model}"
        raise ValueError(f"no run{what} in {root}/; expected one of `convbench train` before")
    return saved[-1].parent


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """An event that is set by the first SIGINT or SIGTERM; the second is as ever. Main thread only."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: object) -> None:
        event.set()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        restore()
