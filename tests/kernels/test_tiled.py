"""The tiled backend's own: other CPUs, plans that waste nothing they need not, memory that is used again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import CONVS, POOLS

from kernels import ConvSpec, PoolSpec
from kernels.problem import Problem
from kernels.registry import ops_of
from kernels.tiled_plan import dx_taps, forward_taps, gradient_plan, plans
from kernels.tiled_tile import Shape, registers
from kernels.tiled_vectors import lanes
from kernels.tiled_work import KEPT_BYTES, workspace

ROOT = Path(__file__).parents[2]
FLOAT32 = np.dtype(np.float32)
SCRIPT = """
import sys
sys.path[:0] = ["tests/kernels"]
from kernel_cases import CONVS, POOLS
from kernels.problem import Problem
from kernels.registry import ops_of
from kernels.tiled_vectors import vector_bits
assert vector_bits() == int(sys.argv[1]), vector_bits()
names = ["dense", "stride", "groups", "1-D causal", "max padding", "avg 3x3 s1", "avg four paddings, exclude"]
cases = {name: spec for name, spec in {**CONVS, **POOLS}.items() if name in names}
assert len(cases) == len(names)
for name, spec in cases.items():
    for op in ops_of(spec):
        for dtype in ("float32", "float64"):
            problem = Problem.integers(spec, op, dtype)
            verdict = problem.judge("tiled", problem.run("tiled"))
            assert verdict.wrong is None, (name, op, dtype, verdict.wrong)
