"""The networks of the course material that convbench grew from, by name, for 28x28 digits.

Where a network has ReLU and max pooling, pooling comes first: the result is the same, as both keep the order
of numbers, and ReLU sees a quarter of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trainer.layers import AvgPool2d, Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Tanh
from trainer.network import Model

SHAPE = (1, 28, 28)


def mnist3() -> dict[str, Layer]:
    """Three strided convolutions."""
    return {
        "conv1": Conv2d(1, 32, 3, stride=2, padding=1),
        "relu1": ReLU(),
        "conv2": Conv2d(32, 64, 3, stride=2, padding=1),
        "relu2": ReLU(),
        "conv3": Conv2d(64, 128, 3, stride=2, padding=1),
        "relu3": ReLU(),
        "flatten": Flatten(),
        "fc1": Linear(2048, 250),
        "relu4": ReLU(),
        "fc2": Linear(250, 10),
    }


def mnist2() -> dict[str, Layer]:
    """Two convolutions, each with 2x2 max pooling."""
    return {
        "conv1": Conv2d(1, 32, 3),
        "pool1": MaxPool2d(2),
        "relu1": ReLU(),
        "conv2": Conv2d(32, 64, 3),
        "pool2": MaxPool2d(2),
        "relu2": ReLU(),
        "flatten": Flatten(),
        "fc1": Linear(1600, 250),
        "relu3": ReLU(),
        "fc2": Linear(250, 10),
    }


def scratch() -> dict[str, Layer]:
    """What most people write first."""
    return {
        "conv1": Conv2d(1, 8, 3, padding=1),
        "pool1": MaxPool2d(2),
        "relu1": ReLU(),
        "flatten": Flatten(),
        "fc1": Linear(1568, 64),
        "relu2": ReLU(),
        "fc2": Linear(64, 10),
    }


def lenet() -> dict[str, Layer]:
    """Y. LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998; max pooling, ReLU."""
    return {
        "conv1": Conv2d(1, 6, 5),
        "pool1": MaxPool2d(2),
        "relu1": ReLU(),
        "conv2": Conv2d(6, 16, 5),
        "pool2": MaxPool2d(2),
        "relu2": ReLU(),
        "flatten": Flatten(),
        "fc1": Linear(256, 120),
        "relu3": ReLU(),
        "fc2": Linear(120, 84),
        "relu4": ReLU(),
        "fc3": Linear(84, 10),
    }


def simple() -> dict[str, Layer]:
    """One convolution and a linear layer."""
    return {
        "conv1": Conv2d(1, 8, 3, padding=1),
        "relu1": ReLU(),
        "flatten": Flatten(),
        "fc1": Linear(6272, 10),
    }


def tanhavg() -> dict[str, Layer]:
    """One convolution, tanh, average pooling that overlaps."""
    return {
        "conv1": Conv2d(1, 6, 3),
        "tanh1": Tanh(),
        "pool1": AvgPool2d(3, stride=1),
        "flatten": Flatten(),
        "fc1": Linear(3456, 32),
        "tanh2": Tanh(),
        "fc2": Linear(32, 10),
    }


_MODELS: dict[str, Callable[[], dict[str, Layer]]] = {
    builder.__name__: builder for builder in (mnist3, mnist2, scratch, lenet, simple, tanhavg)
}


def models() -> tuple[str, ...]:
    """The names of the networks."""
    return tuple(_MODELS)


def build_model(name: str, backend: str | Mapping[str, str] = "auto", seed: int = 0) -> Model:
    """The network called `name`, for x (N, 1, 28, 28) float32, with 10 classes.

    `backend`: one name for all layers, or {layer: backend}; `seed` gives the first weights (see `Model`).
    Raises ValueError for unknown names.
    """
    if name not in _MODELS:
        raise ValueError(f"model is {name!r}; expected one of {', '.join(_MODELS)}")
    return Model(name, _MODELS[name](), SHAPE, backend=backend, seed=seed)


def matching_model(arrays: Mapping[str, np.ndarray], source: str) -> str:
    """The name of the network that `arrays` are the parameters of. Raises ValueError where they fit none."""
    for name in _MODELS:
        try:
            build_model(name).assign(arrays)
        except ValueError:
            continue
        return name
    raise ValueError(
        f"{source} fits none of {', '.join(_MODELS)}; expected --model with one of them, to see what differs"
    )
