"""The cost model, on times that follow it, and on times that do not quite."""

from __future__ import annotations

import numpy as np
import pytest

from kernels import ConvSpec
from kernels.cost import LEAST_POINTS, CostModel

SPECS = [
    ConvSpec(n, c, size, size, 8, 3, 3, padding=1) for n in (1, 16) for c in (1, 8) for size in (8, 16, 32)
]


def seconds(spec: ConvSpec) -> float:
    return 2e-5 + 1e-10 * spec.flops + 3e-10 * spec.least_bytes("float32")


def test_it_finds_the_law_behind_exact_times():
    model = CostModel([(spec, seconds(spec)) for spec in SPECS], "float32")
    for unseen in (ConvSpec(4, 4, 20, 20, 12, 5, 5), ConvSpec(64, 32, 28, 28, 32, 3, 3)):
        assert model.predict(unseen) == pytest.approx(seconds(unseen), rel=1e-3)


def test_noise_moves_it_a_little_and_nothing_is_negative():
    rng = np.random.default_rng(0)
    model = CostModel([(spec, seconds(spec) * rng.uniform(0.9, 1.1)) for spec in SPECS], "float32")
    assert model.coefficients is not None
    assert (model.coefficients >= 0).all()
    for spec in SPECS:
        assert model.predict(spec) == pytest.approx(seconds(spec), rel=0.25)


def test_too_few_points_predict_nothing():
    points = [(spec, seconds(spec)) for spec in SPECS]
    assert CostModel(points[: LEAST_POINTS - 1], "float32").predict(SPECS[0]) is None
    assert CostModel(points[:LEAST_POINTS], "float32").predict(SPECS[0]) is not None
