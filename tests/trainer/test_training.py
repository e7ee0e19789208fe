"""The training loop: its numbers, worked out again; the order of its steps; going on where it stopped."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from scipy.special import log_softmax

import trainer
from trainer import AvgPool2d, Conv2d, Data, Flatten, Linear, MaxPool2d, Model, ReLU, Settings, Training
from trainer.training import COLUMNS, EVALUATED, Progress

TIMES = ("time_s", "images_per_s")


class Tiny(Model):
    """A layer of each kind, so small that nested loops can train it; remembers what it was trained on."""

    def __init__(self, backend: str = "im2col", seed: int = 0) -> None:
        self.batches: list[np.ndarray] = []
        self.logits: list[np.ndarray] = []
        layers = {
            "conv1": Conv2d(1, 4, 5, stride=3),
            "pool1": MaxPool2d(2),
            "relu1": ReLU(),
            "conv2": Conv2d(4, 8, 3, padding=1),
            "pool2": AvgPool2d(2),
            "flatten": Flatten(),
            "fc1": Linear(32, 10),
        }
        super().__init__("tiny", layers, (1, 28, 28), backend=backend, seed=seed)

    def forward(self, x: np.ndarray, training: bool = True) -> np.ndarray:
        logits = super().forward(x, training)
        if training:
            self.batches.append(x.copy())
            self.logits.append(logits.copy())
        return logits


@pytest.fixture(scope="module")
def data() -> Data:
    """A hundred images to train on, 40 to test on."""
    whole = trainer.load_data("digits", limit=100)
    return whole._replace(test_images=whole.test_images[:40], test_labels=whole.test_labels[:40])


@pytest.fixture(scope="module")
def numbered(data) -> Data:
    """`data`, with the number of each image to train on in its first pixel."""
    images = data.train_images.copy()
    images[:, 0, 0, 0] = np.arange(len(images))
    return data._replace(train_images=images)


def run(training: Training) -> Training:
    while not training.finished:
        assert training.run_epoch()
    return training


def order(data: Data, **settings: int) -> list[list[list[int]]]:
    """The numbers of the images of each step of each epoch."""
    training = run(Training(Tiny(), data, Settings(lr=1e-6, **settings)))
    steps = [batch[:, 0, 0, 0].astype(int).tolist() for batch in training.model.batches]
    size = training.steps_per_epoch
    return [steps[start : start + size] for start in range(0, len(steps), size)]


def flat(steps: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(steps))


def without_times(training: Training) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in training.rows]


def assert_same(training: Training, expected: Training) -> None:
    """Bit for bit: parameters, the optimizer's state, losses, and the history but for its times."""
    np.testing.assert_array_equal(training.model.values, expected.model.values, strict=True)
    assert training.optimizer.state.keys() == expected.optimizer.state.keys()
    for name, state in expected.optimizer.state.items():
        np.testing.assert_array_equal(training.optimizer.state[name], state, strict=True)
    assert training.losses == expected.losses
    assert without_times(training) == without_times(expected)
    assert training.progress == expected.progress


