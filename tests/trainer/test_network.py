"""A network as a whole: names, views, gradients through layers that overwrite each other's arrays, files."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kernels
from kernels import ConvSpec, PoolSpec
from trainer import (
    AvgPool2d,
    Conv1d,
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Model,
    ReLU,
    Tanh,
    build_model,
    softmax_cross_entropy,
)
from trainer.weights import save_weights

F = np.float64


def conv(*arguments: Any, **geometry: Any) -> Conv2d:
    return Conv2d(*arguments, **geometry, dtype=F)


def linear(*arguments: int) -> Linear:
    return Linear(*arguments, dtype=F)


# Layers by kind, numbered as they come, and the shape of an image; each has neighbours of another sort.
ARRANGEMENTS: dict[str, tuple[list[Layer], tuple[int, ...]]] = {
    "usual": (
        [conv(1, 2, 3), MaxPool2d(2), ReLU(), Flatten(), linear(8, 4), ReLU(), linear(4, 3)],
        (1, 6, 6),
    ),
    "relu before pool": ([conv(1, 2, 3), ReLU(), MaxPool2d(2), conv(2, 3, 2), Flatten()], (1, 6, 6)),
    "activation first": ([ReLU(), conv(1, 2, 3), Tanh(), Flatten(), linear(8, 3)], (1, 4, 4)),
    "flatten first": ([Flatten(), ReLU(), linear(9, 4), Tanh(), linear(4, 3)], (1, 3, 3)),
    "pool first": ([MaxPool2d(2), ReLU(), AvgPool2d(2, 1), conv(1, 3, 2), Flatten()], (1, 6, 6)),
    "activations in a row": (
        [conv(1, 2, 2), Tanh(), ReLU(), Tanh(), Flatten(), ReLU(), linear(8, 3), Tanh(), Tanh()],
        (1, 3, 3),
    ),
    "activations around views": (
        [conv(1, 2, 2), Flatten(), ReLU(), Flatten(), Tanh(), linear(8, 3), ReLU(), Flatten()],
        (1, 3, 3),
    ),
    "pools in a row": (
        [conv(2, 2, 3, padding="same"), AvgPool2d(2, 1), Tanh(), MaxPool2d(2, 1), ReLU(), Flatten()],
        (2, 4, 3),
    ),
    "linear only": ([linear(5, 3)], (5,)),
    "signal": (
        [Conv1d(2, 3, 3, padding=1, dtype=F), ReLU(), Conv1d(3, 2, 2, stride=2, dtype=F), Tanh(), Flatten()],
        (2, 7),
    ),
}
arranged = pytest.mark.parametrize("name", ARRANGEMENTS)


def network(name: str, **arguments: Any) -> Model:
    """The network of that name, with layers of its own."""
    layers, shape = ARRANGEMENTS[name]
    numbered = {
        f"{type(layer).__name__.lower()}{at}": layer for at, layer in enumerate(copy.deepcopy(layers))
    }
    return Model(name.replace(" ", "_"), numbered, shape, **arguments)


def batch(model: Model, N: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels that fit."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((N, *model.shape)).astype(model.values.dtype)
    return x, rng.integers(0, model(x).shape[1], N)


def step(model: Model, x: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The loss, and the gradient of all parameters."""
    loss, dlogits = softmax_cross_entropy(model.forward(x), labels)
    model.backward(dlogits)
    return loss, model.slopes.copy()


