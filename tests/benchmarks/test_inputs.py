"""The data that layers are measured on."""

from __future__ import annotations

import numpy as np

from benchmarks.inputs import make_problem
from benchmarks.suites import load_suite
from kernels import ConvSpec
from trainer import load_data

LAYERS = {layer.name: layer for layer in load_suite("default")}


def test_one_channel_images_are_digits():
    x = make_problem(LAYERS["lenet:conv1"].with_batch(8), "forward", "float32").arrays["x"]
    digits = load_data("digits").train_images
    assert x.dtype == np.float32
    for image in x:
        assert (image == digits).all(axis=(1, 2, 3)).any()
    assert len(np.unique(x, axis=0)) == 8


def test_more_images_than_there_are_digits():
    x = make_problem(LAYERS["lenet:conv1"].with_batch(2000), "forward", "float32").arrays["x"]
    assert x.shape == (2000, 1, 28, 28)


def test_data_are_fresh_for_each_problem_and_the_same_for_each_run():
    layer = ConvSpec(2, 3, 8, 8, 4, 3, 3)
    first, again = (make_problem(layer, "forward", "float64").arrays for _ in range(2))
    other = make_problem(layer, "dx", "float64").arrays
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], other["x"])
    assert first["x"].dtype == np.float64
