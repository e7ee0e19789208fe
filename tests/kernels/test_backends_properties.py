"""Whatever the geometry: backends agree, specs count right, descriptors come back.

Layers are drawn from the whole space of parameters, tiny, so that nested loops can follow.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from kernel_cases import assert_same, backend_params

import kernels
from kernels import ConvSpec, PoolSpec, Spec
from kernels.problem import Problem
from kernels.registry import ops_of

# The same examples on every run: a failure is one of the code, not of the day.
checked = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.filter_too_much]
)

Drawn = dict[str, Any]


def is_reached(axis: Drawn) -> bool:
    """Whether every window sees some of the input."""
    return all(any(window) for window in taps_on_input(axis))


def taps_on_input(axis: Drawn) -> list[list[bool]]:
    """For each window of an axis, which of its taps fall on the input: by counting on one's fingers."""
    before, after = axis["padding"]
    reach = (axis["kernel"] - 1) * axis["dilation"] + 1
    starts, start = [], -before
    while start + reach <= axis["size"] + after:
        starts.append(start)
        start += axis["stride"]
    # ceil_mode: one more where inputs or padding are left over, if it starts on the input or before it.
    if axis.get("ceil_mode") and starts[-1] + reach < axis["size"] + after and start < axis["size"]:
        starts.append(start)
    taps = range(0, reach, axis["dilation"])
    return [[0 <= start + tap < axis["size"] for tap in taps] for start in starts]


@st.composite
def axes(draw: st.DrawFn, pooling: bool = False, dilated: bool = True) -> Drawn:
    kernel = draw(st.integers(1, 4))
    dilation = draw(st.integers(1, 3)) if dilated else 1
    reach = (kernel - 1) * dilation + 1
    before, after = (draw(st.integers(0, reach - 1 if pooling else 5)) for _ in range(2))
    size = draw(st.integers(max(1, reach - before - after), 11))
    stride = draw(st.integers(1, 5))
    return {
        "size": size,
        "kernel": kernel,
        "stride": stride,
        "padding": (before, after),
        "dilation": dilation,
    }


ONE = {"size": 1, "kernel": 1, "stride": 1, "padding": (0, 0), "dilation": 1}


def sizes(rows: Drawn, cols: Drawn) -> dict[str, Any]:
    return {
        "H": rows["size"],
        "W": cols["size"],
        "R": rows["kernel"],
        "S": cols["kernel"],
        **{name: (rows[name], cols[name]) for name in ("stride", "padding", "dilation")},
    }


Layer = tuple[Spec, Drawn, Drawn]


@st.composite
def convolutions(draw: st.DrawFn) -> Layer:
    """A spec and the two axes it was made of."""
    rows = draw(st.one_of(axes(), st.just(ONE)))
    cols = draw(axes())
    n, groups, channels, filters = (draw(st.integers(1, top)) for top in (3, 3, 3, 3))
    spec = ConvSpec(
        N=n, C=channels * groups, K=filters * groups, groups=groups, **sizes(rows, cols), name="drawn"
    )
    return spec, rows, cols


@st.composite
def poolings(draw: st.DrawFn) -> Layer:
    mode = draw(st.sampled_from(("max", "avg")))
    rows, cols = (draw(axes(pooling=True, dilated=mode == "max")) for _ in range(2))
    rows["ceil_mode"] = cols["ceil_mode"] = ceil_mode = draw(st.booleans())
    assume(is_reached(rows) and is_reached(cols))  # else the layer is an error: see the tests of errors
    include = draw(st.booleans()) if mode == "avg" else True
    n, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    flags = {"ceil_mode": ceil_mode, "count_include_pad": include}
    return PoolSpec(mode, n, channels, **sizes(rows, cols), **flags), rows, cols


layers = st.one_of(convolutions(), poolings())


@pytest.mark.parametrize("backend", backend_params())
@checked
@given(layers, st.sampled_from((np.float32, np.float64)), st.integers(0, 9))
def test_backends_equal_the_reference(backend: str, layer: Layer, dtype: type, seed: int) -> None:
    """`loops` among them: it and the reference are two ways to the same thing."""
    spec = layer[0]
    for op in ops_of(spec):
        if kernels.get_backend(backend).unsupported(spec, op, np.dtype(dtype)):
            continue
        problem = Problem.integers(spec, op, dtype, seed)
        for result, expected in zip(problem.run(backend), problem.reference, strict=True):
            assert result.dtype == dtype
            assert_same(kernels.get_backend(backend), result, expected)


