"""What a call will take on a layer that was never measured: a line through those that were.

For each backend and operation, seconds = a + b FLOPs + c bytes + d bytes of the window matrix, with nothing
below zero (C. Lawson, R. Hanson, "Solving Least Squares Problems", 1974), fitted to relative errors, so that
small layers count as much as large ones. At a stride that was never measured nothing is said: some methods
then do other work for each FLOP (`winograd_strided`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kernels.spec import Spec

LEAST_POINTS = 8
"""Layers to have been measured before a line is drawn through them."""


class CostModel:
    """Seconds of a call of one backend, for one operation in one dtype."""

    def __init__(self, points: Iterable[tuple[Spec, float]], dtype: str) -> None:
        self.dtype = dtype
        self.points = list(points)
        self.strides = {spec.stride for spec, _ in self.points}
        self.coefficients = self._fit() if len(self.points) >= LEAST_POINTS else None

    def predict(self, spec: Spec) -> float | None:
        """Seconds of a call on `spec`; None where too little was measured, or nothing at its stride."""
        if self.coefficients is None or spec.stride not in self.strides:
            return None
        return float(self._features(spec) @ self.coefficients)

    def _fit(self) -> np.ndarray:
        from scipy.optimize import nnls

        features = np.array([self._features(spec) for spec, _ in self.points])
        seconds = np.array([seconds for _, seconds in self.points])
        relative = features / seconds[:, None]
        scale = relative.max(axis=0)
        scale[scale == 0] = 1
        coefficients: np.ndarray = nnls(relative / scale, np.ones(len(seconds)))[0] / scale
        return coefficients

    def _features(self, spec: Spec) -> np.ndarray:
        return np.array([1.0, spec.flops, spec.least_bytes(self.dtype), spec.im2col_bytes(self.dtype)])