class TestGradients:
    @arranged
    def test_slopes(self, name: str) -> None:
        """Central differences of the loss: rounding makes some 1e-16 / 1e-5 of error, curvature 1e-10."""
        model, distance = network(name, seed=3), 1e-5
        x, labels = batch(model)
        loss, slopes = step(model, x, labels)
        assert loss == pytest.approx(softmax_cross_entropy(model(x), labels)[0], abs=1e-14)
        for at, value in enumerate(model.values):
            ends = []
            for model.values[at] in (value + distance, value - distance):
                ends.append(softmax_cross_entropy(model(x), labels)[0])
            model.values[at] = value
            assert slopes[at] == pytest.approx((ends[0] - ends[1]) / (2 * distance), abs=1e-8)
        assert np.abs(slopes).max() > 1e-3

    @arranged
    def test_in_place_changes_nothing_else(self, name: str) -> None:
        plain, model = network(name), network(name)
        for layer in plain.layers.values():
            layer.in_place = False
        for number in (4, 3, 5):
            x, labels = batch(model, number, seed=number)
            np.testing.assert_array_equal(model(x), plain(x))
            loss, slopes = step(model, x, labels)
            expected_loss, expected_slopes = step(plain, x, labels)
            assert loss == expected_loss
            np.testing.assert_array_equal(slopes, expected_slopes)

    @arranged
    def test_the_images_stay_as_they_are(self, name: str) -> None:
        model = network(name)
        x, labels = batch(model)
        before = x.copy()
        model(x)
        np.testing.assert_array_equal(x, before)
        step(model, x, labels)
        np.testing.assert_array_equal(x, before)
        x.flags.writeable = False
        model(x)
        step(model, x, labels)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("usual", ["relu2", "relu5"]),
            ("relu before pool", ["relu1"]),
            ("activation first", ["tanh2"]),
            ("flatten first", ["tanh3"]),
            ("activations in a row", ["tanh1", "tanh7"]),
            ("activations around views", ["relu6"]),
        ],
    )
    def test_where_it_is_in_place(self, name: str, expected: list[str]) -> None:
        """After what made the array itself and never looks at it again: it takes no memory of its own."""
        model = network(name)
        step(model, *batch(model))
        activations = {key: layer for key, layer in model.layers.items() if isinstance(layer, ReLU | Tanh)}
        assert [key for key, layer in activations.items() if layer.in_place] == expected
        assert [key for key, layer in activations.items() if "y" not in layer._buffers] == expected
        logits = model.forward(batch(model)[0])
        before = dict(zip(list(model.layers)[1:], model.layers.values(), strict=False))
        for key in expected:
            assert np.shares_memory(activations[key]._saved, before[key]._buffers["y"])
        model.backward(np.ones_like(logits))
        assert all("dx" not in activations[key]._buffers for key in expected)

    def test_nothing_is_computed_before_the_first_parameters(self) -> None:
        model = network("pool first")
        step(model, *batch(model))
        assert [key for key, layer in model.layers.items() if "dx" in layer._buffers] == []
        model = network("usual")
        step(model, *batch(model))
        assert "dx" not in model.layers["conv2d0"]._buffers
        assert "dx" in model.layers["linear4"]._buffers

    @arranged
    def test_a_look_at_other_images_between(self, name: str) -> None:
        model, undisturbed = network(name), network(name)
        x, labels = batch(model)
        _, expected = step(undisturbed, x, labels)
        _, dlogits = softmax_cross_entropy(model.forward(x), labels)
        model(batch(model, 7, seed=1)[0])
        model.backward(dlogits)
        np.testing.assert_array_equal(model.slopes, expected)

    def test_backward_without_forward(self) -> None:
        model = network("usual")
        x, labels = batch(model)
        _, dlogits = softmax_cross_entropy(model(x), labels)
        words = "^Linear: backward without forward"
        with pytest.raises(ValueError, match=words):
            model.backward(dlogits)
        step(model, x, labels)
        with pytest.raises(ValueError, match=words):
            model.backward(dlogits)


