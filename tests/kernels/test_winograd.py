"""The winograd backend's own: its matrices, its precision, other CPUs, layers cut into many pieces."""

from __future__ import annotations

import operator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from kernel_cases import CONVS
from other_cpus import on_other_cpus, run_on

import kernels
from kernels import (
    ConvSpec,
    PoolSpec,
    winograd,
    winograd_conv,
    winograd_dw,
    winograd_dw_plan,
    winograd_strided,
)
from kernels.policy import ERROR_BUDGET
from kernels.problem import Problem
from kernels.registry import OPS
from kernels.tiled_work import workspace
from kernels.winograd_plan import band_of, dx_tile_for, plan, tile_for
from kernels.winograd_transforms import TAPS, Axis, DxAxis, Tile, matrices

FLOAT32, FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
WINOGRAD = kernels.get_backend("winograd")
LAYERS = {
    **{name: spec for name, spec in CONVS.items() if WINOGRAD.unsupported(spec, "forward", FLOAT32) is None},
    "several blocks, slices and panels": ConvSpec(5, 130, 35, 22, 37, 3, 3, padding=1),
    "many tiles across": ConvSpec(1, 3, 6, 150, 5, 3, 3),
    "many tiles, grouped": ConvSpec(7, 57, 30, 25, 15, 3, 3, groups=3, padding=1),
    "shared tiles": ConvSpec(1, 70, 9, 9, 50, 3, 3, padding=1),
    "several panels and blocks": ConvSpec(1, 700, 32, 32, 40, 3, 3, padding=1),
    "panels of groups": ConvSpec(2, 66, 9, 13, 90, 3, 3, groups=3, padding=1),
    "grouped": ConvSpec(3, 30, 17, 13, 24, 3, 3, groups=3, padding=((2, 0), (1, 2))),
    "more padding than kernel": ConvSpec(2, 3, 9, 40, 4, 3, 3, padding=((5, 3), (4, 6))),
    **{f"{R}x{S}": ConvSpec(2, 5, 13, 37, 7, R, S, padding=(R // 2, S - 1)) for R in TAPS for S in TAPS},
    "5x5, small tiles": ConvSpec(3, 18, 6, 6, 20, 5, 5, padding=2),
    "images side by side": ConvSpec(31, 5, 12, 11, 7, 5, 4),
    "images side by side, a share each, grouped": ConvSpec(30, 38, 8, 7, 14, 3, 3, groups=2, padding=1),
    "images side by side, in bands": ConvSpec(62, 40, 19, 22, 18, 3, 3, padding=1, groups=2),
    "images side by side, padded": ConvSpec(64, 3, 9, 12, 4, 3, 3, padding=((5, 3), (4, 6))),
    "3x3 at 2": ConvSpec(3, 9, 40, 70, 11, 3, 3, stride=2, padding=1),
    "3x3 at 2, images side by side": ConvSpec(33, 6, 14, 14, 10, 3, 3, stride=2, padding=1, groups=2),
    "3x3 at 2, closed tiles": ConvSpec(40, 8, 7, 9, 13, 3, 3, stride=2, padding=1),
    "3x3 at 2, more filters than tiles": ConvSpec(1, 70, 9, 9, 90, 3, 3, stride=2, padding=1),
    "3x3 at 2, wide planes of odd size": ConvSpec(
        2, 17, 31, 45, 20, 3, 3, stride=2, padding=((0, 2), (1, 0))
    ),
    "4x4 at 2, inputs that no window reaches": ConvSpec(33, 4, 17, 13, 6, 4, 4, stride=2),
    "4x3 at 2 and 1": ConvSpec(2, 5, 30, 31, 7, 4, 3, stride=(2, 1), padding=((0, 3), (1, 2))),
    "3x4 at 1 and 2": ConvSpec(2, 5, 7, 30, 7, 3, 4, stride=(1, 2), padding=((1, 1), (0, 3))),
    "5x3 at 1 and 2": ConvSpec(3, 4, 31, 9, 5, 5, 3, stride=(1, 2), padding=1),
    "3x3 at 2, closed tiles, many channels": ConvSpec(130, 300, 5, 13, 4, 3, 3, stride=2, padding=1),
    "11x11 at 4": ConvSpec(2, 3, 67, 59, 20, 11, 11, stride=4),
    "7x7 at 2": ConvSpec(2, 3, 40, 70, 18, 7, 7, stride=2, padding=3),
    "another stride across": ConvSpec(
        2, 4, 31, 90, 6, 5, 8, stride=(1, 3), padding=((2, 0), (1, 4)), groups=2
    ),
    "inputs that no window reaches": ConvSpec(2, 3, 32, 36, 4, 6, 5, stride=(4, 3)),
    "windows on padding alone": ConvSpec(1, 2, 4, 3, 3, 4, 4, stride=2, padding=((7, 9), (6, 8))),
    "images in parts": ConvSpec(5, 8, 250, 250, 4, 5, 4, stride=2, padding=1),
}
ROOMS = (
    "work", "transformed weights", "transformed data", "transformed gradients", "sums of stretches",
    "phases of data", "phases of weights",
)  # fmt: skip
SCRIPT = """
from test_winograd import LAYERS, check
for name in ("dense", "padding", "grouped", "several blocks, slices and panels", "many tiles, grouped",
             "shared tiles", "2x5", "4x2", "5x5, small tiles", "7x7 at 2", "another stride across",
             "images side by side", "3x3 at 2", "3x3 at 2, closed tiles"):
    check(LAYERS[name])
"""


def check(spec: ConvSpec) -> None:
    """All operations, in both dtypes, on random data: float64 far better than the backend promises."""
    for op in OPS:
        for dtype, allowed in ((FLOAT32, WINOGRAD.tolerance), (FLOAT64, 1e-13)):
            problem = Problem.random(spec, op, dtype)
            verdict = problem.judge("winograd", problem.run("winograd"))
            assert verdict.wrong is None, (spec, op, dtype)
            assert verdict.error <= allowed, (spec, op, dtype)


@pytest.mark.parametrize("spec", LAYERS.values(), ids=LAYERS.keys())
def test_layers(spec: ConvSpec) -> None:
    check(spec)


@pytest.mark.parametrize("spec", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("workers", [1, 8])
def test_db_comes_with_dw(spec: ConvSpec, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pixel of dy counts once, however dw is shared out."""
    monkeypatch.setattr(winograd_dw, "active", lambda: workers)
    rng = np.random.default_rng(0)
    dy, x = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (spec.y_shape, spec.x_shape))
    dw, db = np.empty(spec.w_shape, np.float32), np.empty(spec.K, np.float32)
    winograd.conv_dw_db(spec, dy, x, dw, db)
    np.testing.assert_array_equal(db, dy.sum(axis=(0, 2, 3)))


@on_other_cpus
def test_other_cpus(tmp_path: Path, cpu: str, features: str, bits: int) -> None:
    run_on(cpu, features, bits, tmp_path, SCRIPT)


AXES = [
    *(Axis(outputs, taps) for outputs in (2, 4) for taps in TAPS),
    *(Axis(outputs, taps, 2) for outputs in (2, 4, 7) for taps in (3, 4)),
    *(Axis(outputs, 3, 2, closed=True) for outputs in range(3, 8)),
    Axis(4, 3, closed=True),
]


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_matrices_make_a_correlation(axis: Axis) -> None:
    """A^T [(G g) * (B^T d)] in exact fractions."""
    rng = np.random.default_rng(0)
    weights = [Fraction(int(n)) for n in rng.integers(-9, 10, axis.taps)]
    data = [Fraction(int(n)) for n in rng.integers(-9, 10, axis.inputs)]
    if axis.closed:
        before, size = axis.overlap, axis.inputs - 2 * axis.overlap
        assert axis.is_closed(before, size)
        assert not axis.is_closed(before, size + 1)
        assert not axis.is_closed(before - 1, size)
        data = [number * (before <= i < before + size) for i, number in enumerate(data)]

    def times(matrix: list[list[Fraction]], vector: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]

    of = axis.matrices
    products = [a * b for a, b in zip(times(of.weights, weights), times(of.data, data), strict=True)]
    assert len(products) == axis.products
    firsts = range(0, axis.step, axis.stride)
    assert times(of.result, products) == [sum(map(operator.mul, weights, data[first:])) for first in firsts]


def test_strides_save_products() -> None:
    """Of 3 x 3 taps at stride 2, where the formula multiplies 9 times for each output."""
    assert Axis(4, 3, 2).products == 9
    assert Axis(7, 3, 2).products == 15
    assert Axis(4, 3, 2, closed=True).products == 8


def test_matrices_of_two_outputs_are_those_of_the_paper() -> None:
    """Lavin and Gray, equation (7), up to the signs of rows that cancel."""
    of = matrices(2, 3)
    half = Fraction(1, 2)
    assert [[abs(n) for n in row] for row in of.weights] == [[1, 0, 0], [half] * 3, [half] * 3, [0, 0, 1]]
    assert [[abs(n) for n in row] for row in of.data] == [
        [1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "outputs"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 2), (6, 2), (7, 4), (8, 4), (14, 4), (224, 4)]
)
def test_tiles_waste_little(size: int, outputs: int) -> None:
    assert tile_for((size, 8), (3, 3)) == Tile(Axis(outputs, 3), Axis(4, 3))


def test_tiles_of_small_planes() -> None:
    """As tall as they are, at a stride; and with fewer products where windows end in padding."""
    for size, expected in ((14, Tile(Axis(7, 3, 2), Axis(4, 3, 2))), (7, Tile(*[Axis(4, 3, 2, True)] * 2))):
        spec = ConvSpec(32, 8, size, size, 8, 3, 3, stride=2, padding=1)
        geometry = plan(spec, "forward", FLOAT32, 2).geometry
        assert geometry.positions == expected.positions
        assert geometry.outputs_down == expected.down.outputs


@pytest.mark.parametrize(
    ("size", "padding", "kernel", "products"),
    [(14, 1, 3, (15, 18)), (7, 1, 3, (8, 8)), (7, 0, 3, (8, 8)), (56, 1, 3, (60, 63)), (8, 1, 4, (10, 10))],
)
def test_tiles_of_dx_at_a_stride(size: int, padding: int, kernel: int, products: tuple[int, int]) -> None:
    """Of all its tiles along an axis; direct sums of 3 taps would take 21 for 14 inputs."""
    tile, _ = dx_tile_for(ConvSpec(1, 1, size, size, 1, kernel, kernel, stride=2, padding=padding))
    assert tuple(-(-size // axis.outputs) * axis.products for axis in tile) == products


def test_tiles_of_forward_and_dx_are_not_mixed_up() -> None:
    """Of the same numbers, in caches of compiled functions: neither gets what was compiled for the other."""
    spec = ConvSpec(2, 16, 3, 3, 32, 3, 3, stride=2, padding=((2, 1), (2, 1)))
    tile, _ = dx_tile_for(spec)
    assert tile == Tile(*[DxAxis(4, 3, 2, 0)] * 2)
    assert tile != Tile(*[Axis(4, 3, 2)] * 2)
    check(ConvSpec(2, 16, 9, 9, 32, 3, 3, stride=2))
    check(spec)


def test_tolerance_is_within_what_auto_accepts() -> None:
    assert 0 < WINOGRAD.tolerance <= ERROR_BUDGET


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("taps", TAPS)
def test_errors_of_many_channels(op: str, taps: int) -> None:
    """Where sums are longest, in dw over 8192 tiles, half of the tolerance is left."""
    many = ConvSpec(1, 1024, 9, 9, 256, taps, taps, padding=taps // 2)
    spec = {
        "forward": many, "dx": ConvSpec(1, 256, 9, 9, 1024, taps, taps, padding=taps // 2),
        "dw": ConvSpec(8, 4, 128, 128, 4, taps, taps),
    }[op]  # fmt: skip
    problem = Problem.random(spec, op)
    verdict = problem.judge("winograd", problem.run("winograd"))
    assert verdict.error <= WINOGRAD.tolerance / 2


def test_errors_of_dw_do_not_grow_with_the_tiles() -> None:
    """54,000 of them: as one sum after the other they would break what the backend promises."""
    problem = Problem.random(ConvSpec(64, 8, 112, 112, 8, 4, 4, padding=2), "dw")
    verdict = problem.judge("winograd", problem.run("winograd"))
    assert verdict.error <= WINOGRAD.tolerance / 3


def test_all_threads_have_a_share() -> None:
    """Of the filters, where there are few tiles; else of the tiles."""
    spec = ConvSpec(1, 64, 14, 14, 96, 3, 3, padding=1)
    few, many = (plan(spec.with_batch(images), "forward", FLOAT32, 8) for images in (1, 80))
    assert few.by_filters
    assert -(-96 // few.geometry.rows) == 8
    assert not many.by_filters
    assert many.geometry.band == 0


SHARED_OUT = (
    "grouped", "several blocks, slices and panels", "5x5, small tiles", "images side by side",
    "3x3 at 2, wide planes of odd size",
)  # fmt: skip


@pytest.mark.parametrize("name", SHARED_OUT)
def test_dw_of_many_workers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than there are tiles, or channels: some have nothing to do."""
    monkeypatch.setattr(winograd_dw, "active", lambda: 37)
    problem = Problem.random(LAYERS[name], "dw")
    assert problem.judge("winograd", problem.run("winograd")).error <= WINOGRAD.tolerance / 2


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("grouped", {"BLOCK_BYTES": 1 << 15, "STRETCH": 20}),
        ("images side by side", {"BLOCK_BYTES": 1 << 15, "STRETCH": 20}),
        ("3x3 at 2, wide planes of odd size", {"BLOCK_BYTES": 1 << 15, "STRETCH": 20}),
        ("several blocks, slices and panels", {"SUMS_BYTES": 1 << 15}),
        ("5x5, small tiles", {"SUMS_BYTES": 1 << 15}),
        ("panels of groups", {"SUMS_BYTES": 1 << 15}),
    ],
    ids=str,
)
def test_dw_in_pieces(name: str, limits: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of few blocks of few tiles; or panels of few filters."""
    spec = LAYERS[name]
    for limit, value in limits.items():
        monkeypatch.setattr(winograd_dw_plan, limit, value)
    monkeypatch.setattr(winograd_dw, "plan", winograd_dw_plan.plan.__wrapped__)
    g = winograd_dw_plan.plan.__wrapped__(spec, FLOAT32).geometry
    if "STRETCH" in limits:
        assert g.block < g.stretch < spec.N * g.tiles_down * g.tiles_across
    else:
        assert g.panel < spec.K // spec.groups
    problem = Problem.random(spec, "dw")
    assert problem.judge("winograd", problem.run("winograd")).error <= WINOGRAD.tolerance / 2


def test_large_sums_of_dw() -> None:
    """They are made in panels where the data stay; else blocks are large, too, as all sums pass for each."""
    layer = ConvSpec(4, 512, 28, 28, 512, 3, 3, padding=1)
    few, many = (winograd_dw_plan.plan(layer.with_batch(images), FLOAT32).geometry for images in (4, 32))
    assert few.panel < layer.K
    assert few.block == few.tiles_down * few.tiles_across * 4
    assert many.panel == layer.K
    assert many.block * (layer.C + layer.K) > many.panel * layer.C // 3


@pytest.mark.parametrize(
    ("channels", "filters", "expected"), [(3, 64, True), (64, 3, False), (16, 32, False)]
)
def test_dw_leaves_few_lanes_empty(channels: int, filters: int, expected: bool) -> None:
    """Vectors of sums lie along filters where channels fill fewer lanes."""
    found = winograd_dw_plan.plan(ConvSpec(2, channels, 12, 12, filters, 3, 3), FLOAT32)
    assert found.geometry.along_filters == expected


@pytest.mark.parametrize("filters", [7, 130], ids=["close weights", "far weights"])
def test_slices_of_channels(filters: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where V of all would not stay close: results of a slice are added to those of the ones before."""
    monkeypatch.setattr(winograd_conv, "active", lambda: 1)
    spec = ConvSpec(5, 700, 14, 14, filters, 3, 3, padding=1)
    found = plan(spec, "forward", FLOAT32, 1)
    geometry = found.geometry
    assert geometry.depth < geometry.together < spec.C
    assert found.by_filters == (filters == 130)
    problem = Problem.random(spec, "forward")
    verdict = problem.judge("winograd", problem.run("winograd"))
    assert verdict.error <= WINOGRAD.tolerance / 3


@pytest.mark.parametrize(
    ("images", "tiles", "threads", "band"),
    [(64, 2, 2, 2), (16, 2, 2, 1), (50, 2, 2, 2), (64, 2, 8, 1), (64, 7, 2, 1)],
)
def test_vectors_along_images(images: int, tiles: int, threads: int, band: int) -> None:
    """As many rows of tiles at a time as stay close, and give all threads something to do."""
    assert band_of(images, tiles, tiles, 16, 16 * 1536, threads) == band


def test_weights_of_few_images() -> None:
    """Each worker transforms them for itself where it has one share of the images, at most."""
    spec = LAYERS["images side by side, a share each, grouped"]
    for images, shared in ((spec.N, False), (32, False), (64, True)):
        geometry = plan(spec.with_batch(images), "forward", FLOAT32, 2).geometry
        assert geometry.band
        assert (geometry.own == 0) == shared


@pytest.mark.parametrize(
    ("images", "tiles", "threads", "channels"),
    [(15, 2, 1, 1), (17, 2, 2, 1), (24, 5, 1, 1), (64, 8, 2, 1), (16, 7, 2, 1)],
)
def test_vectors_along_tiles(images: int, tiles: int, threads: int, channels: int) -> None:
    """Where images do not fill vectors of 16, tiles do half of it, or threads would wait."""
    assert band_of(images, tiles, tiles, 16, 1536 * channels, threads) == 0


def test_nan_stays_in_its_tiles() -> None:
    """It may reach outputs whose windows do not see it, but of no other tile, image or channel."""
    problem = Problem.random(ConvSpec(2, 2, 14, 14, 3, 3, 3), "forward")
    expected = problem.run("winograd")[0]
    x = problem.arrays["x"].copy()
    x[1, 1, 5, 0] = np.nan  # inputs 4 to 9 belong to outputs 4 to 7, inputs 0 to 5 to outputs 0 to 3
    y = kernels.conv2d(x, problem.arrays["w"], problem.arrays["b"], backend="winograd")
    assert np.isnan(y[1, :, 3:6, 0]).all()
    tiles = np.zeros(y.shape, bool)
    tiles[1, :, :8, :4] = True
    np.testing.assert_array_equal(y[~tiles], expected[~tiles])


@pytest.mark.parametrize(
    ("name", "rows", "cols"),
    [("inputs that no window reaches", 30, 35), ("4x4 at 2, inputs that no window reaches", 16, 12)],
)
def test_what_no_window_reaches(name: str, rows: int, cols: int) -> None:
    """There x is not read, and dx is exactly zero."""
    spec = LAYERS[name]
    reached = np.zeros(spec.x_shape, bool)
    reached[:, :, :rows, :cols] = True
    problem = Problem.random(spec, "forward")
    x = np.where(reached, problem.arrays["x"], np.nan).astype(np.float32)
    y = kernels.conv2d(x, problem.arrays["w"], problem.arrays["b"], stride=spec.stride, backend="winograd")
    np.testing.assert_array_equal(y, problem.run("winograd")[0])
    dy = Problem.random(spec, "dw").arrays["dy"]
    dw = kernels.conv2d_backward(
        dy, x, problem.arrays["w"], stride=spec.stride, need=("dw",), backend="winograd"
    ).dw  # fmt: skip
    assert np.isfinite(dw).all()
    (dx,) = Problem.random(spec, "dx").run("winograd")
    assert (dx[~reached] == 0).all()
    assert dx[:, :, rows - 1].any()
    assert dx[:, :, :, cols - 1].any()


def test_images_in_parts() -> None:
    """Their phases would not stay in the cache all at once."""
    found = winograd_strided.plan(LAYERS["images in parts"], FLOAT32.itemsize)
    assert [part.unit.N for part in found.parts] == [4, 1]


def test_what_lies_in_the_workspace_does_not_matter() -> None:
    """NaN left there by an earlier call gets into no result."""
    for spec in LAYERS.values():
        for op in OPS:
            problem = Problem.random(spec, op)
            problem.run("winograd")  # makes it large enough
            for name in ROOMS:
                workspace(name, 1 << 16, FLOAT32).fill(np.nan)
            assert problem.judge("winograd", problem.run("winograd")).wrong is None


@pytest.mark.parametrize(
    ("spec", "op", "reason"),
    [
        (
            ConvSpec(1, 1, 40, 40, 1, 11, 11, stride=2),
            "forward",
            "kernel is 11x11, of 6x6 at stride (2, 2); Winograd's transforms are for 2x2 to 5x5",
        ),
        (CONVS["height 1"], "dx", "kernel is 1x3; Winograd's transforms are for 2x2 to 5x5"),
        (ConvSpec(1, 1, 9, 9, 1, 3, 6), "dw", "kernel is 3x6; Winograd's transforms are for 2x2 to 5x5"),
        (ConvSpec(1, 1, 9, 9, 1, 3, 3, dilation=2), "dx", "dilation is (2, 2); Winograd's tiles need 1"),
        (PoolSpec("max", 1, 1, 4, 4, 2, 2), "forward", "Winograd's method has no pooling"),
    ],
)
def test_what_is_not_supported_is_said(spec: ConvSpec | PoolSpec, op: str, reason: str) -> None:
    assert WINOGRAD.unsupported(spec, op, FLOAT32) == reason
