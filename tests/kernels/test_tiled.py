"""The tiled backend's own: other CPUs, plans that waste nothing they need not, memory that is used again."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product, repeat

import numpy as np
import pytest
from kernel_cases import CONVS, POOLS
from other_cpus import on_other_cpus, run_on

from kernels import (
    ConvSpec,
    PoolSpec,
    jit,
    tiled_conv,
    tiled_dots,
    tiled_dw,
    tiled_few,
    tiled_images,
    tiled_matrix,
    tiled_plan,
    tiled_windows,
    tiled_windows_dx,
)
from kernels.problem import Problem
from kernels.registry import ops_of
from kernels.threads import active
from kernels.tiled_axis import Correlation, dx_taps, forward_taps
from kernels.tiled_lay import lay_filters, lay_pixels
from kernels.tiled_plan import Cut, in_long_rows, plan
from kernels.tiled_tile import Shape, registers
from kernels.tiled_vectors import lanes
from kernels.tiled_work import KEPT_BYTES, LINE, workspace

FLOAT32 = np.dtype(np.float32)
FEW = {
    f"{name}-{op}": cut
    for (name, spec), op in product(CONVS.items(), ("forward", "dx"))
    if (cut := tiled_few.Cut.of(spec, op, FLOAT32, 2)) is not None
}
"""Layers whose outputs are few products."""
WINDOWS = {
    "dense": ConvSpec(1, 16, 9, 9, 21, 3, 3, stride=2, padding=1),
    "groups": ConvSpec(3, 64, 6, 8, 12, 3, 2, padding=((1, 0), (0, 1)), groups=2),
    "even taps": ConvSpec(2, 12, 9, 7, 8, 4, 4, stride=(3, 2)),
    "dilated down": ConvSpec(1, 48, 11, 6, 9, 3, 3, padding=2, dilation=(2, 1)),
    "long rows of taps": ConvSpec(1, 16, 3, 24, 5, 2, 19, padding=((0, 0), (9, 9))),
    "the longest rows of taps": ConvSpec(1, 16, 1, 40, 5, 1, 32, padding=((0, 0), (0, 20))),
    "one tap": ConvSpec(2, 32, 7, 7, 33, 1, 1, stride=2),
    "windows in padding": ConvSpec(1, 16, 2, 2, 4, 3, 3, stride=2, padding=3),
    "many filters": ConvSpec(1, 16, 3, 4, 1100, 1, 1, padding=1),
}
"""Layers whose filters are whole vectors of weights."""
WINDOWS_ON_A_COPY = {
    "one channel": ConvSpec(2, 1, 9, 9, 6, 3, 3, stride=2, padding=1),
    "groups": ConvSpec(1, 30, 6, 8, 10, 5, 4, padding=2, groups=2),
    "many filters": ConvSpec(1, 3, 3, 4, 1100, 1, 3, padding=1),
}
"""Others."""
SCRIPT = """
import math
from dataclasses import replace
from kernel_cases import CONVS, POOLS
from kernels import ConvSpec, tiled_dw, tiled_few, tiled_plan, tiled_windows, tiled_windows_dx
from kernels.problem import Problem
from kernels.registry import ops_of

def check(name, spec):
    for op in ops_of(spec):
        for dtype in ("float32", "float64"):
            problem = Problem.integers(spec, op, dtype)
            verdict = problem.judge("tiled", problem.run("tiled"))
            assert verdict.wrong is None, (name, op, dtype, verdict.wrong)

names = [
    "dense", "stride", "groups", "1-D causal", "long rows, few products", "max padding", "avg 3x3 s1",
    "avg four paddings, exclude",
]
cases = {name: spec for name, spec in {**CONVS, **POOLS}.items() if name in names}
assert len(cases) == len(names)
for name, spec in cases.items():
    check(name, spec)
tiled_plan.Cut.cost = math.inf
tiled_dw._inside_pays = lambda *_: True
for name in ("padding", "stride", "groups"):
    check(f"many images, {name}", replace(CONVS[name], N=19))
