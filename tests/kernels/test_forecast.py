"""Forecasts, and the smaller layers that they are made on."""

from __future__ import annotations

import pytest

from benchmarks.suites import load_suite, suites
from kernels import ConvSpec
from kernels.forecast import Forecaster, shrink

LAYERS = [layer for suite in suites() for layer in load_suite(suite)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
@pytest.mark.parametrize("flops", [1, 20_000, 5_000_000])
def test_a_shrunk_layer_is_one_of_the_same_kind(layer, flops):
    batch = layer.with_batch(32)
    small = shrink(batch, flops)
    assert small.kind == layer.kind
    assert (small.R, small.S, small.stride, small.dilation) == (
        layer.R,
        layer.S,
        layer.stride,
        layer.dilation,
    )
    assert small.flops <= batch.flops
    nothing_left = small.N == small.C == getattr(small, "K", 1) == 1
    assert small.flops <= flops or nothing_left
    assert small == batch or batch.flops > flops


def test_a_layer_that_fits_is_left_alone():
    layer = ConvSpec(4, 3, 16, 16, 8, 3, 3)
    assert shrink(layer, layer.flops) == layer


def test_a_forecast_scales_with_the_batch():
    forecaster = Forecaster(budget_s=4.0)
    layer = ConvSpec(8, 3, 16, 16, 8, 3, 3)
    forecaster.record(layer, "forward", "im2col", "float32", 0.5)
    forecast = forecaster.forecast(layer.with_batch(16), "forward", "im2col", "float32")
    assert forecast.call_s == pytest.approx(1.0)
    assert forecast.fits
    assert not forecaster.forecast(layer.with_batch(17), "forward", "im2col", "float32").fits


def test_what_was_never_run_is_probed_within_the_budget():
    """The loops would take hours on this layer; the forecast says so after a fraction of a second."""
    layer = ConvSpec(128, 256, 56, 56, 256, 3, 3, padding=1)
    forecast = Forecaster(budget_s=0.2).forecast(layer, "forward", "loops", "float32")
    assert not forecast.fits
    assert forecast.call_s > 100


@pytest.mark.parametrize("op", ["forward", "dx", "dw"])
def test_fast_backends_are_not_misjudged(op):
    """A probe is mostly overhead; what fits with room to spare must not be skipped for that."""
    layer = ConvSpec(1, 32, 28, 28, 32, 3, 3, padding=1)
    assert Forecaster(budget_s=2.0).forecast(layer, op, "im2col", "float32").fits
