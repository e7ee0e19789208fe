"""How long training steps take, layer by layer: on the choices of "auto" and on each backend alone.

The closed loop of choosing: what was measured of single layers predicts a step, the step is timed, and so are
steps that use one backend throughout. Where one backend alone is faster than the best of each layer, because
layers disturb each other (the threads of two libraries, say), that settles the choice: `settle` keeps it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kernels import own_backends
from kernels.registry import Op, ops_of
from kernels.selection import Key, Selection
from kernels.threads import active, sharing_cores
from kernels.tuning import Laps
from trainer.data import Data
from trainer.loss import softmax_cross_entropy
from trainer.models import build_model
from trainer.network import Model
from trainer.optimizers import SGD

LEAST_STEPS = 5
WARM_UP = 3
HOPELESS = 2.5
"""A backend whose layers take this many times those of the best backend is not timed."""
WORTH_IT = 0.01
"""What one backend for all must gain on the choices for each layer, to settle them."""


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
    """One direction of one layer, in seconds: as its choices were measured when they were made, as they are
    measured now, one layer at a time, and as it took within steps, now.
    """

    layer: str
    direction: str
    backends: tuple[str, ...]
    measured_s: float
    predicted_s: float
    realised_s: float


@dataclass(frozen=True)
class Proof:
    """A tuned network's layers, and the seconds of its steps with "auto" and with each backend alone.

    `chosen` holds what "auto" is, for each operation of a step; `predicted_only` those that were too slow to
    be timed. Between tuning and proof the machine may have become faster or slower; `drift` says how much,
    and the prediction allows for it.
    """

    layers: tuple[LayerTime, ...]
    chosen: dict[Key, str]
    steps: dict[str, StepTimes]
    predicted_only: dict[str, float]

    @property
    def predicted_s(self) -> float:
        """The sum over the layers."""
        return sum(each.predicted_s for each in self.layers)

    @property
    def drift(self) -> float:
        """How many times as long the same calls take now."""
        return self.predicted_s / sum(each.measured_s for each in self.layers)

    @property
    def realised_s(self) -> float:
        """The sum over the layers."""
        return sum(each.realised_s for each in self.layers)

    @property
    def best_single(self) -> str:
        """The backend with the fastest step of those alone."""
        singles = [name for name in self.steps if name != "auto"]
        return min(singles, key=lambda name: _ratio(self.steps[name], self.steps["auto"]))

    @property
    def regret(self) -> float:
        """The step time of "auto" over that of the best single backend."""
        return _ratio(self.steps["auto"], self.steps[self.best_single])

    @property
    def alone(self) -> dict[Key, str]:
        """What would be chosen if the best single backend settled it."""
        return dict.fromkeys(self.chosen, self.best_single)


def prove(name: str, selection: Selection, data: Data, batch_size: int, seconds: float) -> Proof:
    """Time the network's steps on what `selection` chooses and on each backend alone, `seconds` for each.

    "auto" must be using `selection`. Raises ValueError where the network's layers are not measured at this
    batch size.
    """
    x, labels = data.train_images[:batch_size], data.train_labels[:batch_size]
    auto = build_model(name)
    expected = _Expected.of(auto, selection, len(labels))
    timed = expected.worth_timing()
    models = {"auto": auto, **{backend: build_model(name, backend) for backend in timed}}
    laps = Laps(expected.chosen)
    steps = time_steps(models, x, labels, seconds, laps.run)
    layers = []
    for direction, parts in (("forward", ("forward",)), ("backward", ("dx", "dw"))):
        for layer in auto.specs():
            keys = [key for (part, op), key in expected.keys.items() if part == layer and op in parts]
            if keys:
                took = getattr(steps["auto"], direction)[layer]
                backends = tuple(expected.chosen[key] for key in keys)
                measured_s = sum(
                    selection.entries[key][name].median_s for key, name in zip(keys, backends, strict=True)
                )
                predicted_s = sum(map(laps.median_s, keys))
                realised_s = float(np.median(took))
                layers.append(LayerTime(layer, direction, backends, measured_s, predicted_s, realised_s))
    rest = {backend: total for backend, total in expected.alone_s.items() if backend not in timed}
    return Proof(tuple(layers), expected.chosen, steps, rest)


def settle(name: str, selection: Selection, batch_size: int, seconds: float) -> dict[Key, str]:
    """What each operation of the network should use, as whole steps on random images show.

    Either the choices for each layer, or, where its steps are faster by more than `WORTH_IT`, one backend for
    all. `seconds` go to each. "auto" must be using `selection`, in which all layers are measured.
    """
    model = build_model(name)
    expected = _Expected.of(model, selection, batch_size)
    models = {"auto": model, **{backend: build_model(name, backend) for backend in expected.worth_timing()}}
    rng = np.random.default_rng(0)
    x = rng.random((batch_size, *model.shape), np.float32)
    steps = time_steps(models, x, rng.integers(0, 10, batch_size), seconds)
    best = min(steps, key=lambda each: _ratio(steps[each], steps["auto"]))
    if _ratio(steps["auto"], steps[best]) < 1 + WORTH_IT:
        return expected.chosen
    return dict.fromkeys(expected.chosen, best)


def _ratio(one: StepTimes, other: StepTimes) -> float:
    """How many times as long one step takes: the median over rounds, in which drift is common to both."""
    pairs = zip(one.totals, other.totals, strict=False)  # the slower one may have fewer
    return float(np.median([first / second for first, second in pairs]))


def settled(name: str, selection: Selection, batch_size: int) -> bool:
    """Whether `settle` has spoken of all that the network needs, since it was measured."""
    model = build_model(name)
    return all(key in selection.settled for key in _needed(model, batch_size).values())


@dataclass(frozen=True)
class _Expected:
    """What single layers make expect of a step: the choices, and the seconds of each backend alone.

    Alone are those that were measured on all layers: the others cannot do some.
    """

    keys: dict[tuple[str, Op], Key]
    chosen: dict[Key, str]
    alone_s: dict[str, float]

    @classmethod
    def of(cls, model: Model, selection: Selection, batch_size: int) -> _Expected:
        """Raises ValueError for a layer that is not measured."""
        keys = _needed(model, batch_size)
        measured = [selection.entries.get(key, {}) for key in keys.values()]
        alone_s = {
            backend: sum(candidates[backend].median_s for candidates in measured)
            for backend in own_backends()
            if all(backend in candidates for candidates in measured)
        }
        for key, candidates in zip(keys.values(), measured, strict=True):
            if not candidates:
                raise ValueError(
                    f"{key.op} of {key.spec.descriptor} is not measured; expected it to be tuned"
                )
        chosen = {key: choice.backend for key in keys.values() if (choice := selection.choose(key))}
        return cls(keys, chosen, alone_s)

    def worth_timing(self) -> list[str]:
        """The backends that are not hopelessly slow alone."""
        limit = HOPELESS * min(self.alone_s.values())
        return [backend for backend, total in self.alone_s.items() if total <= limit]


def _needed(model: Model, batch_size: int) -> dict[tuple[str, Op], Key]:
    """The operations that a training step needs, by layer: no dx for the first convolution."""
    first = model.first_with_parameters
    return {
        (layer, op): Key(spec, op, "float32", active())
        for layer, spec in model.specs(batch_size).items()
        for op in ops_of(spec)
        if (layer, op) != (first, "dx")
    }


def time_steps(
    models: Mapping[str, Model],
    x: np.ndarray,
    labels: np.ndarray,
    seconds: float,
    between: Callable[[], object] = lambda: None,
) -> dict[str, StepTimes]:
    """Times of training steps of all `models`, in turn, for about `seconds` each, on the images x.

    The models learn as they are timed. `between` is called once in each round. Each round begins with another
    model: none is always the first after `between`.
    """
    optimizers = {name: SGD(model.values, model.slopes, 0.01, 0.9) for name, model in models.items()}
    times = {name: StepTimes() for name in models}
    with sharing_cores():
        for name, model in models.items():
            for _ in range(WARM_UP):  # compiles, and makes the buffers
                _step(model, optimizers[name], x, labels, StepTimes())
        turns = deque(models)
        while any(_wants_more(each, seconds) for each in times.values()):
            for name in turns:
                if _wants_more(times[name], seconds):
                    for each in (StepTimes(), times[name]):  # as in training, after its like
                        _step(models[name], optimizers[name], x, labels, each)
            turns.rotate(-1)
            between()
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
