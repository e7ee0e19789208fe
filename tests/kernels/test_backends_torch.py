"""Backends against PyTorch: by vectors that it computed once, and live where it is installed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_cases import DTYPES, Calls

from kernels import ConvSpec, PoolSpec, Spec
from kernels.problem import Problem
from kernels.registry import ops_of

with np.load(Path(__file__).with_name("torch_vectors.npz")) as archive:
    VECTORS = dict(archive)
CASES = list(enumerate(json.loads(VECTORS.pop("cases").item())))


def vectors(function: str) -> list[Any]:
    """(arguments, arrays) of the recorded cases of a function."""
    chosen = [(number, case) for number, case in CASES if case["function"] == function]
    assert chosen
    return [
        pytest.param(
            case["arguments"],
            {key.partition(".")[2]: VECTORS[key] for key in VECTORS if key.startswith(f"{number}.")},
            id=f"{number}-{case.get('data', '')}",
        )
        for number, case in chosen
    ]


def as_floats(arrays: dict[str, np.ndarray], dtype: type, names: str) -> list[np.ndarray]:
    return [arrays[name].astype(dtype) for name in names.split()]


@pytest.mark.parametrize("dtype", DTYPES)
class TestVectors:
    """All of it integer-valued: equal, in either dtype."""

    @pytest.mark.parametrize(
        ("function", "arguments", "arrays"),
        [
            pytest.param(function, *case.values, id=f"{function}-{case.id}")
            for function in ("conv2d", "conv1d")
            for case in vectors(function)
        ],
    )
    def test_convolution(self, on: Calls, dtype, function, arguments, arrays) -> None:
        x, w, b, dy = as_floats(arrays, dtype, "x w b dy")
        on.same(getattr(on, function)(x, w, b, **arguments), arrays["y"])
        gradients = getattr(on, f"{function}_backward")(dy, x, w, **arguments)
        for name, gradient in gradients._asdict().items():
            on.same(gradient, arrays[name])

    @pytest.mark.parametrize(("arguments", "arrays"), vectors("max_pool2d"))
    def test_max_pool2d(self, on: Calls, dtype, arguments, arrays) -> None:
        """Ties, NaN and infinities included: value, index and gradient are PyTorch's."""
        x, dy = as_floats(arrays, dtype, "x dy")
        y, indices = on.max_pool2d(x, **arguments, return_indices=True)
        on.same(y, arrays["y"])
        np.testing.assert_array_equal(indices, arrays["indices"])
        on.same(on.max_pool2d(x, **arguments), arrays["y"])
        on.same(on.max_pool2d_backward(dy, x, **arguments), arrays["dx"])
        on.same(on.max_pool2d_backward(dy, x, **arguments, indices=arrays["indices"]), arrays["dx"])

    @pytest.mark.parametrize(("arguments", "arrays"), vectors("avg_pool2d"))
    def test_avg_pool2d(self, on: Calls, dtype, arguments, arrays) -> None:
        x, dy = as_floats(arrays, dtype, "x dy")
        on.same(on.avg_pool2d(x, **arguments), arrays["y"])
        on.same(on.avg_pool2d_backward(dy, x.shape, **arguments), arrays["dx"])


def test_vectors_hold_what_hurts() -> None:
    """Windows with more than one NaN, and windows of nothing but -inf, are among those recorded."""
    planes = [VECTORS[f"{number}.x"] for number, case in CASES if case["function"] == "max_pool2d"]
    pooled = [VECTORS[f"{number}.y"] for number, case in CASES if case["function"] == "max_pool2d"]
    assert sum(int(np.isnan(plane).sum()) for plane in planes) > 100
    assert any(np.isneginf(plane).any() for plane in pooled)