class TestParameters:
    def test_names_and_shapes_are_those_of_pytorch(self) -> None:
        expected = {
            "conv1.weight": (6, 1, 5, 5),
            "conv1.bias": (6,),
            "conv2.weight": (16, 6, 5, 5),
            "conv2.bias": (16,),
            "fc1.weight": (120, 256),
            "fc1.bias": (120,),
            "fc2.weight": (84, 120),
            "fc2.bias": (84,),
            "fc3.weight": (10, 84),
            "fc3.bias": (10,),
        }
        model = build_model("lenet")
        for arrays in (model.parameters(), model.gradients()):
            assert [(name, array.shape) for name, array in arrays.items()] == list(expected.items())
            assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}

    @arranged
    def test_are_views_of_one_array(self, name: str) -> None:
        model = network(name)
        for whole, parts in (
            (model.values, model.parameters()),
            (model.slopes, model.gradients()),
        ):
            np.testing.assert_array_equal(whole, np.concatenate([part.ravel() for part in parts.values()]))
            whole[...] = np.arange(whole.size)
            np.testing.assert_array_equal(
                np.concatenate([part.ravel() for part in parts.values()]), np.arange(whole.size)
            )
            for part in parts.values():
                part[...] = 7
            assert (whole == 7).all()

    def test_a_change_counts_at_once(self) -> None:
        model = network("linear only")
        model.parameters()["linear0.weight"][...] = 0
        model.parameters()["linear0.bias"][...] = [1, 2, 3]
        np.testing.assert_array_equal(model(np.ones((2, 5))), [[1, 2, 3]] * 2)
        model.values *= 2
        np.testing.assert_array_equal(model(np.ones((2, 5))), [[2, 4, 6]] * 2)

    @arranged
    def test_the_seed_decides(self, name: str) -> None:
        first, same, other = (network(name, seed=seed) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first.values, same.values)
        assert not np.isin(first.values, other.values).any()
        assert not np.shares_memory(first.values, same.values)
        assert (first.slopes == 0).all()


class TestSpecs:
    def test_geometry_and_names(self) -> None:
        assert build_model("lenet").specs(3) == {
            "conv1": ConvSpec(3, 1, 28, 28, 6, 5, 5, name="lenet:conv1"),
            "pool1": PoolSpec("max", 3, 6, 24, 24, 2, 2, name="lenet:pool1"),
            "conv2": ConvSpec(3, 6, 12, 12, 16, 5, 5, name="lenet:conv2"),
            "pool2": PoolSpec("max", 3, 16, 8, 8, 2, 2, name="lenet:pool2"),
        }

    def test_one_image_unless_told(self) -> None:
        assert {spec.N for spec in build_model("mnist3").specs().values()} == {1}

    def test_arguments_of_layers(self) -> None:
        assert network("signal").specs(2) == {
            "conv1d0": ConvSpec(2, 2, 1, 7, 3, 1, 3, padding=((0, 0), (1, 1)), name="signal:conv1d0"),
            "conv1d2": ConvSpec(2, 3, 1, 7, 2, 1, 2, stride=(1, 2), name="signal:conv1d2"),
        }
        assert network("pool first").specs()["avgpool2d2"] == PoolSpec(
            "avg", 1, 1, 3, 3, 2, 2, stride=1, name="pool_first:avgpool2d2"
        )
        assert network("linear only").specs() == {}


LENET = """\
lenet: 1 x 28 x 28 images; shapes and FLOPs are for one image
layer  output       parameters    FLOPs  backend
conv1  6 x 24 x 24         156  172,800  loops
pool1  6 x 12 x 12                3,456  im2col
relu1  6 x 12 x 12                  864
conv2  16 x 8 x 8        2,416  307,200  window
pool2  16 x 4 x 4                 1,024  auto: {}
relu2  16 x 4 x 4                   256
fc1    120              30,840   61,440
relu3  120                          120
fc2    84               10,164   20,160
relu4  84                            84
fc3    10                  850    1,680
total                   44,426  569,084"""


