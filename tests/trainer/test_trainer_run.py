"""Runs in folders: whenever one is stopped, it goes on to the same numbers; its files are always whole."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kernels import own_backends
from kernels.threads import usable_cores
from trainer import build_model, load_data
from trainer.run import (
    CHECKPOINT,
    CURVES,
    HISTORY,
    WEIGHTS,
    Plan,
    Run,
    asked_to_stop,
    new_folder,
    newest_folder,
    parse_backend,
    plan_of,
)
from trainer.training import COLUMNS, Progress
from trainer.weights import read_weights, save_weights

FILES = {CHECKPOINT, CURVES, HISTORY, WEIGHTS}
TIMES = ["time_s", "images_per_s"]
SETTINGS = {
    "sgd": {},
    "plain sgd": {"momentum": 0.0},
    "falling lr": {"schedule": "linear"},
    "adam": {"optimizer": "adam"},
}


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch) -> None:
    """Drawing takes longer than the rest of a small run; that of `uninterrupted` is drawn in full."""
    monkeypatch.setattr("trainer.run.draw_curves", lambda training, path: Image.new("L", (1, 1)).save(path))


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> str:
    """A CSV of 125 digits: a hundred to train on, in four steps an epoch, and 25 to test on."""
    path = tmp_path_factory.mktemp("data") / "digits.csv"
    write_digits(path, 125)
    return str(path)


def write_digits(path: Path, count: int) -> None:
    data = load_data("digits")
    pixels = np.rint(255 * data.train_images[:count].reshape(count, -1))
    np.savetxt(path, np.column_stack([data.train_labels[:count], pixels]), "%d", ",")


@pytest.fixture(scope="module")
def plan(digits) -> Plan:
    """The backend is named: what "auto" is depends on what has been measured here."""
    return Plan("simple", data=digits, backend=own_backends()[-1], epochs=3, batch_size=32)


@pytest.fixture(scope="module")
def uninterrupted(plan, tmp_path_factory) -> dict[str, Run]:
    """The run with each of the settings, from beginning to end."""
    runs = {}
    for name, changes in SETTINGS.items():
        runs[name] = Run.begin(tmp_path_factory.mktemp("runs") / "run", replace(plan, **changes))
        assert runs[name].go()
    return runs


@pytest.fixture
def finished(uninterrupted) -> Path:
    """The folder of a run that has finished; not to be changed."""
    return uninterrupted["sgd"].folder


@pytest.fixture
def stopped(plan, tmp_path) -> Path:
    """The folder of a run that was stopped in its second epoch."""
    run = Run.begin(tmp_path / "stopped", plan)
    assert not run.go(after(run, 6))
    return run.folder


def after(run: Run, steps: int, act: Callable[[], object] | None = None) -> Callable[[Progress], None]:
    """What to call after each step to be asked to stop, or to do something else, after `steps` of them."""

    def on_step(progress: Progress) -> None:
        if len(run.training.losses) == steps:
            (act or (lambda: signal.raise_signal(signal.SIGINT)))()

    return on_step


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def assert_same(run: Run, expected: Run) -> None:
    """Bit for bit, in memory and in files: all but how long it took."""
    ours, theirs = run.training, expected.training
    np.testing.assert_array_equal(ours.model.values, theirs.model.values, strict=True)
    assert ours.optimizer.state.keys() == theirs.optimizer.state.keys()
    for name, state in theirs.optimizer.state.items():
        np.testing.assert_array_equal(ours.optimizer.state[name], state, strict=True)
    assert ours.losses == theirs.losses
    assert without_times(ours.rows) == without_times(theirs.rows)
    assert ours.progress == theirs.progress
    assert (run.folder / WEIGHTS).read_bytes() == (expected.folder / WEIGHTS).read_bytes()
    histories = [
        pd.read_csv(folder / HISTORY).drop(columns=TIMES) for folder in (run.folder, expected.folder)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    checkpoints = [read_weights(folder / CHECKPOINT) for folder in (run.folder, expected.folder)]
    assert checkpoints[0].keys() == checkpoints[1].keys()
    for name in checkpoints[0].keys() - {"about"}:
        np.testing.assert_array_equal(checkpoints[0][name], checkpoints[1][name], strict=True)


def assert_whole(run: Run, files: set[str] = FILES) -> None:
    """The folder holds these files and nothing else, and they say what `run` is."""
    assert {path.name for path in run.folder.iterdir()} == files
    model = build_model(run.plan.model, seed=99)
    model.load(run.folder / WEIGHTS)
    np.testing.assert_array_equal(model.values, run.training.model.values)
    history = pd.read_csv(run.folder / HISTORY)
    assert list(history.columns) == COLUMNS
    assert history.to_dict("records") == run.training.rows
    assert plan_of(run.folder) == run.plan
    if CURVES in files:
        with Image.open(run.folder / CURVES) as picture:
            assert picture.format == "PNG"
            picture.load()


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refuses(message: str):
    """A ValueError that begins with these words, of one line."""
    assert "\n" not in message
    return pytest.raises(ValueError, match=f"^{re.escape(message)}")


class TestBegin:
    def test_a_run_from_beginning_to_end(self, uninterrupted):
        for run in uninterrupted.values():
            assert run.training.finished
            assert len(run.training.losses) == 12
            assert [row["epoch"] for row in run.training.rows] == [1, 2, 3]
            assert_whole(run)

    def test_it_is_that_of_the_training(self, uninterrupted, plan):
        """The folder adds nothing to the numbers."""
        training = plan.start()
        while not training.finished:
            training.run_epoch()
        run = uninterrupted["sgd"].training
        assert training.losses == run.losses
        np.testing.assert_array_equal(training.model.values, run.model.values)

    def test_what_was_left_open_is_settled(self, uninterrupted):
        """So that whoever goes on, later or elsewhere, has the same."""
        sgd, adam = uninterrupted["sgd"].plan, uninterrupted["adam"].plan
        assert (sgd.threads, sgd.lr, adam.lr) == (usable_cores(), 0.05, 0.001)
        assert plan_of(uninterrupted["sgd"].folder) == sgd

    def test_a_checkpoint_after_each_epoch(self, plan, tmp_path):
        """Which whoever looks at the folder meanwhile finds whole."""
        run = Run.begin(tmp_path / "run", plan)
        calls: list[int] = []

        def on_epoch(row: dict[str, Any]) -> None:
            calls.append(row["epoch"])
            assert_whole(run, FILES - {CURVES})
            again = Run.resume(run.folder, {"epochs": 4})
            assert again.training.rows == run.training.rows
            assert again.training.losses == run.training.losses

        assert run.go(on_epoch=on_epoch)
        assert calls == [1, 2, 3]

    def test_its_folder_is_taken_at_once(self, plan, tmp_path):
        """Another run that begins now gets another folder; this one can be resumed from its first step."""
        run = Run.begin(new_folder(tmp_path, plan), plan)
        assert new_folder(tmp_path, plan) != run.folder
        assert Run.resume(run.folder, {}).training.progress == run.training.progress
        with refuses(f"{run.folder} holds a run already; expected --resume to go on, or another --out"):
            Run.begin(run.folder, plan)

    def test_a_folder_that_cannot_be_made_is_said_before_the_first_step(self, plan, tmp_path):
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(OSError, match="file"):
            Run.begin(tmp_path / "file" / "run", plan)

    def test_a_folder_with_other_files_may_be_used(self, plan, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        run = Run.begin(tmp_path, replace(plan, epochs=1))
        assert run.go()
        assert_whole(run, FILES | {"notes.txt"})

    def test_a_folder_that_holds_a_run(self, plan, finished):
        before = content(finished)
        with refuses(f"{finished} holds a run already; expected --resume to go on, or another --out"):
            Run.begin(finished, plan)
        assert content(finished) == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"model": "nope"}, "model is 'nope'; expected one of mnist3, mnist2, scratch, lenet, "),
            ({"data": "nope"}, "data is 'nope'; expected 'digits', 'mnist', "),
            ({"limit": 0}, "limit is 0; expected a positive int"),
            ({"backend": "nope"}, "backend is 'nope'; expected one of auto, loops, "),
            ({"backend": "conv9=loops"}, "backend names layer 'conv9'; expected some of conv1 of simple"),
            ({"backend": "conv1=nope"}, "backend is 'nope'; expected one of auto, loops, "),
            ({"threads": 0}, "--threads is 0; expected 1 to "),
            ({"threads": 10_000}, "--threads is 10000; expected 1 to "),
            ({"epochs": 0}, "epochs is 0; expected a positive int"),
            ({"lr": -1.0}, "lr is -1.0; expected a number above 0"),
            ({"optimizer": "rmsprop"}, "optimizer is 'rmsprop'; expected 'sgd' or 'adam'"),
            ({"momentum": 1.5}, "momentum is 1.5; expected a number from 0 to below 1"),
            ({"schedule": "up"}, "schedule is 'up'; expected 'constant' or 'linear'"),
            ({"seed": 2**32}, f"seed is {2**32}; expected 0 to {2**32 - 1}"),
        ],
    )
    def test_a_plan_that_is_none(self, plan, tmp_path, changes, message):
        with refuses(message):
            Run.begin(tmp_path / "run", replace(plan, **changes))
        assert list(tmp_path.iterdir()) == []


class TestGoingOn:
    @pytest.mark.parametrize("settings", SETTINGS)
    @pytest.mark.parametrize("steps", [1, 4, 6, 11], ids=lambda steps: f"after {steps} of 4 an epoch")
    def test_an_interruption_changes_nothing(self, plan, uninterrupted, tmp_path, settings, steps):
        run = Run.begin(tmp_path / "run", replace(plan, **SETTINGS[settings]))
        assert not run.go(after(run, steps))
        at = run.training.progress
        assert (len(run.training.losses), 4 * at.epoch + at.step) == (steps, steps)
        assert len(run.training.rows) == at.epoch == steps // 4
        assert_whole(run)
        again = Run.resume(run.folder, {})
        assert again.plan == run.plan
        assert again.training.progress == run.training.progress
        assert again.training.rows == run.training.rows
        assert again.go()
        assert_same(again, uninterrupted[settings])
        assert_whole(again)

    def test_many_interruptions_change_nothing(self, plan, uninterrupted, tmp_path):
        run = Run.begin(tmp_path / "run", plan)
        for step in range(1, 12):
            assert not run.go(after(run, step))
            run = Run.resume(run.folder, {})
        assert run.go()
        assert_same(run, uninterrupted["sgd"])

    def test_a_crash_costs_the_epoch_under_way(self, plan, uninterrupted, tmp_path):
        def crash() -> None:
            raise RuntimeError("power cut")

        run = Run.begin(tmp_path / "run", plan)
        with pytest.raises(RuntimeError, match="power cut"):
            run.go(after(run, 6, crash))
        again = Run.resume(run.folder, {})
        assert again.training.progress == Progress(epoch=1)
        assert again.go()
        assert_same(again, uninterrupted["sgd"])

    def test_time_goes_on_too(self, stopped):
        run = Run.resume(stopped, {})
        so_far = run.training.progress.time_s
        assert so_far > 0
        assert run.go()
        assert run.training.rows[1]["time_s"] > so_far

    def test_asking_for_the_same_is_no_change(self, stopped, plan, uninterrupted):
        given = {"model": "simple", "data": plan.data, "epochs": 3, "batch_size": 32, "lr": 0.05, "seed": 0}
        run = Run.resume(stopped, given)
        assert run.go()
        assert_same(run, uninterrupted["sgd"])

    def test_a_finished_run_takes_more_epochs(self, plan, tmp_path):
        """To the same numbers where the rate is constant; a falling one depends on where it ends."""
        constant = replace(plan, schedule="constant")
        whole = Run.begin(tmp_path / "whole", constant)
        assert whole.go()
        run = Run.begin(tmp_path / "run", replace(constant, epochs=2))
        assert run.go()
        more = Run.resume(run.folder, {"epochs": 3})
        assert more.go()
        assert more.plan == whole.plan
        assert_same(more, whole)

    def test_backend_and_threads_may_change(self, stopped, uninterrupted):
        run = Run.resume(stopped, {"backend": "conv1=im2col", "threads": 1})
        assert run.plan.threads == 1
        assert run.training.model.layers["conv1"].backend == "im2col"
        assert run.go()
        assert plan_of(stopped) == replace(uninterrupted["sgd"].plan, backend="conv1=im2col", threads=1)
        # Other orders of float32 sums, over six steps.
        np.testing.assert_allclose(run.training.losses, uninterrupted["sgd"].training.losses, rtol=1e-4)

    @pytest.mark.parametrize(
        ("name", "value", "begun"),
        [
            ("lr", 0.1, 0.05),
            ("model", "lenet", "simple"),
            ("batch_size", 64, 32),
            ("optimizer", "adam", "sgd"),
            ("momentum", 0.5, 0.9),
            ("schedule", "constant", "linear"),
            ("seed", 1, 0),
            ("limit", 10, None),
            ("data", "digits", "{digits}"),
        ],
    )
    def test_what_decides_the_numbers_may_not_change(self, stopped, digits, name, value, begun):
        before = content(stopped)
        option = "--" + name.replace("_", "-")
        begun = digits if begun == "{digits}" else begun
        with refuses(f"{option} is {value} but the run in {stopped} has {begun}; expected the same"):
            Run.resume(stopped, {name: value})
        assert content(stopped) == before

    def test_wrong_changes(self, stopped):
        for changes, message in (
            ({"epochs": 0}, "epochs is 0; expected a positive int"),
            ({"threads": 0}, "--threads is 0; expected 1 to "),
            ({"backend": "nope"}, "backend is 'nope'; expected one of auto, "),
        ):
            with refuses(message):
                Run.resume(stopped, changes)

    def test_a_run_that_has_finished(self, finished):
        message = f"the run in {finished} has finished its 3 epochs; expected --epochs above that to go on"
        for changes in ({}, {"epochs": 3}, {"epochs": 1}):
            with refuses(message):
                Run.resume(finished, changes)

    def test_fewer_epochs_than_there_were(self, stopped):
        with refuses(
            f"the run in {stopped} has finished its 1 epochs; expected --epochs above that to go on"
        ):
            Run.resume(stopped, {"epochs": 1})

    def test_data_that_are_not_the_same(self, plan, tmp_path):
        data = tmp_path / "changing.csv"
        write_digits(data, 125)
        run = Run.begin(tmp_path / "run", replace(plan, data=str(data)))
        assert not run.go(after(run, 1))
        write_digits(data, 100)
        with refuses(
            f"{data} has 80 images to train on but the run in {run.folder} had 100; expected the same data"
        ):
            Run.resume(run.folder, {})


class TestNoRun:
    def test_a_folder_without(self, tmp_path):
        for folder in (tmp_path, tmp_path / "missing"):
            with refuses(f"{folder} holds no run; expected a folder with a checkpoint.npz"):
                Run.resume(folder, {})

    @pytest.mark.parametrize(
        "arrays",
        [
            pytest.param({"conv1.weight": np.zeros(3)}, id="weights"),
            pytest.param({}, id="nothing"),
            pytest.param({"about": np.frombuffer(b"not JSON", np.uint8)}, id="another about"),
            pytest.param({"about": np.frombuffer(b"\xff\xfe", np.uint8)}, id="no text"),
        ],
    )
    def test_an_archive_of_something_else(self, tmp_path, arrays):
        save_weights(tmp_path / CHECKPOINT, arrays)
        message = f"{tmp_path / CHECKPOINT} is no checkpoint; expected one that `convbench train` wrote"
        with refuses(message):
            Run.resume(tmp_path, {})
        with refuses(message):
            plan_of(tmp_path)

    def test_a_part_of_a_checkpoint(self, stopped):
        path = stopped / CHECKPOINT
        path.write_bytes(path.read_bytes()[:1000])
        with refuses(f"{path} is a part of a NumPy archive (.npz); expected a NumPy archive (.npz)"):
            Run.resume(stopped, {})

    def test_no_archive_at_all(self, tmp_path):
        path = tmp_path / CHECKPOINT
        path.write_text("hello")
        with refuses(f"{path} is a file of another kind; expected a NumPy archive (.npz)"):
            Run.resume(tmp_path, {})

    def test_parameters_of_another_network(self, stopped):
        arrays = read_weights(stopped / CHECKPOINT)
        arrays["parameters/fc1.bias"] = np.zeros(11, np.float32)
        save_weights(stopped / CHECKPOINT, arrays)
        with refuses(f"{stopped / CHECKPOINT}: fc1.bias has shape (11,); expected (10,)"):
            Run.resume(stopped, {})

    def test_a_checkpoint_holds_nothing_that_could_run(self, finished):
        arrays = read_weights(finished / CHECKPOINT)  # which refuses pickles
        about = json.loads(arrays["about"].tobytes())
        assert set(about) == {"plan", "progress", "rows", "images"}
        assert len(arrays["losses"]) == 12


class TestFolders:
    @pytest.mark.parametrize(
        ("data", "stem"),
        [
            ("digits", "lenet-digits"),
            ("fashion-mnist", "lenet-fashion-mnist"),
            ("../here/train.csv.gz", "lenet-train"),
            ("some/folder/", "lenet-folder"),
            (".", "lenet-data"),
            ("..", "lenet-data"),
        ],
    )
    def test_new_ones_are_numbered(self, tmp_path, data, stem):
        plan = Plan("lenet", data=data)
        root = tmp_path / "results" / "train"
        assert new_folder(root, plan) == root / f"{stem}-1"
        assert not root.exists()
        for number in (1, 2, 4):
            (root / f"{stem}-{number}").mkdir(parents=True)
        (root / "scratch-digits-3").mkdir()
        assert new_folder(root, plan) == root / f"{stem}-3"

    def test_the_newest_is_the_last_that_was_saved(self, tmp_path):
        saved = {"lenet-digits-1": 300, "lenet-digits-2": 100, "scratch-mnist-1": 400, "mnist3-mnist-1": 200}
        for name, time in saved.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / CHECKPOINT).touch()
            os.utime(tmp_path / name / CHECKPOINT, (time, time))
        (tmp_path / "lenet-digits-3").mkdir()  # begun, not saved
        (tmp_path / "notes.txt").touch()
        assert newest_folder(tmp_path).name == "scratch-mnist-1"
        assert newest_folder(tmp_path, "lenet").name == "lenet-digits-1"
        assert newest_folder(tmp_path, "mnist3").name == "mnist3-mnist-1"
        os.utime(tmp_path / "lenet-digits-2" / CHECKPOINT, (500, 500))
        assert newest_folder(tmp_path, "lenet").name == "lenet-digits-2"
        with refuses(f"no run of mnist2 in {tmp_path}/; expected one of `convbench train` before"):
            newest_folder(tmp_path, "mnist2")

    def test_none(self, tmp_path):
        for root in (tmp_path, tmp_path / "missing"):
            with refuses(f"no run in {root}/; expected one of `convbench train` before"):
                newest_folder(root)


class TestParseBackend:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("auto", "auto"),
            ("numba", "numba"),
            ("conv1=im2col", {"conv1": "im2col"}),
            ("conv1=im2col,pool1=window", {"conv1": "im2col", "pool1": "window"}),
        ],
    )
    def test_a_name_or_one_for_each_layer(self, text, expected):
        assert parse_backend(text) == expected

    @pytest.mark.parametrize("text", ["conv1=", "=im2col", "=", "conv1=im2col,", "conv1=im2col,window"])
    def test_neither(self, text):
        with refuses(f"backend is {text!r}; expected a name, or LAYER=NAME,LAYER=NAME"):
            parse_backend(text)


class TestAskedToStop:
    @pytest.fixture(autouse=True)
    def _usual(self) -> Iterator[None]:
        """Signals as Python sets them up: a process in the background may ignore them."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_the_first_signal_asks(self, number):
        with asked_to_stop() as event:
            assert not event.is_set()
            signal.raise_signal(number)
            assert event.is_set()

    def test_the_second_interrupts(self):
        with asked_to_stop() as event:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            assert event.is_set()

    def test_the_second_interrupts_a_run(self, plan, tmp_path):
        run = Run.begin(tmp_path / "run", plan)

        def twice() -> None:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run.go(after(run, 6, twice))
        assert Run.resume(run.folder, {}).training.progress == Progress(epoch=1)

    def test_signals_are_as_they_were_afterwards(self):
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

        def stop() -> None:
            raise RuntimeError

        for act in (lambda: None, lambda: signal.raise_signal(signal.SIGTERM), stop):
            try:
                with asked_to_stop():
                    act()
            except RuntimeError:
                assert act is stop
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers

    def test_another_thread_is_left_alone(self, plan, uninterrupted, tmp_path):
        """Only the main thread gets signals; a run elsewhere goes to its end."""
        run = Run.begin(tmp_path / "run", plan)
        seen: list[bool] = []

        def work() -> None:
            before = signal.getsignal(signal.SIGINT)
            with asked_to_stop() as event:
                seen.append(signal.getsignal(signal.SIGINT) is before and not event.is_set())
            seen.append(run.go())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert seen == [True, True]
        assert_same(run, uninterrupted["sgd"])
