"""Phases of planes, and 1 x 1 taps at a stride on the pixels that they see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from other_cpus import on_other_cpus, run_on

from kernels import ConvSpec, tiled_strided
from kernels.problem import Problem
from kernels.registry import OPS
from kernels.tiled_phases import add, join, split
from kernels.tiled_strided import pays
from kernels.tiled_work import workspace

LAYERS = {
    "2": ConvSpec(3, 5, 30, 41, 19, 1, 1, stride=2),
    "down only": ConvSpec(2, 7, 12, 35, 9, 1, 1, stride=(3, 1)),
    "across only, 1-D": ConvSpec(2, 4, 1, 100, 6, 1, 1, stride=(1, 3)),
    "groups": ConvSpec(5, 12, 9, 70, 18, 1, 1, stride=(2, 4), groups=3),
    "larger than the plane": ConvSpec(2, 3, 4, 5, 4, 1, 1, stride=9),
}
SCRIPT = """
from test_tiled_strided import LAYERS, assert_phases_right, assert_right
from kernels import tiled_strided
tiled_strided.pays = lambda *_: True
for spec in LAYERS.values():
    assert_right(spec)
assert_phases_right((2, 3), "float32")
"""


def assert_right(spec: ConvSpec) -> None:
    """With integers, whose sums are exact, whatever the workspace holds."""
    for op in OPS:
        for dtype in ("float32", "float64"):
            workspace("pixels", 1 << 12, np.dtype(dtype)).fill(np.nan)
            problem = Problem.integers(spec, op, dtype)
            verdict = problem.judge("tiled", problem.run("tiled"))
            assert verdict.wrong is None, (spec, op, dtype, verdict.wrong)


@pytest.mark.parametrize("spec", LAYERS.values(), ids=LAYERS.keys())
def test_layers(spec: ConvSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_strided, "pays", lambda *_: True)
    assert_right(spec)


@pytest.mark.parametrize("op", OPS)
def test_where_it_pays(op: str) -> None:
    """Where there is much to multiply, and each output has inputs of its own place alone."""
    large = ConvSpec(16, 256, 56, 56, 512, 1, 1, stride=2)
    dtype = np.dtype(np.float32)
    assert pays(large, op, dtype, 2)
    assert not pays(ConvSpec(1, 16, 14, 14, 32, 1, 1, stride=2), op, dtype, 2)
    assert not pays(ConvSpec(1, 1024, 14, 14, 2048, 1, 1, stride=2, padding=1), op, dtype, 2)
    assert not pays(ConvSpec(1, 1024, 14, 14, 2048, 3, 3, stride=2), op, dtype, 2)


@on_other_cpus
def test_other_cpus(tmp_path: Path, cpu: str, features: str, bits: int) -> None:
    run_on(cpu, features, bits, tmp_path, SCRIPT)


def assert_phases_right(stride: tuple[int, int], dtype: str) -> None:
    """Split, joined and added: as slices with steps do it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 11, 67)).astype(dtype)
    seen, origin = (10, 64), (3, 2)
    height, width = (-(-size // step) for size, step in zip(np.add(seen, origin) + 1, stride, strict=True))
    padded = np.zeros((5, height * stride[0], width * stride[1]), dtype)
    rows, cols = seen
    padded[:, origin[0] : origin[0] + rows, origin[1] : origin[1] + cols] = x[:, :rows, :cols]
    expected = padded.reshape(5, height, stride[0], width, stride[1]).transpose(0, 2, 4, 1, 3)
    phases = np.full(expected.shape, np.nan, dtype)
    split(x, stride, seen, origin, phases)
    np.testing.assert_array_equal(phases, expected)
    first = np.full((5, 1, 1, height, width), np.nan, dtype)
    split(x, stride, seen, origin, first)
    np.testing.assert_array_equal(first, expected[:, :1, :1])
    back = np.full_like(x, 7)
    join(phases, stride, seen, origin, back)
    wanted = np.full_like(x, 7)
    wanted[:, :rows, :cols] = x[:, :rows, :cols]
    np.testing.assert_array_equal(back, wanted)
    add(phases, stride, seen, origin, back)
    wanted[:, :rows, :cols] *= 2
    np.testing.assert_array_equal(back, wanted)


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (1, 3), (3, 1), (4, 4), (2, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_phases(stride: tuple[int, int], dtype: str) -> None:
    assert_phases_right(stride, dtype)
