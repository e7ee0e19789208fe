"""How well the networks learn: each on real digits from its first step to a figure that others reach too."""

from __future__ import annotations

import os

import pytest

from trainer import Data, build_model, load_data, train

pytestmark = pytest.mark.long

SEED = 0
EPOCHS = 3
BATCH_SIZE = 64
SETTINGS: dict[str, object] = {"lr": 0.05, "momentum": 0.9, "schedule": "linear"}
LEAST = {"lenet": 0.983, "mnist3": 0.983, "scratch": 0.978}


@pytest.fixture(scope="module")
def mnist() -> Data:
    """60,000 images to train on and 10,000 to test on; never downloaded here."""
    folder = os.environ.get("CONVBENCH_DATA")
    if not folder:
        pytest.skip("CONVBENCH_DATA is not set: it names the folder that holds mnist/")
    data = load_data("mnist", data_dir=folder)
    assert (len(data.train_images), len(data.test_images)) == (60_000, 10_000)
    return data


@pytest.mark.parametrize("name", LEAST)
def test_mnist(mnist, name):
    model = build_model(name, seed=SEED)
    history = train(model, mnist, epochs=EPOCHS, batch_size=BATCH_SIZE, seed=SEED, **SETTINGS)
    assert history["test_accuracy"].iloc[-1] >= LEAST[name]


def test_digits():
    """With nothing but defaults."""
    history = train(build_model("lenet"), load_data("digits"))
    assert history["test_accuracy"].iloc[-1] >= 0.97
