"""Networks from runs and files of weights, and what they take for what."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from trainer import build_model, evaluate, load_data, models
from trainer.run import CHECKPOINT, WEIGHTS, Plan, Run
from trainer.trained import confusion, load_trained
from trainer.training import EVALUATED
from trainer.weights import read_weights, save_weights


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """A folder with a run of `simple` and a later one of `scratch`, of one step each."""
    root = tmp_path_factory.mktemp("runs")
    for time, name in enumerate(("simple", "scratch"), 1000):
        run = Run.begin(root / f"{name}-digits-1", Plan(name, limit=8, epochs=1, backend="im2col"))
        assert run.go()
        os.utime(run.folder / CHECKPOINT, (time, time))
    return root


def refuses(message: str):
    """A ValueError that begins with these words, of one line."""
    assert "\n" not in message
    return pytest.raises(ValueError, match=f"^{re.escape(message)}")


def assert_holds(model, path: Path) -> None:
    """The model's parameters are those in the file."""
    arrays = read_weights(path)
    parameters = model.parameters()
    assert parameters.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(parameters[name], array, strict=True)


class TestLoadTrained:
    def test_the_folder_of_a_run(self, runs, tmp_path):
        folder = runs / "simple-digits-1"
        trained = load_trained(folder, tmp_path, None, None)
        assert trained.model.name == "simple"
        assert trained.path == folder / WEIGHTS
        assert (trained.data, trained.data_dir) == ("digits", None)
        assert_holds(trained.model, trained.path)

    def test_the_newest_run(self, runs):
        trained = load_trained(None, runs, None, None)
        assert trained.model.name == "scratch"
        assert trained.path == runs / "scratch-digits-1" / WEIGHTS

    def test_the_data_are_those_of_the_run(self, tmp_path):
        """By name, without reading them."""
        data = load_data("digits", limit=125)
        pixels = np.rint(255 * data.train_images.reshape(125, -1))
        np.savetxt(tmp_path / "some.csv", np.column_stack([data.train_labels, pixels]), "%d", ",")
        plan = Plan("simple", data=str(tmp_path / "some.csv"), data_dir="elsewhere", epochs=1)
        run = Run.begin(tmp_path / "run", plan)
        run.save()
        (tmp_path / "some.csv").unlink()
        trained = load_trained(tmp_path / "run", tmp_path, None, None)
        assert (trained.data, trained.data_dir) == (str(tmp_path / "some.csv"), "elsewhere")

    @pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
    @pytest.mark.parametrize("name", models())
    def test_a_file_of_weights_tells_its_network(self, tmp_path, name, suffix):
        path = tmp_path / f"weights{suffix}"
        model = build_model(name, seed=5)
        model.save(path)
        trained = load_trained(path, tmp_path, None, None)
        assert trained.model.name == name
        assert (trained.path, trained.data, trained.data_dir) == (path, "digits", None)
        np.testing.assert_array_equal(trained.model.values, model.values)

    def test_names_with_a_prefix(self, tmp_path):
        """As PyTorch's DataParallel writes them."""
        model = build_model("lenet", seed=5)
        path = tmp_path / "weights.npz"
        save_weights(path, {f"module.{name}": array for name, array in model.parameters().items()})
        trained = load_trained(path, tmp_path, None, None)
        assert trained.model.name == "lenet"
        np.testing.assert_array_equal(trained.model.values, model.values)

    @pytest.mark.parametrize("backend", [None, "im2col", "conv1=window,pool1=im2col"])
    def test_the_backend_is_given(self, runs, backend):
        """It is not the run's, which may have been one for training."""
        model = load_trained(runs / "scratch-digits-1", runs, None, backend).model
        expected = {None: ("auto", "auto"), "im2col": ("im2col", "im2col")}.get(backend, ("window", "im2col"))
        assert (model.layers["conv1"].backend, model.layers["pool1"].backend) == expected

    def test_a_network_that_does_not_fit(self, runs):
        path = runs / "scratch-digits-1" / WEIGHTS
        for given in (path, path.parent):
            with refuses(f"{path} has no conv2.weight; expected it with shape (16, 6, 5, 5), found conv1"):
                load_trained(given, runs, "lenet", None)
            with refuses(f"{path}: fc1.weight has shape (64, 1568); expected (10, 6272)"):
                load_trained(given, runs, "simple", None)
        arrays = build_model("scratch").parameters() | {"fc2.weight": np.zeros((10, 32), np.float32)}
        save_weights(runs / "odd.npz", arrays)
        with refuses(f"{runs / 'odd.npz'}: fc2.weight has shape (10, 32); expected (10, 64)"):
            load_trained(runs / "odd.npz", runs, "scratch", None)

    def test_the_network_may_be_given(self, runs):
        for given in (runs / "scratch-digits-1", runs / "scratch-digits-1" / WEIGHTS):
            assert load_trained(given, runs, "scratch", None).model.name == "scratch"

    @pytest.mark.parametrize(
        "arrays",
        [
            pytest.param({}, id="nothing"),
            pytest.param({"conv1.weight": np.zeros((3, 1, 3, 3), np.float32)}, id="a part"),
            pytest.param(
                {name: array.astype(int) for name, array in build_model("simple").parameters().items()},
                id="ints",
            ),
        ],
    )
    def test_weights_that_fit_none(self, tmp_path, arrays):
        path = tmp_path / "odd.npz"
        save_weights(path, arrays)
        remedy = "expected --model with one of them, to see what differs"
        with refuses(f"{path} fits none of {', '.join(models())}; {remedy}"):
            load_trained(path, tmp_path, None, None)

    def test_errors(self, runs, tmp_path):
        with refuses(f"no run in {tmp_path}/; expected one of `convbench train` before"):
            load_trained(None, tmp_path, None, None)
        with refuses(f"{tmp_path / 'nope.npz'} does not exist; expected a file of weights"):
            load_trained(tmp_path / "nope.npz", runs, None, None)
        with refuses(f"{tmp_path / CHECKPOINT} does not exist; expected "):
            load_trained(tmp_path, runs, None, None)
        with refuses("model is 'nope'; expected one of mnist3, "):
            load_trained(None, runs, "nope", None)
        with refuses("backend is 'nope'; expected one of auto, "):
            load_trained(None, runs, None, "nope")
        shutil.copy(runs / "scratch-digits-1" / CHECKPOINT, tmp_path)
        with refuses(f"{tmp_path / WEIGHTS} does not exist; expected a file of weights"):
            load_trained(tmp_path, runs, None, None)