@pytest.mark.parametrize("backend", backend_params())
@checked
@given(poolings().filter(lambda layer: layer[0].mode == "max"), st.integers(0, 9))
def test_max_pool_of_anything(backend: str, layer: Layer, seed: int) -> None:
    """Ties, NaN and infinities: one value and one index for all, those of the nested loops."""
    spec = layer[0]
    x = np.random.default_rng(seed).choice([np.nan, np.inf, -np.inf, -1, 0, 1], spec.x_shape)
    x = x.astype(np.float32)
    if kernels.get_backend(backend).unsupported(spec, "forward", x.dtype):
        return
    results = [
        kernels.max_pool2d(
            x,
            (spec.R, spec.S),
            stride=spec.stride,
            padding=spec.padding,
            dilation=spec.dilation,
            ceil_mode=spec.ceil_mode,
            return_indices=True,
            backend=name,
        )
        for name in (backend, "loops")
    ]
    for result, expected in zip(*results, strict=True):
        np.testing.assert_array_equal(result, expected)


@checked
@given(layers)
def test_counts_are_those_of_brute_force(layer: Layer) -> None:
    """Outputs, taps on the input, FLOPs and divisors, window by window."""
    spec, rows, cols = layer
    down, across = taps_on_input(rows), taps_on_input(cols)
    assert (len(down), len(across)) == (spec.OH, spec.OW)
    taps = sum(sum(window) for window in down) * sum(sum(window) for window in across)
    assert spec.valid_taps == taps
    if isinstance(spec, ConvSpec):
        assert spec.flops == 2 * spec.N * spec.K * (spec.C // spec.groups) * taps
    else:
        assert spec.flops == spec.N * spec.C * taps
        if not spec.count_include_pad:
            np.testing.assert_array_equal(spec.divisors, [[sum(r) * sum(c) for c in across] for r in down])


def with_plain_height(spec: Spec) -> Spec:
    """In a 1-D layer the vertical stride and dilation mean nothing: both 1."""
    if (spec.H, spec.R, spec.padding[0]) != (1, 1, (0, 0)):
        return spec
    return dataclasses.replace(spec, stride=(1, spec.stride[1]), dilation=(1, spec.dilation[1]))


@checked
@given(layers)
def test_descriptors_come_back(layer: Layer) -> None:
    """The same layer where padding is symmetric; else one that computes the same.

    What the last window does not reach may be padding or not: a descriptor does not say.
    """
    spec = layer[0]
    mode = {"mode": spec.mode} if isinstance(spec, PoolSpec) else {}
    again = type(spec).parse(spec.descriptor, **mode)
    if all(before == after for before, after in spec.padding):
        assert again == with_plain_height(spec)
    assert (again.x_shape, again.y_shape, again.name) == (spec.x_shape, spec.y_shape, spec.name)
    assert (again.flops, again.kind, again.parameters) == (spec.flops, spec.kind, spec.parameters)
    assert type(spec).parse(again.descriptor, **mode) == again
    for op in ops_of(spec):
        problem = Problem.integers(spec, op)
        same = dataclasses.replace(problem, spec=again)
        for result, expected in zip(same.run("auto"), problem.reference, strict=True):
            np.testing.assert_array_equal(result, expected)


@checked
@given(
    st.integers(1, 12),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 3),
    st.sampled_from(("conv", "max")),
)
def test_same_padding(size: int, kernel: int, stride: int, dilation: int, kind: str) -> None:
    """ceil(size / stride) outputs, no more padding than they need, the odd element at the end."""
    geometry = {"stride": (1, stride), "padding": "same", "dilation": (1, dilation)}
    if kind == "conv":
        spec: Spec = ConvSpec(1, 1, 3, size, 1, 1, kernel, **geometry)
    else:
        reach = (kernel - 1) * dilation + 1
        assume(dilation == 1 or size >= reach)  # a dilated window may miss a short input altogether
        spec = PoolSpec("max", 1, 1, 3, size, 1, kernel, **geometry)
    assert -(-size // stride) == spec.OW
    before, after = spec.padding[1]
    assert after - before in (0, 1)
    if before + after:
        assert (spec.OW - 1) * stride + (kernel - 1) * dilation + 1 == size + before + after
    assert dataclasses.replace(spec, padding=spec.padding) == spec
