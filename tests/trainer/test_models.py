"""The networks by name: their documented sizes, and the same numbers from every backend."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import kernels
import trainer
from kernels.registry import EXACT, ops_of
from trainer import Flatten, Linear, Model, build_model, models
from trainer.models import matching_model

# Shapes of one image after each layer with parameters and before the first linear one, as documented.
CONVOLUTIONS = {
    "mnist3": {"conv1": (32, 14, 14), "conv2": (64, 7, 7), "conv3": (128, 4, 4)},
    "mnist2": {"conv1": (32, 26, 26), "conv2": (64, 11, 11)},
    "scratch": {"conv1": (8, 28, 28)},
    "lenet": {"conv1": (6, 24, 24), "conv2": (16, 8, 8)},
    "simple": {"conv1": (8, 28, 28)},
    "tanhavg": {"conv1": (6, 26, 26)},
}
SIZES = {
    "mnist3": (2048, 250, 10),
    "mnist2": (1600, 250, 10),
    "scratch": (1568, 64, 10),
    "lenet": (256, 120, 84, 10),
    "simple": (6272, 10),
    "tanhavg": (3456, 32, 10),
}
POOLED = {
    "mnist3": (128, 4, 4),
    "mnist2": (64, 5, 5),
    "scratch": (8, 14, 14),
    "lenet": (16, 4, 4),
    "simple": (8, 28, 28),
    "tanhavg": (6, 24, 24),
}
every = pytest.mark.parametrize("name", models())


def test_names() -> None:
    assert set(models()) == set(CONVOLUTIONS) == set(SIZES) == set(POOLED)


@every
class TestSizes:
    def test_linear_layers(self, name: str) -> None:
        layers = {key: layer for key, layer in build_model(name).layers.items() if isinstance(layer, Linear)}
        sizes = SIZES[name]
        expected = {
            f"fc{number}": shape for number, shape in enumerate(zip(sizes[1:], sizes, strict=False), 1)
        }
        assert {key: layer.parameters["weight"].shape for key, layer in layers.items()} == expected
        assert all(
            layer.parameters["bias"].shape == layer.parameters["weight"].shape[:1]
            for layer in layers.values()
        )

    def test_convolutions(self, name: str) -> None:
        model = build_model(name)
        specs = {key: spec for key, spec in model.specs().items() if key.startswith("conv")}
        assert {key: spec.y_shape[1:] for key, spec in specs.items()} == CONVOLUTIONS[name]
        for key, spec in specs.items():
            assert model.parameters()[f"{key}.weight"].shape == spec.w_shape
            assert model.parameters()[f"{key}.bias"].shape == (spec.K,)

    def test_what_is_flattened(self, name: str) -> None:
        model = build_model(name)
        shape = model.shape
        for layer in model.layers.values():
            if isinstance(layer, Flatten):
                break
            shape = layer.output_shape(shape)
        assert shape == POOLED[name]
        assert int(np.prod(shape)) == SIZES[name][0]

    def test_parameters(self, name: str) -> None:
        """Convolutions first, then linear layers, as PyTorch has them where they are written in order."""
        parts = ("weight", "bias")
        layers = [*CONVOLUTIONS[name], *(f"fc{number}" for number in range(1, len(SIZES[name])))]
        assert list(build_model(name).parameters()) == [
            f"{layer}.{part}" for layer in layers for part in parts
        ]

    def test_logits(self, name: str) -> None:
        model = build_model(name)
        assert model.name == name
        assert model.shape == (1, 28, 28)
        for N in (0, 1, 3):
            logits = model(np.zeros((N, 1, 28, 28), np.float32))
            assert (logits.shape, logits.dtype) == ((N, 10), np.float32)

    def test_the_seed_decides(self, name: str) -> None:
        zero, default, one = build_model(name, seed=0), build_model(name), build_model(name, seed=1)
        np.testing.assert_array_equal(zero.values, default.values)
        for part, array in one.parameters().items():
            assert not np.array_equal(array, zero.parameters()[part])

    def test_is_found_by_its_parameters(self, name: str) -> None:
        assert matching_model(build_model(name, seed=1).parameters(), "w.npz") == name

    def test_learns_in_float32(self, name: str) -> None:
        """No step of it makes a float64, which would cost twice the time from there on."""
        model = build_model(name)
        logits = model.forward(np.ones((2, 1, 28, 28), np.float32))
        loss, dlogits = trainer.softmax_cross_entropy(logits, np.array([1, 2]))
        model.backward(dlogits)
        assert np.isfinite(loss)
        buffers = [array for layer in model.layers.values() for array in layer._buffers.values()]
        assert {array.dtype for array in buffers} <= {np.dtype(np.float32), np.dtype(np.int64)}
        assert all(array.dtype == np.float32 and array.any() for array in model.gradients().values())


def test_unknown_model() -> None:
    words = f"model is 'resnet'; expected one of {', '.join(models())}"
    with pytest.raises(ValueError, match=f"^{words}$"):
        build_model("resnet")


def test_parameters_of_none() -> None:
    arrays = build_model("simple").parameters()
    del arrays["fc1.bias"]
    with pytest.raises(ValueError, match="fits none of") as raised:
        matching_model(arrays, "w.npz")
    assert str(raised.value) == (
        f"w.npz fits none of {', '.join(models())}; expected --model with one of them, to see what differs"
    )


IMAGES = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
LABELS = np.array([3, 7])
SLOW = 0.5e6
"""FLOPs an image beyond which nested loops take seconds: the larger layers of mnist3 and mnist2."""


def on(name: str, backend: str) -> Model:
    """The network on that backend, but for layers that it does not support, or is too slow for."""
    entry = kernels.get_backend(backend)
    model = build_model(name)
    layers = {}
    for key, spec in model.specs(len(IMAGES)).items():
        supported = all(entry.unsupported(spec, op, np.dtype(np.float32)) is None for op in ops_of(spec))
        affordable = backend != "loops" or spec.flops <= SLOW * len(IMAGES)
        if supported and affordable:
            layers[key] = backend
    if not layers:
        pytest.skip(f"{backend} supports no layer of {name}")
    return build_model(name, layers, seed=1)


def computed(model: Model) -> dict[str, np.ndarray]:
    """The logits and all gradients, by name."""
    logits = model.forward(IMAGES)
    _, dlogits = trainer.softmax_cross_entropy(logits, LABELS)
    results = {"logits": logits.copy()}
    np.testing.assert_array_equal(model(IMAGES), results["logits"])
    model.backward(dlogits)
    return results | {part: array.copy() for part, array in model.gradients().items()}


@functools.cache
def expected(name: str) -> dict[str, np.ndarray]:
    return computed(build_model(name, "im2col", seed=1))


@every
def test_every_backend_gives_the_same(name: str, backend: str) -> None:
    """Logits and gradients within rounding.

    Sums of n terms in another order differ by some sqrt(n) * 6e-8 of their size, with n up to 2 * 28 * 28 in
    the gradient of a filter: 2e-6, and a few times that where terms cancel, or one layer's error is another's
    input. A wrong term would be some 1 / n.
    """
    tolerance = 1e-5 + kernels.get_backend(backend).tolerance
    assert kernels.get_backend("im2col").tolerance == EXACT
    found = computed(on(name, backend))
    assert found.keys() == expected(name).keys()
    for part, array in found.items():
        wanted = expected(name)[part]
        allowed = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(array, wanted, rtol=0, atol=allowed, err_msg=part)