print("right")
"""


@pytest.mark.parametrize(
    ("cpu", "features", "bits"), [("haswell", "+avx2,+fma", 256), ("x86-64", "", 128)], ids=["AVX2", "SSE2"]
)
def test_other_cpus(tmp_path, cpu, features, bits):
    """The same results from narrower vectors, exactly."""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(bits)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "right\n"


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("op", ["forward", "dx"])
def test_tiles_cover_every_output(spec, op):
    """And none begins outside, or is stored beyond its row."""
    for plan in plans(spec, op, FLOAT32, 2):
        g = plan.geometry
        covered = np.zeros((g.OH, plan.cols.out), bool)
        for block in range(g.blocks):
            first = min(block * g.block, g.OH - g.block)
            for row, col, valid, _ in plan.tiles:
                rows = g.tile_rows
                width = g.tile_cols if plan.across_filters else valid
                assert 0 <= row <= g.block - rows
                assert 0 <= col <= plan.cols.out - width
                covered[first + row : first + row + rows, col : col + width] = True
        assert covered.all()
        filters = np.zeros(g.filters, bool)
        for first, count, _ in plan.panels:
            assert 0 <= first <= g.filters - count
            filters[first : first + count] = True
        assert filters.all()


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS.keys())
def test_phases_of_dx_share_its_pixels(spec):
    """Each pixel belongs to one phase at most, and those left out are read by no window."""
    for axis in (spec.rows, spec.cols):
        pixels = [taps.first + i * taps.step for taps in dx_taps(axis) for i in range(taps.out)]
        assert len(set(pixels)) == len(pixels)
        read = set(axis.taps()[axis.valid()].tolist())
        assert read <= set(pixels) <= set(range(axis.size))
        assert forward_taps(axis).out == axis.out


def test_dw_takes_every_tap_once():
    for spec in CONVS.values():
        plan = gradient_plan(spec, FLOAT32, 2)
        wide = lanes(FLOAT32)
        filters = -(-(spec.K // spec.groups) // wide) * wide
        by_channels = {int(count) for count in plan.pieces[:, 4]}
        covered = sum(int(piece[3]) for piece in plan.pieces)
        if spec.R * spec.S == 1:
            assert covered == filters * len(by_channels)
        else:
            assert by_channels == {1}
            assert {int(first) for first in plan.pieces[:, 0]} <= set(range(spec.R * spec.S))


def test_tiles_fit_into_the_registers():
    assert Shape(4, 1, 1, 4).sums == 16
    for spec in CONVS.values():
        for op in ("forward", "dx"):
            for plan in plans(spec, op, FLOAT32, 2):
                wide = lanes(FLOAT32)
                numbers = plan.panels[:, 1].max() if not plan.across_filters else None
                if numbers is not None:
                    vectors = -(-plan.tiles[:, 2].max() // wide) * plan.geometry.tile_rows
                    assert numbers * vectors <= registers()
                else:
                    vectors = -(-plan.panels[:, 1].max() // wide)
                    assert plan.geometry.tile_rows * plan.geometry.tile_cols * vectors <= registers()


def test_layers_too_large_for_a_block():
    """Rows of one image that go through several blocks, and filters through several panels."""
    spec = ConvSpec(1, 300, 20, 18, 70, 3, 3, padding=1)
    assert plans(spec, "forward", FLOAT32, 2)[0].geometry.blocks > 1
    assert gradient_plan(spec, FLOAT32, 2).geometry.blocks > 1
    for op in ops_of(spec):
        problem = Problem.integers(spec, op)
        assert problem.judge("tiled", problem.run("tiled")).wrong is None


@pytest.mark.parametrize(
    "spec",
    [
        PoolSpec("max", 1, 1, 70, 8, 66, 3),
        PoolSpec("avg", 1, 2, 70, 8, 66, 3),
        PoolSpec("max", 1, 1, 140, 8, 66, 2, stride=(66, 2)),
        PoolSpec("max", 1, 2, 31, 9, 31, 2, stride=(31, 2)),
        PoolSpec("avg", 1, 2, 64, 4, 63, 1),
        PoolSpec("avg", 2, 3, 20, 20, 20, 20),
    ],
    ids=lambda spec: spec.descriptor,
)
def test_windows_of_many_taps(spec):
    """Up to what is unrolled, and beyond."""
    for problem in Problem.of_training(spec).values():
        assert problem.judge("tiled", problem.run("tiled")).wrong is None


def test_what_lies_in_the_workspace_does_not_matter():
    """NaN left there by an earlier call gets into no result."""
    for spec in (*CONVS.values(), *POOLS.values()):
        for op in ops_of(spec):
            problem = Problem.integers(spec, op)
            problem.run("tiled")  # makes it large enough
            for name in ("work", "weights", "sums"):
                workspace(name, 1 << 16, FLOAT32).fill(np.nan)
            assert problem.judge("tiled", problem.run("tiled")).wrong is None


def test_the_workspace_is_bounded_and_of_its_thread():
    one = workspace("test", 100, FLOAT32)
    assert np.shares_memory(one, workspace("test", 50, FLOAT32))
    assert not np.shares_memory(one, workspace("other", 100, FLOAT32))
    large = KEPT_BYTES // 4 + 1
    assert not np.shares_memory(workspace("test", large, FLOAT32), workspace("test", large, FLOAT32))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("window", [(2, 2, 0), (3, 1, 1), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("place", [0, 7, 8, 20, 63])
def test_an_index_of_no_tap(dtype, window, place):
    """A position in the plane but outside of its window is taken at its word, as by all backends."""
    kernel, stride, padding = window
    spec = PoolSpec("max", 2, 3, 8, 8, kernel, kernel, stride=(stride, stride), padding=padding)
    problem = Problem.integers(spec, "dx", dtype)
    problem.arrays["indices"][1, 2, -1, -1] = place
    problem.arrays["indices"][0, 1, 0] = place
    assert problem.judge("tiled", problem.run("tiled")).wrong is None


@pytest.mark.parametrize("place", [-1, -2, -(2**31), -(2**32), 64, 2**31 + 4, 2**32, 2**32 + 9, 2**63 - 1])
def test_an_index_outside_of_the_plane(place):
    """Even one that would be right in 32 bits."""
    problem = Problem.integers(PoolSpec("max", 1, 2, 8, 8, 3, 3, stride=1, padding=1), "dx")
    problem.arrays["indices"][0, 1, 0, 0] = place
    with pytest.raises(ValueError, match=r"expected positions in the 8x8 plane, 0\.\.63"):
        problem.run("tiled")


@pytest.mark.parametrize("op", ["forward", "dx"])
@pytest.mark.parametrize("mode", ["max", "avg"])
@pytest.mark.parametrize("width", [1, 2, 3, 15, 16, 17, 31, 32, 33, 34, 50, 64, 65])
def test_rows_of_any_length(mode, op, width):
    """Whole vectors, vectors with masks, and windows of every stride that begin or end in the padding."""
    for kernel, stride, padding, include in (
        (2, 2, 0, True),
        (3, 1, 1, False),
        (3, 2, 1, False),
        (4, 3, 2, True),
    ):
        if width + 2 * padding >= kernel:
            sides = ((1, 0), (padding, padding))
            spec = PoolSpec(
                mode, 2, 2, 5, width, 2, kernel, stride=(1, stride), padding=sides, count_include_pad=include
            )
            for problem in (Problem.integers(spec, op), Problem.of_training(spec)[op]):
                assert problem.judge("tiled", problem.run("tiled")).wrong is None


@pytest.mark.parametrize("stride", [3, 4, 5, 8, 9, 11])
@pytest.mark.parametrize("mode", ["max", "avg"])
def test_large_strides(mode, stride):
    """Up to what vectors are taken apart for, and beyond."""
    for kernel in (stride - 1, stride, stride + 2):
        spec = PoolSpec(
            mode, 1, 2, kernel + stride + 1, 16 * stride + 5, kernel, kernel, stride=(stride, stride)
        )
        for problem in Problem.of_training(spec).values():
            assert problem.judge("tiled", problem.run("tiled")).wrong is None