class TestConfusion:
    @pytest.mark.parametrize("count", [1, 100, EVALUATED, EVALUATED + 1, 359])
    def test_every_image_counts_once(self, count):
        data = load_data("digits")
        images, labels = data.test_images[:count], data.test_labels[:count]
        model = build_model("simple", seed=1)
        counts = confusion(model, images, labels)
        assert counts.shape == (10, 10)
        assert counts.dtype == np.int64
        assert counts.sum() == count
        np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels, minlength=10))
        taken_for = model(images).argmax(axis=1)
        np.testing.assert_array_equal(counts.sum(axis=0), np.bincount(taken_for, minlength=10))
        assert counts.trace() / count == evaluate(model, images, labels)[1]

    def test_rows_are_labels_and_columns_answers(self):
        class Echo:
            """Takes an image for the number in its first pixel."""

            def __call__(self, images: np.ndarray) -> np.ndarray:
                return np.eye(10)[images[:, 0, 0, 0].astype(int)]

        images = np.zeros((5, 1, 28, 28), np.float32)
        images[:, 0, 0, 0] = [3, 3, 7, 7, 0]
        counts = confusion(Echo(), images, np.array([3, 5, 5, 5, 0]))
        expected = np.zeros((10, 10), int)
        expected[3, 3], expected[5, 3], expected[5, 7], expected[0, 0] = 1, 1, 2, 1
        np.testing.assert_array_equal(counts, expected)