tiled_few.Cut.cost = 0.0
for name in ("long rows, few products, stride", "long rows, depthwise"):
    check(f"few products, {name}", replace(CONVS[name], N=3))
tiled_few.Cut.cost = math.inf
tiled_windows.Cut.cost = tiled_windows_dx.Cut.cost = 0.0
for channels in (32, 6):
    check("few images", ConvSpec(1, channels, 9, 8, 10, 3, 3, stride=(2, 1), padding=1, groups=2))
"""


@on_other_cpus
def test_other_cpus(tmp_path, cpu, features, bits):
    """The same results from narrower vectors, exactly."""
    run_on(cpu, features, bits, tmp_path, SCRIPT)


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("op", ["forward", "dx"])
def test_tiles_cover_every_output(spec, op, monkeypatch):
    """And none begins outside, or is stored beyond its row."""
    shapes = []
    monkeypatch.setattr(tiled_plan, "tile", lambda shape, dtype: shapes.append(shape) or len(shapes) - 1)
    found = plan(Cut.of(spec, op, FLOAT32, 2))
    flat = in_long_rows(spec, lanes(FLOAT32))
    axes = (flat.rows, flat.cols)
    halves = [list(dx_taps(axis)) if op == "dx" else [forward_taps(axis)] for axis in axes]
    for part, (rows, cols) in zip(found.parts, product(*halves), strict=True):
        assert (part["rows"], part["first_down"], part["first_across"]) == (rows.out, rows.first, cols.first)
        covered = np.zeros((rows.out, cols.out), bool)
        for block in range(found.blocks):
            first = min(block * part["block"], rows.out - part["block"])
            assert first - found.origins[block] >= 0
            for row, col, width, kind in found.tiles[part["tiles"] : part["end_of_tiles"]]:
                shape = shapes[found.addresses[kind, 0]]
                rows_of_tile = shape.rows if shape.turned else shape.down
                assert 0 <= row <= part["block"] - rows_of_tile
                assert 0 <= col <= cols.out - width
                covered[first + row : first + row + rows_of_tile, col : col + width] = True
        assert covered.all()
    assert_panels_cover(found.packing)


def assert_panels_cover(packing):
    filters = np.zeros(packing.filters, bool)
    for first, count, *_ in packing.panels:
        assert 0 <= first <= packing.filters - count
        filters[first : first + count] = True
    assert filters.all()


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("op", ["forward", "dx"])
def test_images_side_by_side_read_what_lies_inside(spec, op):
    """Each tap of each output once, and none of the padding."""
    wide = lanes(FLOAT32)
    cut = tiled_images.Cut.best(replace(spec, N=2 * wide + 1), op, FLOAT32, 2)
    found = tiled_images.plan(cut)
    assert found.tasks // (found.slices * spec.groups) * found.together >= found.images
    assert_panels_cover(found.packing)
    channels, filters = spec.C // spec.groups, spec.K // spec.groups
    read = 0
    for place, first, count in found.pixels:
        taps = found.table[first : first + count, 1] + place
        assert ((taps >= 0) & (taps < found.inputs * found.together)).all()
        assert (taps % found.together == 0).all()
        assert len(set(found.table[first : first + count, 0].tolist())) == count
        read += count
    inside = int(spec.rows.valid().sum()) * int(spec.cols.valid().sum())
    assert read == inside * (channels if op == "forward" else filters)


@pytest.mark.parametrize("cut", FEW.values(), ids=FEW.keys())
def test_sums_of_few_products_cover_every_output(cut):
    """And they read nothing beside the copy."""
    ((rows, cols),) = cut.asked.parts
    found = tiled_few.plan(cut)
    half = lanes(FLOAT32) // 2
    covered = np.zeros((rows.out, cols.out), bool)
    for block in range(found.blocks):
        first = min(block * found.block, rows.out - found.block)
        for row, col in map(divmod, found.places[:, 2:].ravel(), repeat(cols.out)):
            assert col + half <= cols.out
            covered[first + row, col : col + half] = True
    assert covered.all()
    read = found.places[:, :2, None] + found.table
    assert read.min() >= 0
    assert read.max() + half <= found.copy.channel * cut.asked.channels


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("op", ["forward", "dx"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_ways_to_correlate_are_right(spec, op, dtype, monkeypatch):
    """Where they can be taken, whichever would pay; whole vectors of images or not."""
    ways = Cut, tiled_images.Cut, tiled_few.Cut, tiled_matrix.Cut, tiled_windows.Cut, tiled_windows_dx.Cut
    costs = {way: way.cost.fget for way in ways}
    cheap, dear = property(lambda cut: 1e-9 * costs[type(cut)](cut)), property(lambda cut: math.inf)
    for images in (lanes(np.dtype(dtype)), 37):
        problem = Problem.integers(replace(spec, N=images), op, dtype)
        for way in ways:
            for each in ways:
                monkeypatch.setattr(each, "cost", cheap if each is way else dear)
            tiled_conv.way.cache_clear()
            assert problem.judge("tiled", problem.run("tiled")).wrong is None
    tiled_conv.way.cache_clear()


@pytest.mark.parametrize("spec", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_windows_are_right(spec, dtype, threads):
    """On as many threads, whichever way would pay."""
    problem = Problem.integers(spec, "forward", dtype)
    x, w, b = (problem.arrays[name] for name in "xwb")
    y = np.full(spec.y_shape, np.nan, dtype)
    cut = tiled_windows.Cut.of(spec, "forward", np.dtype(dtype), threads)
    tiled_windows.correlate(tiled_windows.plan(cut), x, w, b, y)
    assert problem.judge("tiled", (y,)).wrong is None


@pytest.mark.parametrize(
    "spec", [*WINDOWS.values(), *WINDOWS_ON_A_COPY.values()], ids=lambda spec: spec.descriptor
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_dx_by_windows_is_right(spec, dtype, threads):
    problem = Problem.integers(spec, "dx", dtype)
    dy, w = (problem.arrays[name] for name in ("dy", "w"))
    dx = np.full(spec.x_shape, np.nan, dtype)
    cut = tiled_windows_dx.Cut.of(spec, "dx", np.dtype(dtype), threads)
    assert cut.copies == (spec in WINDOWS_ON_A_COPY.values())
    tiled_windows_dx.correlate(tiled_windows_dx.plan(cut), dy, w, np.empty(0, dtype), dx)
    assert problem.judge("tiled", (dx,)).wrong is None


@pytest.mark.parametrize("spec", WINDOWS.values(), ids=WINDOWS.keys())
def test_windows_read_what_lies_inside(spec):
    """Each tap of each window once, and none of the padding."""
    pitch = spec.C // spec.groups * spec.R * spec.S
    table = tiled_windows.rows_of_windows(spec, pitch)
    read = {(place + tap, to + tap) for place, to, bits in table for tap in range(spec.S) if bits >> tap & 1}
    assert len(read) == int(spec.rows.valid().sum()) * int(spec.cols.valid().sum())
    rows, cols = spec.rows.taps(), spec.cols.taps()
    for place, to in read:
        (window, number), (row, col) = divmod(to, pitch), divmod(place, spec.W)
        (i, j), (r, s) = divmod(window, spec.OW), divmod(number, spec.S)
        assert (row, col) == (rows[i, r], cols[j, s])


def test_windows_are_for_few_images_with_many_weights():
    def chosen(spec, op, module):
        return tiled_conv.way(spec, op, FLOAT32, 2).correlate is module.correlate

    few = ConvSpec(1, 64, 7, 7, 128, 3, 3, stride=2, padding=1)
    assert chosen(ConvSpec(1, 1, 28, 28, 32, 3, 3, stride=2, padding=1), "dx", tiled_windows_dx)
    for op, module in (("forward", tiled_windows), ("dx", tiled_windows_dx)):
        assert chosen(few, op, module)
        assert chosen(replace(few, N=4), op, module)
        assert not chosen(replace(few, N=256), op, module)
        assert not chosen(ConvSpec(1, 64, 56, 56, 64, 3, 3, padding=1), op, module)
        assert module.Cut.of(ConvSpec(1, 64, 9, 9, 8, 3, 3, dilation=2), op, FLOAT32, 2) is None
        assert module.Cut.of(ConvSpec(1, 16, 1, 40, 8, 1, 33), op, FLOAT32, 2) is None
        assert module.Cut.of(ConvSpec(1, 64, 112, 112, 64, 3, 3), op, FLOAT32, 2) is None
    for other in ((3, 7, 7, 128), (64, 7, 7, 3), (64, 3, 3, 8)):
        assert tiled_windows.Cut.of(ConvSpec(1, *other, 3, 3), "forward", FLOAT32, 2) is None


def test_images_side_by_side_are_for_many_small_ones():
    def chosen(spec, op="forward"):
        return tiled_conv.way(spec, op, FLOAT32, 2).correlate is tiled_images.correlate

    small = ConvSpec(256, 64, 7, 7, 128, 3, 3, stride=2, padding=1)
    assert chosen(small)
    assert chosen(ConvSpec(256, 6, 12, 12, 16, 5, 5), "dx")
    assert not chosen(replace(small, N=1))
    assert not chosen(ConvSpec(256, 256, 14, 14, 256, 3, 3, padding=1))
    assert not chosen(ConvSpec(32, 64, 56, 56, 64, 3, 3, padding=1))


def test_few_products_are_summed_with_inputs_in_registers():
    def chosen(spec, op="forward"):
        return tiled_conv.way(spec, op, FLOAT32, 2).correlate is tiled_few.correlate

    first = ConvSpec(32, 1, 28, 28, 32, 3, 3, stride=2, padding=1)
    depthwise = ConvSpec(8, 32, 112, 112, 32, 3, 3, padding=1, groups=32)
    assert chosen(first)
    assert chosen(depthwise)
    assert chosen(depthwise, "dx")
    assert not chosen(first, "dx")
    assert not chosen(ConvSpec(32, 64, 56, 56, 64, 3, 3, padding=1))


def test_pointwise_planes_are_laid_in_whole_vectors():
    for H, W, *flattened in [(28, 28, 7, 112), (14, 14, 1, 196), (7, 7, 1, 49), (31, 37, 31, 37)]:
        flat = in_long_rows(ConvSpec(1, 2, H, W, 3, 1, 1), 16)
        assert flattened == [flat.H, flat.W]
    for spec in (ConvSpec(1, 2, 28, 28, 3, 1, 1, stride=2), ConvSpec(1, 2, 28, 28, 3, 1, 1, padding=1)):
        assert in_long_rows(spec, 16) is spec


def test_dx_of_windows_in_the_padding_is_zero():
    spec = ConvSpec(1, 1, 1, 1, 1, 1, 1, stride=(1, 2), padding=((0, 0), (1, 0)))
    assert not Correlation.of(spec, "dx").parts
    problem = Problem.integers(spec, "dx")
    assert problem.judge("tiled", problem.run("tiled")).wrong is None


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_all_threads_get_as_much(threads):
    for spec in CONVS.values():
        found = plan(Cut.of(spec, "forward", FLOAT32, threads))
        assert found.workers == threads
        enough = found.tasks % threads == 0 or found.tasks >= 2 * threads
        assert enough or found.blocks == in_long_rows(spec, lanes(FLOAT32)).OH
        assert found.slices <= len(found.packing.panels)


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
        found = tiled_dw.plan(spec, FLOAT32, 2)
        wide = lanes(FLOAT32)
        filters = -(-(spec.K // spec.groups) // wide) * wide
        by_channels = {int(count) for count in found.pieces["channels"]}
        covered = sum(map(int, found.pieces["filters"]))
        assert {int(first) for first in found.pieces["tap"]} <= set(range(spec.R * spec.S))
        if by_channels != {1}:
            assert covered == filters * len(by_channels) * spec.R * spec.S


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS.keys())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_ways_to_dw_are_right(spec, dtype, monkeypatch):
    """Tiles, on a copy and without one, dots, and products of matrices, whichever would pay."""
    for images in (spec.N, 37):
        asked = replace(spec, N=images)
        problem = Problem.integers(asked, "dw", dtype)
        cut = tiled_matrix.Cut.of_dw(asked, np.dtype(dtype), active())
        monkeypatch.setattr(tiled_dw, "matrix_plan", lambda *_, cut=cut: cut and tiled_matrix.plan(cut))
        assert problem.judge("tiled", problem.run("tiled")).wrong is None
        monkeypatch.setattr(tiled_dw, "matrix_plan", lambda *_: None)
        for dots, inside in ((False, False), (False, True), (True, False)):
            monkeypatch.setattr(tiled_dw, "dots_pay", lambda *_, dots=dots: dots)
            monkeypatch.setattr(tiled_dw, "_inside_pays", lambda *_, inside=inside: inside)
            tiled_dw.plan.cache_clear()
            assert problem.judge("tiled", problem.run("tiled")).wrong is None
    tiled_dw.plan.cache_clear()


def test_dw_leaves_out_the_padding_of_small_planes():
    spec = ConvSpec(32, 64, 7, 7, 128, 3, 3, stride=2, padding=1)
    found = tiled_dw.plan(spec, FLOAT32, 2)
    assert not found.copied
    pixels = {int(piece["tap"]): int(piece["pixels"]) for piece in found.pieces}
    assert sum(pixels.values()) == int(spec.rows.valid().sum()) * int(spec.cols.valid().sum())
    for other in (ConvSpec(32, 64, 56, 56, 128, 3, 3), ConvSpec(32, 3, 7, 7, 128, 3, 3)):
        assert tiled_dw.plan(other, FLOAT32, 2).copied


@pytest.mark.parametrize("width", [3, 8, 14, 16, 20, 35])
def test_dots_of_blocks(width, monkeypatch):
    """An odd number of rows in one of them; what is left of two rows shares a vector, or does not."""
    monkeypatch.setattr(jit, "_LEAST_PARALLEL_WORK", 0)
    monkeypatch.setattr(tiled_dw, "dots_pay", lambda *_: True)
    for rows in (6, 9):
        spec = ConvSpec(1, 2, rows, width, 5, 3, 3, padding=1)
        assert tiled_dots.plan(spec, FLOAT32, 2, True).blocks == 2
        problem = Problem.integers(spec, "dw")
        assert problem.judge("tiled", problem.run("tiled")).wrong is None
        assert_db_comes_with_dw(spec)


def test_dots_are_for_few_channels():
    assert tiled_dw.dots_pay(ConvSpec(32, 1, 28, 28, 8, 3, 3, padding=1), FLOAT32, 2)
    assert tiled_dw.dots_pay(ConvSpec(32, 1, 28, 28, 6, 5, 5), FLOAT32, 2)
    assert not tiled_dw.dots_pay(ConvSpec(32, 32, 28, 28, 32, 3, 3, padding=1), FLOAT32, 2)


def test_tiles_fit_into_the_registers():
    assert Shape(4, 1, 1, 4).sums == 16
    for spec in CONVS.values():
        for op in ("forward", "dx"):
            for shape in _shapes(spec, op):
                assert shape.sums <= registers()


def test_tiles_along_pixels_leave_registers_for_their_vectors():
    for filters, width in product((1, 3, 6, 16, 64), (7, 28, 112, 227)):
        _, (laid,) = lay_pixels([(width, width)], filters, 16, 1)
        for (shape,) in laid.shapes:
            vectors = shape.down * shape.along
            assert shape.rows * vectors + vectors < registers() + 4


def _shapes(spec, op):
    sizes = [(spec.OH, spec.OW)] if op == "forward" else [(spec.H, spec.W)]
    filters = (spec.K if op == "forward" else spec.C) // spec.groups
    for _, laid in (lay_pixels(sizes, filters, 16, 1), lay_filters(sizes, filters, 16, spec.stride[1], 1)):
        for part in laid:
            yield from (shape for row in part.shapes for shape in row)


def test_layers_too_large_for_a_block():
    """Rows of one image that go through several blocks, and filters through several panels."""
    spec = ConvSpec(1, 300, 20, 18, 70, 3, 3, padding=1)
    assert plan(Cut.of(spec, "forward", FLOAT32, 2)).blocks > 1
    assert tiled_dw.plan(spec, FLOAT32, 2).blocks > 1
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
            for name in ("work", "partial sums", "shares"):
                workspace(name, 1 << 16, FLOAT32).fill(np.nan)
            assert problem.judge("tiled", problem.run("tiled")).wrong is None


def test_threads_compute_the_same(monkeypatch):
    """However small the layer."""
    monkeypatch.setattr(jit, "_LEAST_PARALLEL_WORK", 0)
    for spec in (CONVS["dense"], CONVS["groups"], *POOLS.values()):
        for op in ops_of(spec):
            problem = Problem.integers(spec, op)
            assert problem.judge("tiled", problem.run("tiled")).wrong is None


def test_a_plan_is_one_record():
    """With smaller records in it, and the addresses and sizes of tables."""
    found = plan(Cut.of(ConvSpec(2, 3, 9, 9, 8, 3, 3), "forward", FLOAT32, 2))
    (record,) = found.record
    assert record["copy"]["channels"] == 3
    assert record["table"].item() == (found.table.ctypes.data, 27, 2)
    assert found.record is found.record
    assert found.record.dtype is plan(Cut.of(ConvSpec(1, 1, 9, 9, 8, 3, 3), "dx", FLOAT32, 2)).record.dtype
    assert not found.record.flags.writeable


def test_the_workspace_is_bounded_and_of_its_thread():
    one = workspace("test", 100, FLOAT32)
    assert np.shares_memory(one, workspace("test", 50, FLOAT32))
    assert not np.shares_memory(one, workspace("other", 100, FLOAT32))
    assert {one.ctypes.data % LINE, workspace("other", 1001, FLOAT32).ctypes.data % LINE} == {0}
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


@pytest.mark.parametrize(
    "spec",
    [
        ConvSpec(1, 40, 9, 9, 50, 3, 3),  # threads share channels: one of them sums dy
        ConvSpec(5, 8, 56, 56, 130, 3, 3),  # blocks of rows
        ConvSpec(33, 6, 5, 5, 34, 3, 3, groups=2),
        ConvSpec(16, 64, 7, 7, 128, 3, 3, stride=(2, 2), padding=((1, 1), (1, 1))),
    ],
    ids=str,
)
def test_db_comes_with_dw(spec):
    assert_db_comes_with_dw(spec)


def assert_db_comes_with_dw(spec):
    rng = np.random.default_rng(0)
    dy, x = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (spec.y_shape, spec.x_shape))
    dw, db = np.empty(spec.w_shape, np.float32), np.empty(spec.K, np.float32)
    tiled_dw.conv_dw_db(spec, dy, x, dw, db)
    np.testing.assert_array_equal(db, dy.sum(axis=(0, 2, 3)))
    alone = np.empty_like(dw)
    tiled_dw.conv_dw(spec, dy, x, alone)
    np.testing.assert_array_equal(dw, alone)


@pytest.mark.parametrize("backend", ["tiled", "numba"])
def test_db_of_many_pixels_is_rounded_little(backend):
    """Planes are summed, then images: one sum after the other would be off by 7e-6 of the largest."""
    problem = Problem.random(ConvSpec(16, 1, 224, 224, 4, 1, 1), "dw")
    db, expected = problem.run(backend)[1], problem.reference[1]
    assert np.abs(db - expected).max() < 2e-6 * np.abs(expected).max()
