"""How gradients change parameters: PyTorch's SGD and Adam, over all parameters as one array."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from trainer.fused import MEMORY_BOUND, momentum_step


class Optimizer(ABC):
    """Steps `values` along `slopes`, both flat arrays; `state` is what it remembers from step to step."""

    def __init__(self, values: np.ndarray, slopes: np.ndarray, lr: float) -> None:
        self.values = values
        self.slopes = slopes
        self.lr = lr
        self.state: dict[str, np.ndarray] = {}
        self._scratch = np.empty_like(values)

    @abstractmethod
    def step(self) -> None:
        """Change `values` in place."""


class SGD(Optimizer):
    """v = momentum v + slope; value -= lr v."""

    def __init__(self, values: np.ndarray, slopes: np.ndarray, lr: float, momentum: float = 0.0) -> None:
        super().__init__(values, slopes, lr)
        self.momentum = momentum
        if momentum:
            self.state = {"velocity": np.zeros_like(values)}

    def step(self) -> None:
        if self.momentum:
            number = self.values.dtype.type
            momentum_step(
                MEMORY_BOUND * self.values.size,
                self.values,
                self.slopes,
                self.state["velocity"],
                number(self.lr),
                number(self.momentum),
            )
        else:
            self.values -= np.multiply(self.slopes, self.lr, out=self._scratch)


class Adam(Optimizer):
    """D. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", 2015, algorithm 1."""

    BETAS = (0.9, 0.999)
    EPSILON = 1e-8

    def __init__(self, values: np.ndarray, slopes: np.ndarray, lr: float) -> None:
        super().__init__(values, slopes, lr)
        self.state = {
            "mean": np.zeros_like(values),
            "square": np.zeros_like(values),
            "steps": np.zeros((), np.int64),
        }

    def step(self) -> None:
        mean, square, scratch = self.state["mean"], self.state["square"], self._scratch
        self.state["steps"] += 1
        steps = int(self.state["steps"])
        (of_mean, of_square) = self.BETAS
        np.subtract(self.slopes, mean, out=scratch)
        scratch *= 1 - of_mean
        mean += scratch
        np.multiply(self.slopes, self.slopes, out=scratch)
        scratch *= 1 - of_square
        square *= of_square
        square += scratch
        np.sqrt(square, out=scratch)
        scratch /= np.sqrt(1 - of_square**steps).item()
        scratch += self.EPSILON
        np.divide(mean, scratch, out=scratch)
        scratch *= self.lr / (1 - of_mean**steps)
        self.values -= scratch