class TestWords:
    def test_table(self) -> None:
        """Every number of it worked out on paper."""
        model = build_model("lenet", backend={"conv1": "loops", "pool1": "im2col", "conv2": "window"})
        chosen = kernels.choose(model.specs()["pool2"], "forward", np.float32)
        assert str(model) == LENET.format(chosen)

    @arranged
    def test_table_of_any_network(self, name: str) -> None:
        model = network(name, backend="auto")
        lines = str(model).splitlines()
        shown = [key for key, layer in model.layers.items() if not isinstance(layer, Flatten)]
        assert [line.split()[0] for line in lines[1:]] == ["layer", *shown, "total"]
        assert lines[-1].split()[1] == str(model.values.size)
        assert repr(model) == (
            f"<Model {model.name}: {len(model.layers)} layers, {model.values.size} parameters>"
        )

    @pytest.mark.parametrize(
        ("x", "what"),
        [
            (np.zeros((2, 28, 28), np.float32), "(2, 28, 28)"),
            (np.zeros((2, 3, 28, 28), np.float32), "(2, 3, 28, 28)"),
            (np.zeros((1, 28, 28, 1), np.float32), "(1, 28, 28, 1)"),
            (np.zeros((28, 28), np.float32), "(28, 28)"),
            (np.float32(1), "float32"),
            (np.array(1, np.float32), "()"),
            ([[0.0]], "list"),
            (None, "NoneType"),
        ],
        ids=str,
    )
    def test_shape_of_x(self, x: Any, what: str) -> None:
        model = build_model("simple")
        for call in (model, model.forward):
            with pytest.raises(ValueError, match="expected an array") as raised:
                call(x)
            assert str(raised.value) == f"x is {what}; expected an array (N, 1, 28, 28)"

    @pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.float16, np.int64, bool, ">f4"])
    def test_dtype_of_x(self, dtype: Any) -> None:
        model, x = build_model("simple"), np.zeros((2, 1, 28, 28), dtype)
        for call in (model, model.forward):
            with pytest.raises(TypeError, match="expected float32") as raised:
                call(x)
            assert str(raised.value) == f"x has dtype {x.dtype}; expected float32, from 0 to 1"

    @pytest.mark.parametrize(
        ("layers", "words"),
        [
            (
                [conv(1, 2, 3), conv(3, 2, 3)],
                "layer '1' of 'net': Conv2d takes 3 channels; its input is (2, ",
            ),
            (
                [conv(1, 2, 3), linear(72, 3)],
                "layer '1' of 'net': Linear takes 72 features; its input is (2, ",
            ),
            ([Flatten(), linear(72, 3)], "layer '1' of 'net': Linear takes 72 features; its input is (64,)"),
            ([MaxPool2d(9)], "layer '0' of 'net': kernel 9x9 (dilation counted) is larger than the padded"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_layers_that_do_not_fit(self, layers: list[Layer], words: str) -> None:
        with pytest.raises(ValueError) as raised:  # noqa: PT011  (the words follow)
            Model("net", {str(at): layer for at, layer in enumerate(layers)}, (1, 8, 8))
        assert str(raised.value).startswith(words)


class TestBackends:
    @staticmethod
    def backends(model: Model) -> Mapping[str, str]:
        return {
            name: layer.backend for name, layer in model.layers.items() if name.startswith(("conv", "pool"))
        }

    def test_one_for_all(self, backend: str) -> None:
        model = build_model("lenet", backend)
        assert self.backends(model) == dict.fromkeys(("conv1", "pool1", "conv2", "pool2"), backend)
        assert set(self.backends(build_model("lenet")).values()) == {"auto"}

    def test_by_layer(self) -> None:
        model = build_model("lenet", {"conv2": "im2col", "pool1": "loops"})
        assert self.backends(model) == {
            "conv1": "auto",
            "pool1": "loops",
            "conv2": "im2col",
            "pool2": "auto",
        }

    def test_of_the_layer_itself(self, monkeypatch) -> None:
        """A layer is computed by its own backend, and by no other."""
        called = []

        def spy_on(name: str, function: str) -> None:
            operations = kernels.get_backend(name).operations
            real = getattr(operations, function)

            def spy(*arrays: Any) -> None:
                called.append(f"{name} {function}")
                real(*arrays)

            monkeypatch.setattr(operations, function, spy)

        for name in ("loops", "im2col"):
            for function in ("conv_forward", "conv_dw", "max_pool_forward", "max_pool_dx"):
                spy_on(name, function)
        model = network("usual", backend={"conv2d0": "loops", "maxpool2d1": "im2col"})
        x, labels = batch(model)
        called.clear()
        step(model, x, labels)
        assert called == [
            "loops conv_forward",
            "im2col max_pool_forward",
            "im2col max_pool_dx",
            "loops conv_dw",
        ]

    @pytest.mark.parametrize("wrong", ["nope", "", "Numba"])
    def test_unknown_backend(self, wrong: str) -> None:
        words = f"^backend is '{wrong}'; expected one of auto, {', '.join(kernels.backends())}$"
        for given in (wrong, {"conv1": wrong}):
            with pytest.raises(ValueError, match=words):
                build_model("lenet", given)

    @pytest.mark.parametrize("wrong", ["conv3", "relu1", "fc1", "conv1.weight"])
    def test_unknown_layer(self, wrong: str) -> None:
        words = f"backend names layer '{wrong}'; expected some of conv1, pool1, conv2, pool2 of lenet"
        with pytest.raises(ValueError, match=f"^{re.escape(words)}$"):
            build_model("lenet", {"conv1": "auto", wrong: "im2col"})


SUFFIXES = [".npz", ".safetensors", pytest.param(".pth", marks=pytest.mark.torch)]


class TestFiles:
    @pytest.fixture(autouse=True)
    def _library(self, request: pytest.FixtureRequest) -> None:
        if request.node.get_closest_marker("torch"):
            pytest.importorskip("torch")

    @pytest.mark.parametrize("suffix", SUFFIXES)
    def test_round_trip(self, tmp_path: Path, suffix: str) -> None:
        first, second = build_model("lenet", seed=1), build_model("lenet", seed=2)
        x = np.random.default_rng(0).random((3, 1, 28, 28), np.float32)
        values = second.values
        first.save(tmp_path / f"lenet{suffix}")
        second.load(str(tmp_path / f"lenet{suffix}"))
        assert second.values is values, "an optimizer holds on to it"
        np.testing.assert_array_equal(second.values, first.values)
        np.testing.assert_array_equal(second(x), first(x))
        for name, array in second.parameters().items():
            assert np.shares_memory(array, values)
            np.testing.assert_array_equal(array, first.parameters()[name])

    def test_one_format_is_as_good_as_another(self, tmp_path: Path) -> None:
        first, second = build_model("simple", seed=1), build_model("simple", seed=2)
        first.save(tmp_path / "a.npz")
        second.load(tmp_path / "a.npz")
        second.save(tmp_path / "b.safetensors")
        third = build_model("simple", seed=3)
        third.load(tmp_path / "b.safetensors")
        np.testing.assert_array_equal(third.values, first.values)

    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"fc3.weight": np.zeros((84, 10), np.float32)},
                "{}: fc3.weight has shape (84, 10); expected (10, 84)",
            ),
            (
                {"conv1.weight": np.zeros((6, 3, 5, 5), np.float32)},
                "{}: conv1.weight has shape (6, 3, 5, 5); expected (6, 1, 5, 5)",
            ),
            ({"fc3.bias": None}, "{} has no fc3.bias; expected it with shape (10,), found conv1."),
            ({"fc4.bias": np.zeros(3, np.float32)}, "{} has fc4.bias of shape (3,); expected only conv1."),
            ({"fc3.bias": np.zeros(10, np.int64)}, "{}: fc3.bias has dtype int64; expected floats"),
        ],
        ids=lambda value: value[3:30] if isinstance(value, str) else "",
    )
    def test_what_does_not_fit(
        self, tmp_path: Path, suffix: str, changes: dict[str, np.ndarray | None], words: str
    ) -> None:
        """All parameters are taken, or none: those before the wrong one stay as they are."""
        arrays = {**build_model("lenet", seed=1).parameters(), **changes}
        path = tmp_path / f"w{suffix}"
        save_weights(path, {name: array for name, array in arrays.items() if array is not None})
        model = build_model("lenet", seed=2)
        before = model.values.copy()
        with pytest.raises(ValueError, match="expected") as raised:
            model.load(path)
        assert str(raised.value).startswith(words.format(path))
        assert "\n" not in str(raised.value)
        np.testing.assert_array_equal(model.values, before)

    def test_no_file(self, tmp_path: Path) -> None:
        model = build_model("simple")
        before = model.values.copy()
        with pytest.raises(ValueError, match=r"none\.npz does not exist; expected a file of weights$"):
            model.load(tmp_path / "none.npz")
        np.testing.assert_array_equal(model.values, before)

    def test_assign_copies(self) -> None:
        model, arrays = build_model("simple", seed=1), build_model("simple", seed=2).parameters()
        model.assign({name: array.astype(np.float64) for name, array in arrays.items()})
        for name, array in model.parameters().items():
            np.testing.assert_array_equal(array, arrays[name], strict=True)
            assert not np.shares_memory(array, arrays[name])
        with pytest.raises(ValueError, match=r"^weights has no conv1\.weight; expected it with shape"):
            model.assign({})
        with pytest.raises(ValueError, match=r"^somewhere has no conv1\.weight"):
            model.assign({}, "somewhere")