def random_axis(rng: np.random.Generator, pooling: bool) -> dict[str, int]:
    """A window on one axis that PyTorch takes as well: it pads pools by half the kernel at most."""
    while True:
        kernel, stride, dilation = (int(rng.integers(1, top)) for top in (5, 5, 4))
        size = int(rng.integers(1, 12))
        padding = int(rng.integers(0, kernel // 2 + 1 if pooling else 5))
        reach = (kernel - 1) * dilation + 1
        # A dilated pool may have windows that see nothing but padding, which is an error here.
        touches = not pooling or dilation == 1 or size >= reach
        if size + 2 * padding >= reach and touches:
            return {
                "size": size,
                "kernel": kernel,
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
            }


def random_spec(kind: str, seed: int) -> Spec:
    rng = np.random.default_rng(seed)
    rows, cols = (random_axis(rng, pooling=kind.endswith("pool2d")) for _ in range(2))
    n, per_group, filters, groups = (int(rng.integers(1, top)) for top in (4, 4, 4, 4))
    if kind == "conv1d":
        rows = {"size": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
    geometry: dict[str, Any] = {
        "stride": (rows["stride"], cols["stride"]),
        "padding": (rows["padding"], cols["padding"]),
        "dilation": (rows["dilation"], cols["dilation"]),
    }
    kernel = rows["kernel"], cols["kernel"]
    sizes = rows["size"], cols["size"]
    if kind.startswith("conv"):
        return ConvSpec(n, per_group * groups, *sizes, filters * groups, *kernel, **geometry, groups=groups)
    flags = {"ceil_mode": bool(rng.integers(2)), "count_include_pad": bool(rng.integers(2))}
    if kind == "avg_pool2d":
        # Undilated, the windows only get smaller: they still fit.
        return PoolSpec("avg", n, per_group, *sizes, *kernel, **{**geometry, "dilation": 1}, **flags)
    return PoolSpec("max", n, per_group, *sizes, *kernel, **geometry, ceil_mode=flags["ceil_mode"])


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    """PyTorch, on one thread: the layers are tiny, and its threads would fight with Numba's."""
    library = pytest.importorskip("torch")
    before = library.get_num_threads()
    library.set_num_threads(1)
    yield library
    library.set_num_threads(before)


def torch_results(torch: Any, problem: Problem) -> tuple[np.ndarray, ...]:
    """What PyTorch makes of a problem, in the form of `Problem.run`."""
    spec, op = problem.spec, problem.op
    functional = torch.nn.functional
    tensors = {name: torch.tensor(array) for name, array in problem.arrays.items()}
    x = tensors["x"].requires_grad_(op != "forward")
    padding = spec.padding[0][0], spec.padding[1][0]
    leaves = {"dx": x}
    if isinstance(spec, ConvSpec):
        w = tensors.get("w", torch.zeros(spec.w_shape, dtype=x.dtype)).requires_grad_(op == "dw")
        b = tensors.get("b", torch.zeros(spec.K, dtype=x.dtype)).requires_grad_(op == "dw")
        leaves |= {"dw": w, "db": b}
        if spec.is_1d:
            y = functional.conv1d(
                *(x[:, :, 0], w[:, :, 0], b, spec.stride[1], padding[1], spec.dilation[1], spec.groups)
            )
            y = y[:, :, None]
        else:
            y = functional.conv2d(x, w, b, spec.stride, padding, spec.dilation, spec.groups)
    elif spec.mode == "max":
        y = functional.max_pool2d(x, (spec.R, spec.S), spec.stride, padding, spec.dilation, spec.ceil_mode)
    else:
        y = functional.avg_pool2d(
            x, (spec.R, spec.S), spec.stride, padding, spec.ceil_mode, spec.count_include_pad
        )
    if op == "forward":
        return (y.numpy(),)
    y.backward(tensors["dy"])
    return tuple(leaves[name].grad.numpy() for name in (("dx",) if op == "dx" else ("dw", "db")))


LIVE = list(itertools.product(("conv2d", "conv1d", "max_pool2d", "avg_pool2d"), range(25)))


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "seed"), LIVE)
def test_live(torch, kind: str, seed: int, dtype: type) -> None:
    """Integers give what PyTorch gives; floats are as near to it as two rounded sums can be."""
    spec = random_spec(kind, seed)
    for op in ops_of(spec):
        exact = Problem.integers(spec, op, dtype, seed)
        for result, theirs in zip(exact.run("auto"), torch_results(torch, exact), strict=True):
            np.testing.assert_array_equal(result, theirs)
        rounded = Problem.random(spec, op, dtype, seed)
        for result, theirs, bound in zip(
            rounded.run("auto"), torch_results(torch, rounded), rounded.bounds, strict=True
        ):
            assert result.shape == theirs.shape
            assert (np.abs(result - theirs) <= 2 * bound).all()


@pytest.mark.torch
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(20))
def test_live_max_pool_of_anything(on: Calls, torch, seed: int, dtype: type) -> None:
    """Ties, several NaN in a window (the last is its index), infinities of both signs."""
    spec = random_spec("max_pool2d", seed)
    rng = np.random.default_rng(seed)
    x = rng.choice([np.nan, np.inf, -np.inf, -1.0, 0.0, 2.0], spec.x_shape).astype(dtype)
    window = {"stride": spec.stride, "dilation": spec.dilation, "ceil_mode": spec.ceil_mode}
    padding = spec.padding[0][0], spec.padding[1][0]
    kernel_size = spec.R, spec.S
    y, indices = on.max_pool2d(x, kernel_size, padding=padding, **window, return_indices=True)
    theirs, positions = torch.nn.functional.max_pool2d(
        torch.tensor(x), kernel_size, padding=padding, **window, return_indices=True
    )
    np.testing.assert_array_equal(y, theirs.numpy())
    np.testing.assert_array_equal(indices, positions.numpy())
    np.testing.assert_array_equal(on.max_pool2d(x, kernel_size, padding=padding, **window), theirs.numpy())


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same'")  # uneven padding costs PyTorch a copy
@pytest.mark.parametrize("kernel", range(1, 6))
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_live_same_padding(torch, kernel: int, dilation: int) -> None:
    """Padding "same" puts the odd element where PyTorch puts it: at the end."""
    spec = ConvSpec(1, 2, 7, 6, 2, kernel, 3, padding="same", dilation=(dilation, 1))
    problem = Problem.integers(spec, "forward")
    x, w, b = (torch.tensor(problem.arrays[name]) for name in "xwb")
    y = torch.nn.functional.conv2d(x, w, b, padding="same", dilation=(dilation, 1))
    np.testing.assert_array_equal(problem.run("auto")[0], y.numpy())
