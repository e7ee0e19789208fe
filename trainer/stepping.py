"""How long training steps take, layer by layer: on the choices of "auto" and on each backend alone.

The closed loop of choosing: what was measured of single layers predicts a step, the step is timed, and so are
steps that use one backend throughout.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kernels import available_backends
from kernels.registry import Op, ops_of
from kernels.selection import Key, Selection
from kernels.spec import Spec
from kernels.threads import active, sharing_cores
from trainer.data import Data
from trainer.loss import softmax_cross_entropy
from trainer.models import build_model
from trainer.network import Model
from trainer.optimizers import SGD

LEAST_STEPS = 5
WARM_UP = 3
HOPELESS = 20.0
"""A backend whose steps are predicted to take this many times those of "auto" is not timed."""


@dataclass
class StepTimes:
    """Seconds of steps: `totals`, and by layer those of forward and of backward."""

    totals: list[float] = field(default_factory=list)
    forward: dict[str, list[float]] = field(default_factory=dict)
    backward: dict[str, list[float]] = field(default_factory=dict)

    @property
    def median_s(self) -> float:
        """Seconds of a step."""
        return float(np.median(self.totals))


@dataclass(frozen=True)
class LayerTime:
    """One direction of one layer: its choices, and the seconds that were predicted and that it took."""

    layer: str
    direction: str
    backends: tuple[str, ...]
    predicted_s: float
    realised_s: float


@dataclass(frozen=True)
class Proof:
    """A tuned network's layers, and the seconds of its steps with "auto" and with each backend alone.

    `predicted_only` holds those that were too slow to be timed.
    """

    layers: tuple[LayerTime, ...]
    steps: dict[str, StepTimes]
    predicted_only: dict[str, float]

    @property
    def predicted_s(self) -> float:
        """The sum over the layers."""
        return sum(each.predicted_s for each in self.layers)

    @property
    def realised_s(self) -> float:
        """The sum over the layers."""
        return sum(each.realised_s for each in self.layers)

    @property
    def best_single(self) -> str:
        """The backend with the fastest step of those alone."""
        singles = {name: times for name, times in self.steps.items() if name != "auto"}
        return min(singles, key=lambda name: singles[name].median_s)

    @property
    def regret(self) -> float:
        """The step time of "auto" over that of the best single backend."""
        return self.steps["auto"].median_s / self.steps[self.best_single].median_s


def prove(name: str, selection: Selection, data: Data, batch_size: int, seconds: float) -> Proof:
    """Time the network's steps on what `selection` chooses and on each backend alone, `seconds` for each.

    Raises ValueError where the network's layers are not measured at this batch size.
    """
    model = build_model(name)
    batch_size = min(batch_size, len(data.train_labels))
    specs = model.specs(batch_size)
    predicted: dict[str, float] = {}
    for backend in available_backends():
        by_layer = [_predicted(selection, specs[layer], op, backend) for layer, op in _needed(model)]
        predicted[backend] = sum(by_layer)
    chosen = {
        (layer, op): selection.choose(Key(specs[layer], op, "float32", active()))
        for layer, op in _needed(model)
    }
    of_choice = {
        which: _predicted(selection, specs[which[0]], which[1], choice.backend if choice else None)
        for which, choice in chosen.items()
    }
    limit = HOPELESS * sum(of_choice.values())
    timed = [backend for backend in predicted if predicted[backend] <= limit]
    steps = time_steps(
        {"auto": model, **{backend: build_model(name, backend) for backend in timed}},
        data,
        batch_size,
        seconds,
    )
    layers = []
    for direction, parts in (("forward", ("forward",)), ("backward", ("dx", "dw"))):
        for layer in specs:
            ops = [op for part, op in _needed(model) if part == layer and op in parts]
            backends = [choice.backend for op in ops if (choice := chosen[layer, op])]
            if ops:
                took = getattr(steps["auto"], direction)[layer]
                expected = sum(of_choice[layer, op] for op in ops)
                layers.append(LayerTime(layer, direction, tuple(backends), expected, float(np.median(took))))
    rest = {backend: predicted[backend] for backend in predicted if backend not in timed}
    return Proof(tuple(layers), steps, rest)


def _needed(model: Model) -> list[tuple[str, Op]]:
    """The operations that a training step needs: no dx for the first convolution."""
    first = model.first_with_parameters
    return [
        (layer, op)
        for layer, spec in model.specs().items()
        for op in ops_of(spec)
        if (layer, op) != (first, "dx")
    ]


def _predicted(selection: Selection, spec: Spec, op: Op, backend: str | None) -> float:
    """Seconds that were measured for `op` on `spec`."""
    key = Key(spec, op, "float32", active())
    measured = selection.entries.get(key, {}).get(backend or "")
    if measured is None:
        raise ValueError(f"{op} of {spec.descriptor} is not measured with {backend}; expected it to be tuned")
    return measured.median_s


def time_steps(
    models: Mapping[str, Model], data: Data, batch_size: int, seconds: float
) -> dict[str, StepTimes]:
    """Times of training steps of all `models`, in turn, for about `seconds` each, on the same images.

    The models learn as they are timed.
    """
    x, labels = data.train_images[:batch_size], data.train_labels[:batch_size]
    optimizers = {name: SGD(model.values, model.slopes, 0.01, 0.9) for name, model in models.items()}
    times = {name: StepTimes() for name in models}
    with sharing_cores():
        for name, model in models.items():
            for _ in range(WARM_UP):  # compiles, and makes the buffers
                _step(model, optimizers[name], x, labels, StepTimes())
        while any(_wants_more(each, seconds) for each in times.values()):
            for name, model in models.items():
                if _wants_more(times[name], seconds):
                    _step(model, optimizers[name], x, labels, times[name])
    return times


def _wants_more(times: StepTimes, seconds: float) -> bool:
    return len(times.totals) < LEAST_STEPS or sum(times.totals) < seconds


def _step(model: Model, optimizer: SGD, x: np.ndarray, labels: np.ndarray, times: StepTimes) -> None:
    """A training step as `Training` makes it, with a clock at each layer."""
    start = before = time.perf_counter()
    for name, layer in model.layers.items():
        x = layer.forward(x, training=True)
        after = time.perf_counter()
        times.forward.setdefault(name, []).append(after - before)
        before = after
    _, gradient = softmax_cross_entropy(x, labels)
    dy: np.ndarray | None = gradient
    before = time.perf_counter()
    first = model.first_with_parameters
    for name, layer in reversed(model.layers.items()):
        assert dy is not None
        dy = layer.backward(dy, need_dx=name != first)
        after = time.perf_counter()
        times.backward.setdefault(name, []).append(after - before)
        before = after
        if name == first:
            break
    optimizer.step()
    times.totals.append(time.perf_counter() - start)