def oracle(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean loss and accuracy, the loss in float64."""
    of_labels = log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels]
    return -of_labels.mean(), (logits.argmax(axis=1) == labels).mean()


class TestSettings:
    @pytest.mark.parametrize(
        ("wrong", "error", "message"),
        [
            ({"epochs": 0}, ValueError, "epochs is 0; expected a positive int"),
            ({"epochs": 2.5}, TypeError, "epochs is 2.5; expected a positive int"),
            ({"epochs": True}, TypeError, "epochs is True; expected a positive int"),
            ({"batch_size": 0}, ValueError, "batch_size is 0; expected a positive int"),
            ({"batch_size": "64"}, TypeError, "batch_size is '64'; expected a positive int"),
            ({"seed": -1}, ValueError, "seed is -1; expected an int of 0 or more"),
            ({"seed": None}, TypeError, "seed is None; expected an int of 0 or more"),
            ({"optimizer": "rmsprop"}, ValueError, "optimizer is 'rmsprop'; expected 'sgd' or 'adam'"),
            ({"optimizer": None}, ValueError, "optimizer is None; expected 'sgd' or 'adam'"),
            ({"schedule": "cosine"}, ValueError, "schedule is 'cosine'; expected 'constant' or 'linear'"),
            ({"schedule": None}, ValueError, "schedule is None; expected 'constant' or 'linear'"),
            *(
                ({"lr": lr}, ValueError, f"lr is {lr!r}; expected a number above 0")
                for lr in (0, -1.0, math.inf, math.nan, "0.1")
            ),
            *(
                ({"momentum": of}, ValueError, f"momentum is {of!r}; expected a number from 0 to below 1")
                for of in (1, 1.5, -0.1, math.nan, None)
            ),
        ],
    )
    def test_errors(self, data, wrong, error, message):
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            Settings(**wrong)
        with pytest.raises(error, match=f"^{re.escape(message)}$"):
            trainer.train(Tiny(), data, **wrong)

    def test_the_learning_rate_depends_on_the_optimizer(self):
        assert Settings().lr == 0.05
        assert Settings(optimizer="adam").lr == 0.001
        assert Settings(optimizer="adam", lr=0.05).lr == 0.05

    def test_bounds_and_numpy_ints_are_taken(self):
        settings = Settings(epochs=np.int64(1), batch_size=np.int64(1), lr=1, momentum=0, seed=np.int64(0))
        assert (settings.epochs, settings.batch_size, settings.momentum, settings.seed) == (1, 1, 0, 0)

    def test_the_optimizer_is_made_of_them(self):
        sgd = Settings(lr=0.2, momentum=0.5).make_optimizer(Tiny())
        assert (type(sgd), sgd.lr, sgd.momentum) == (trainer.SGD, 0.2, 0.5)
        adam = Settings(optimizer="adam").make_optimizer(Tiny())
        assert (type(adam), adam.lr) == (trainer.Adam, 0.001)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", [0.06] * 6), ("linear", [0.06, 0.05, 0.04, 0.03, 0.02, 0.01])],
)
def test_schedule(data, schedule, expected, optimizer):
    """In a line from the rate that is given towards zero, which the step after the last would have."""
    training = Training(Tiny(), data, Settings(2, 40, 0.06, optimizer, schedule=schedule))
    rates = []
    while not training.finished:
        training.run_epoch(lambda progress: rates.append(training.optimizer.lr))
    assert rates == pytest.approx(expected, rel=1e-12)


class TestOrder:
    def test_each_epoch_goes_through_all_images_in_an_order_of_its_own(self, numbered):
        epochs = order(numbered, epochs=3, batch_size=32)
        for steps in epochs:
            assert [len(step) for step in steps] == [32, 32, 32, 4]
            assert sorted(flat(steps)) == list(range(100))
        first, second, third = epochs
        assert first != second != third != first
        assert flat(first) != list(range(100))

    def test_it_follows_from_the_seed_alone(self, numbered):
        epochs = order(numbered, epochs=2, batch_size=50, seed=7)
        assert order(numbered, epochs=2, batch_size=50, seed=7) == epochs
        assert order(numbered, epochs=2, batch_size=50, seed=8) != epochs
        smaller = order(numbered, epochs=2, batch_size=10, seed=7)
        assert [flat(steps) for steps in smaller] == [flat(steps) for steps in epochs]

    @pytest.mark.parametrize(("size", "steps"), [(1, 100), (33, 4), (50, 2), (99, 2), (100, 1), (500, 1)])
    def test_steps_of_an_epoch(self, numbered, size, steps):
        (epoch,) = order(numbered, epochs=1, batch_size=size)
        assert len(epoch) == steps
        assert sorted(flat(epoch)) == list(range(100))

    def test_images_keep_their_labels(self, numbered):
        """The losses of the steps are those of the images' own labels."""
        training = run(Training(Tiny(), numbered, Settings(1, 32)))
        for loss, batch, logits in zip(
            training.losses, training.model.batches, training.model.logits, strict=True
        ):
            picked = batch[:, 0, 0, 0].astype(int)
            np.testing.assert_array_equal(batch, numbered.train_images[picked])
            # float32 sums of up to 32 terms near 2: some 1e-7 each.
            assert loss == pytest.approx(oracle(logits, numbered.train_labels[picked])[0], rel=1e-5)

    def test_data_stay_as_they_are(self, data):
        before = [part.copy() for part in data]
        trainer.train(Tiny(), data, epochs=1)
        for part, expected in zip(data, before, strict=True):
            np.testing.assert_array_equal(part, expected, strict=True)


class TestHistory:
    def test_a_row_an_epoch(self, data):
        training = Training(Tiny(), data, Settings(3, 32))
        assert list(training.history().columns) == COLUMNS
        assert len(training.history()) == 0
        history = run(training).history()
        assert list(history.columns) == COLUMNS
        assert history["epoch"].tolist() == [1, 2, 3]
        assert len(training.losses) == 3 * training.steps_per_epoch == 12
        for name in COLUMNS[1:]:
            assert history[name].dtype == np.float64
        for name in ("train_accuracy", "test_accuracy"):
            assert history[name].between(0, 1).all()
        assert (history["time_s"] > 0).all()
        np.testing.assert_allclose(history["images_per_s"], 100 / history["time_s"])

    def test_means_are_over_images(self, data, numbered):
        """So that the last batch, of four images, counts an eighth of the others."""
        training = run(Training(Tiny(), numbered, Settings(2, 32)))
        weights = [32, 32, 32, 4]
        for epoch, row in enumerate(training.rows):
            steps = slice(4 * epoch, 4 * epoch + 4)
            losses = training.losses[steps]
            assert row["train_loss"] == pytest.approx(np.average(losses, weights=weights), rel=1e-12)
            assert row["train_loss"] != pytest.approx(np.mean(losses), rel=1e-6)
            picked = np.concatenate([batch[:, 0, 0, 0] for batch in training.model.batches[steps]])
            logits = np.concatenate(training.model.logits[steps])
            loss, accuracy = oracle(logits, data.train_labels[picked.astype(int)])
            assert row["train_loss"] == pytest.approx(loss, rel=1e-5)
            assert row["train_accuracy"] == pytest.approx(accuracy, rel=1e-12)

    def test_tests_are_of_the_model_after_the_epoch(self, data):
        training = Training(Tiny(), data, Settings(2, 32))
        while not training.finished:
            training.run_epoch()
            row = training.rows[-1]
            expected = trainer.evaluate(training.model, data.test_images, data.test_labels)
            assert (row["test_loss"], row["test_accuracy"]) == expected

    def test_train_returns_it(self, data):
        model = Tiny()
        settings = {
            "epochs": 2,
            "batch_size": 16,
            "lr": 0.01,
            "momentum": 0.5,
            "schedule": "linear",
            "seed": 3,
        }
        history = trainer.train(model, data, **settings)
        training = run(Training(Tiny(), data, Settings(**settings)))
        np.testing.assert_array_equal(model.values, training.model.values)
        untimed = history.drop(columns=list(TIMES))
        assert untimed.to_dict("records") == without_times(training)


class TestGoingOn:
    @pytest.mark.parametrize(
        "settings",
        [
            Settings(3, 32),
            Settings(3, 32, momentum=0),
            Settings(3, 32, optimizer="adam"),
            Settings(3, 32, schedule="linear"),
        ],
        ids=["sgd", "sgd without momentum", "adam", "linear"],
    )
    @pytest.mark.parametrize("stops", [{1}, {4}, {5, 6, 11}, set(range(1, 13))])
    def test_stopping_changes_nothing(self, data, settings, stops):
        expected = run(Training(Tiny(), data, settings))
        training = Training(Tiny(), data, settings)
        interruptions = 0
        while not training.finished:
            interruptions += not training.run_epoch(lambda progress: len(training.losses) in stops)
        assert interruptions == len(stops - {4, 8, 12})  # an epoch's last step ends it
        assert_same(training, expected)

    def test_progress_is_that_of_the_epoch(self, data):
        training = Training(Tiny(), data, Settings(2, 32))
        assert training.progress == Progress()
        seen = []
        assert training.run_epoch()
        assert training.progress == Progress(epoch=1)
        assert not training.run_epoch(
            lambda progress: (seen.append((progress.step, progress.images)), progress.step == 3)[1]
        )
        assert seen == [(1, 32), (2, 64), (3, 96)]
        at = training.progress
        assert (at.epoch, at.step, at.images) == (1, 3, 96)
        assert at.loss == pytest.approx(32 * sum(training.losses[4:]), rel=1e-12)
        assert at.time_s > 0
        assert len(training.rows) == 1
        assert not training.finished
        assert training.run_epoch()
        assert training.finished

    def test_what_is_called_after_a_step_sees_its_loss(self, data):
        training = Training(Tiny(), data, Settings(1, 32))
        counts = []
        training.run_epoch(lambda progress: counts.append(len(training.losses)))
        assert counts == [1, 2, 3, 4]


class TestErrors:
    # NumPy warns on the way.
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_a_loss_that_is_no_number_any_more(self, data, optimizer):
        with pytest.raises(ValueError, match="the loss became") as raised:
            trainer.train(Tiny(), data, epochs=3, batch_size=50, lr=1e30, optimizer=optimizer)
        assert re.fullmatch(
            r"the loss became (nan|inf) in step 2 of epoch 1; expected a finite number: "
            r"try an lr smaller than 1e\+30",
            str(raised.value),
        )

    def test_the_message_names_step_and_epoch(self, data):
        training = Training(Tiny(), data, Settings(3, 32))

        def spoil(progress: Progress) -> None:
            if (progress.epoch, progress.step) == (1, 2):
                training.model.values[:] = np.nan

        training.run_epoch(spoil)
        with pytest.raises(ValueError, match=r"^the loss became nan in step 3 of epoch 2; .* than 0\.05$"):
            training.run_epoch(spoil)
        assert len(training.losses) == 6
        assert np.isfinite(training.losses).all()
        assert len(training.rows) == 1

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_no_data(self, data, part):
        empty = data._replace(
            **{f"{part}_images": data.train_images[:0], f"{part}_labels": data.train_labels[:0]}
        )
        with pytest.raises(ValueError, match=r"^data has images \(0, .*; expected \(N, .*, N at least 1$"):
            trainer.train(Tiny(), empty)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"train_images": np.zeros((3, 1, 28, 28), np.float32)},
                "images (3, 1, 28, 28) of float32, labels",
            ),
            (
                {"train_images": np.zeros((100, 1, 28, 28), np.uint8)},
                "images (100, 1, 28, 28) of uint8, labels",
            ),
            ({"train_labels": np.zeros(100)}, "labels (100,) of float64; expected"),
            ({"test_labels": np.zeros((100, 1), np.int64)}, "labels (100, 1) of int64; expected"),
        ],
    )
    def test_data_that_does_not_fit(self, data, changes, words):
        with pytest.raises(ValueError, match=r"^data has images") as raised:
            trainer.train(trainer.build_model("simple"), data._replace(**changes))
        assert words in str(raised.value)


