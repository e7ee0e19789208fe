"""Specs: one normal form, what they count, and that they stay as they are."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest
from kernel_cases import CONVS, LAYERS, POOLS

from kernels import ConvSpec, PoolSpec
from kernels.arrays import pad, windows
from kernels.im2col import batch_columns, image_columns, pool_columns


def conv(**changes) -> ConvSpec:
    return ConvSpec(**{"N": 2, "C": 4, "H": 9, "W": 8, "K": 6, "R": 3, "S": 2, **changes})


@pytest.mark.parametrize(
    ("given", "sides"),
    [
        (0, ((0, 0), (0, 0))),
        (2, ((2, 2), (2, 2))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], (3, 4)], ((1, 2), (3, 4))),
        ("valid", ((0, 0), (0, 0))),
        ("same", ((1, 1), (0, 1))),
        (np.int64(1), ((1, 1), (1, 1))),
    ],
)
def test_padding_is_kept_as_four_sides(given, sides) -> None:
    spec = conv(padding=given)
    assert spec.padding == sides
    assert spec == conv(padding=sides)
    assert hash(spec) == hash(conv(padding=sides))
    assert all(type(side) is int for pair in spec.padding for side in pair)


@pytest.mark.parametrize("name", ["stride", "dilation"])
@pytest.mark.parametrize(("given", "pair"), [(2, (2, 2)), ([1, 3], (1, 3)), (np.array([2, 1])[0], (2, 2))])
def test_pairs(name, given, pair) -> None:
    value = getattr(conv(**{name: given}), name)
    assert value == pair
    assert all(type(item) is int for item in value)


def test_numpy_ints_become_ints() -> None:
    spec = ConvSpec(*np.array([2, 4, 9, 8, 6, 3, 2]), groups=np.uint8(2), stride=(np.int32(1), 2))
    assert spec == conv(groups=2, stride=(1, 2))
    assert all(type(size) is int for size in (*spec.x_shape, *spec.w_shape, *spec.y_shape, spec.groups))
    assert type(spec.flops) is int


def test_a_pool_strides_by_its_window_unless_told() -> None:
    assert PoolSpec("max", 1, 1, 8, 9, 2, 3).stride == (2, 3)
    assert PoolSpec("avg", 1, 1, 8, 9, 2, 3, stride=1).stride == (1, 1)


def test_specs_are_frozen_and_hashable() -> None:
    spec = conv()
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.N = 3
    assert len({*LAYERS.values()}) == len(LAYERS)


def test_labels_take_no_part_in_comparison() -> None:
    assert conv(name="a", repeat=3) == conv(name="b")
    assert hash(conv(name="a", repeat=3)) == hash(conv(name="b"))


@pytest.mark.parametrize("spec", [CONVS["dense"], next(iter(POOLS.values()))], ids=["conv", "pool"])
def test_a_spec_of_another_process_is_found(spec) -> None:
    """Its hash, once computed, travels with it, and strings hash otherwise there."""
    found = {spec: 1}
    script = (
        "import pickle, sys; spec = pickle.load(sys.stdin.buffer); hash(spec); "
        "sys.stdout.buffer.write(pickle.dumps(spec))"
    )
    fresh = pickle.dumps(dataclasses.replace(spec))
    done = subprocess.run([sys.executable, "-c", script], input=fresh, stdout=subprocess.PIPE, check=True)
    assert found[pickle.loads(done.stdout)] == 1


@pytest.mark.parametrize("spec", LAYERS.values(), ids=LAYERS)
def test_with_batch(spec) -> None:
    """Another batch is the same layer, whatever its form of padding was: FLOPs grow with it."""
    other = spec.with_batch(7 * spec.N)
    assert other == dataclasses.replace(spec, N=7 * spec.N)
    assert other.y_shape == (7 * spec.N, *spec.y_shape[1:])
    assert other.flops == 7 * spec.flops
    assert other.parameters == spec.parameters
    assert spec.with_batch(0).flops == 0


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS)
@pytest.mark.parametrize("dtype", [np.float32, "float64"])
def test_bytes_are_those_of_the_arrays(spec, dtype) -> None:
    x, w, y = (np.zeros(shape, dtype) for shape in (spec.x_shape, spec.w_shape, spec.y_shape))
    assert spec.least_bytes(dtype) == x.nbytes + w.nbytes + y.nbytes
    view = windows(spec, pad(spec, x))
    assert spec.im2col_bytes(dtype) == image_columns(spec, view).nbytes == batch_columns(spec, view).nbytes
    assert spec.parameters == w.size + spec.K


@pytest.mark.parametrize("spec", POOLS.values(), ids=POOLS)
def test_bytes_of_pools_are_those_of_the_arrays(spec) -> None:
    x, y = (np.zeros(shape, np.float32) for shape in (spec.x_shape, spec.y_shape))
    assert spec.least_bytes(np.float32) == x.nbytes + y.nbytes
    assert spec.im2col_bytes(np.float32) == pool_columns(spec, x, 0).nbytes


def test_kinds() -> None:
    assert {spec.kind for spec in CONVS.values()} == {"conv1d", "conv2d"}
    assert CONVS["1-D"].kind == "conv1d"
    assert CONVS["height 1"].kind == "conv2d", "its height is padded"
    assert ConvSpec(1, 1, 1, 5, 1, 1, 1).kind == "conv1d"
    assert POOLS["max"].kind == "max_pool2d"
    assert POOLS["avg"].kind == "avg_pool2d"


def test_flops_leave_out_padding() -> None:
    """A 3x3 filter over one padded pixel multiplies once; nine times where the input is that large."""
    assert ConvSpec(1, 1, 1, 1, 1, 3, 3, padding=1).flops == 2
    assert ConvSpec(1, 1, 3, 3, 1, 3, 3).flops == 18
    assert ConvSpec(1, 1, 3, 3, 1, 3, 3, padding=1).flops == 2 * (2 + 3 + 2) ** 2


def test_divisors_of_an_average() -> None:
    """Two rows of padding above; below, the window overhangs what padding there is."""
    tall = {"padding": ((2, 1), (0, 0)), "stride": (3, 1), "ceil_mode": True}
    spec = PoolSpec("avg", 1, 1, 6, 1, 4, 1, **tall)
    assert spec.OH == 3
    np.testing.assert_array_equal(spec.divisors, [[4], [4], [3]])
    excluding = dataclasses.replace(spec, count_include_pad=False)
    np.testing.assert_array_equal(excluding.divisors, [[2], [4], [2]])