class TestThreads:
    def test_one_model_from_several(self, backend: str) -> None:
        """Each gets the logits of its own images, in a result of its own."""
        model = network("usual", backend=backend)
        images = [batch(model, 1 + seed % 5, seed)[0] for seed in range(40)]
        expected = [model(x) for x in images]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(model, images))
        for logits, wanted in zip(found, expected, strict=True):
            # Rounding: how many threads compute a sum together may depend on who else is computing.
            np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-12)
        for layer in model.layers.values():
            assert layer._saved is None
            assert layer._buffers == {}

    def test_several_models_in_training(self, backend: str) -> None:
        """Each has its own buffers, gradients and weights: there is no global state."""

        def train(seed: int) -> list[float]:
            model = network("usual", backend=backend, seed=seed)
            x, labels = batch(model, 6, seed)
            losses = []
            for _ in range(10):
                loss, slopes = step(model, x, labels)
                model.values -= 0.1 * slopes
                losses.append(loss)
            return losses

        expected = [train(seed) for seed in range(6)]
        with ThreadPoolExecutor(6) as pool:
            found = list(pool.map(train, range(6)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        assert all(losses[-1] < losses[0] for losses in found)


class TestBatches:
    @arranged
    def test_no_images(self, name: str) -> None:
        model = network(name)
        classes = model(batch(model)[0]).shape[1]
        assert model(np.empty((0, *model.shape))).shape == (0, classes)

    @arranged
    def test_the_images_of_a_batch_do_not_meet(self, name: str) -> None:
        model = network(name)
        x, _ = batch(model, 5)
        one_by_one = np.concatenate([model(x[at : at + 1]) for at in range(5)])
        np.testing.assert_allclose(model(x), one_by_one, rtol=0, atol=1e-13)

    @arranged
    def test_gradients_are_means(self, name: str) -> None:
        """A large batch has the mean gradient of its halves, which use the front of its buffers."""
        model = network(name)
        x, labels = batch(model, 6)
        loss, slopes = step(model, x, labels)
        halves = [step(model, x[part], labels[part]) for part in (slice(0, 3), slice(3, 6))]
        assert loss == pytest.approx(np.mean([half[0] for half in halves]), abs=1e-13)
        np.testing.assert_allclose(slopes, np.mean([half[1] for half in halves], axis=0), rtol=0, atol=1e-13)