class TestEvaluate:
    @pytest.mark.parametrize("count", [1, 40, EVALUATED, EVALUATED + 1, 359])
    def test_is_what_follows_from_all_logits(self, count):
        data = trainer.load_data("digits")
        images, labels = data.test_images[:count], data.test_labels[:count]
        model = Tiny()
        loss, accuracy = trainer.evaluate(model, images, labels)
        expected = oracle(model(images), labels)
        assert loss == pytest.approx(expected[0], rel=1e-5)
        assert accuracy == expected[1]

    def test_leaves_the_model_as_it_is(self, data):
        model = Tiny()
        before = model.values.copy()
        assert trainer.evaluate(model, *data[2:]) == trainer.evaluate(model, *data[2:])
        np.testing.assert_array_equal(model.values, before)


@pytest.mark.parametrize(("optimizer", "backend"), [("sgd", "auto"), ("adam", "im2col")])
def test_it_learns(optimizer, backend):
    """400 digits, three times: the defaults name most of those that were held out."""
    data = trainer.load_data("digits", limit=400)
    model = trainer.build_model("simple", backend, seed=0)
    history = trainer.train(model, data, epochs=3, batch_size=16, optimizer=optimizer)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0] / 2
    assert history["test_loss"].iloc[-1] < history["test_loss"].iloc[0]
    assert history["train_accuracy"].iloc[-1] > 0.8
    assert history["test_accuracy"].iloc[-1] > 0.7  # chance is 0.1


def losses_of(data: Data, backend: str) -> list[float]:
    """Of 32 steps of an image each, that each change what the next one sees."""
    few = Data(data.train_images[:32], data.train_labels[:32], data.test_images[:8], data.test_labels[:8])
    return run(Training(Tiny(backend), few, Settings(1, 1, lr=0.02))).losses


@pytest.fixture(scope="module")
def losses_of_loops(data) -> list[float]:
    return losses_of(data, "loops")


def test_all_backends_give_the_same_losses(data, losses_of_loops, backend):
    check_losses(losses_of(data, backend), losses_of_loops)


def test_auto_gives_the_same_losses(data, losses_of_loops):
    check_losses(losses_of(data, "auto"), losses_of_loops)


def check_losses(losses, losses_of_loops):
    assert len(losses) == 32
    # They add the same float32 products in orders of their own: 6e-8 a sum, over 32 steps. A layer that had
    # learnt nothing would be off by more than 1e-2.
    np.testing.assert_allclose(losses, losses_of_loops, rtol=1e-5)
