"""First values of parameters: PyTorch's own, number for number."""

from __future__ import annotations

import numpy as np


class TorchUniform:
    """The stream of numbers that `Tensor.uniform_` draws on the CPU after `torch.manual_seed(seed)`.

    PyTorch seeds the same Mersenne Twister as NumPy's `RandomState` and makes a float32 of the low 24 bits of
    each number (ATen/core/TransformationHelper.h). A network whose layers draw in the order of `torch.nn`'s
    constructors thus starts from PyTorch's weights. Raises ValueError or TypeError for a bad seed.
    """

    def __init__(self, seed: int) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            raise TypeError(f"seed is {seed!r}; expected an int")
        if not 0 <= seed < 2**32:
            raise ValueError(f"seed is {seed}; expected 0 to {2**32 - 1}")
        self._twister = np.random.RandomState(seed)

    def __call__(self, bound: float, count: int) -> np.ndarray:
        """The next `count` numbers, float32 (count,), from -bound to bound."""
        bits = self._twister.randint(0, 2**32, count, np.uint32) & np.uint32(2**24 - 1)
        low, high = np.float32(-bound), np.float32(bound)
        # In float64, rounded once: PyTorch's compiler fuses the multiplication with the addition.
        fractions = bits * 2.0**-24
        return (fractions * np.float64(high - low) + np.float64(low)).astype(np.float32)
