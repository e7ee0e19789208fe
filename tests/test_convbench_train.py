"""Training, evaluating and predicting from the command line."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess, Popen

import numpy as np
import pandas as pd
import pytest
from cli import convbench_run, convbench_start
from PIL import Image, ImageDraw

import convbench
from kernels.selection import ENVIRONMENT
from trainer import build_model, load_data
from trainer.trained import confusion
from trainer.training import COLUMNS
from trainer.weights import save_weights

FILES = {"checkpoint.npz", "curves.png", "history.csv", "weights.npz"}
FIRST = "results/train/scratch-digits-1"
SMALL = ("train", "scratch", "--limit", "64", "--epochs", "1")
TIMES = ["time_s", "images_per_s"]
DEADLINE_S = 120  # for what takes some seconds, on a machine that has other things to do


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, CompletedProcess[str]]:
    """A folder in which a small `convbench train` has run, and what it said."""
    folder = tmp_path_factory.mktemp("train")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ENVIRONMENT, str(folder / "selection.json"))  # not the user's own
        done = convbench_run(folder, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


@pytest.fixture
def convbench_here(monkeypatch, capfd) -> Callable[..., CompletedProcess[str]]:
    """As `convbench_run`, but in this process, which saves a second or two of imports."""
    monkeypatch.setenv("OPENBLAS_THREAD_TIMEOUT", os.environ.get("OPENBLAS_THREAD_TIMEOUT", "4"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(folder: Path, *arguments: str) -> CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr("sys.argv", ["convbench", *arguments])
        with pytest.raises(SystemExit) as ended:
            convbench.main()
        return CompletedProcess(arguments, ended.value.code, *capfd.readouterr())

    return run


def content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


class TestTrain:
    def test_what_it_says(self, trained):
        folder, done = trained
        table, rest = done.stdout.split("\n\n")
        assert table == str(build_model("scratch"))
        data, epoch, end = rest.splitlines()
        assert re.fullmatch(
            r"digits: 64 images to train on, 359 to test on; sgd, lr 0\.05, batch 64, seed 0, \d+ threads?",
            data,
        )
        (row,) = history(folder / FIRST).to_dict("records")
        accuracies = f"train {row['train_accuracy']:6.2%}  test {row['test_accuracy']:6.2%}"
        speed = f"{row['images_per_s']:,.0f} images/s"
        assert epoch == f"epoch 1/1  loss {row['train_loss']:.4f}  {accuracies}  {speed}"
        assert end == (
            f"test accuracy {row['test_accuracy']:.2%}; {FIRST}/ holds weights.npz, history.csv, curves.png"
        )
        assert done.stderr == ""  # a bar is for terminals

    def test_the_folder_of_the_run(self, trained):
        folder, _ = trained
        assert {path.name for path in (folder / FIRST).iterdir()} == FILES
        assert list(history(folder / FIRST).columns) == COLUMNS
        build_model("scratch").load(folder / FIRST / "weights.npz")
        with Image.open(folder / FIRST / "curves.png") as picture:
            assert picture.format == "PNG"
            picture.load()

    def test_a_second_run_has_a_folder_of_its_own(self, trained, convbench_here):
        """And the layers' backends, each by its name."""
        folder, _ = trained
        before = content(folder / FIRST)
        done = convbench_here(folder, *SMALL, "--backend", "conv1=im2col,pool1=window", "--threads", "1")
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert lines[-1].split("; ")[1].startswith("results/train/scratch-digits-2/ holds ")
        rows = {line.split()[0]: line for line in lines if line}
        assert rows["conv1"].endswith("  im2col")
        assert rows["pool1"].endswith("  window")
        assert rows["digits:"].endswith(", 1 thread")
        assert {path.name for path in (folder / "results/train").iterdir()} == {
            "scratch-digits-1",
            "scratch-digits-2",
        }
        assert content(folder / FIRST) == before
        # The first loss is from the same weights and images.
        losses = [history(folder / f"results/train/scratch-digits-{number}") for number in (1, 2)]
        np.testing.assert_allclose(losses[1]["train_loss"], losses[0]["train_loss"], rtol=1e-6)

    def test_all_options(self, tmp_path, convbench_here):
        pixels = np.rint(255 * load_data("digits").train_images[:25].reshape(25, -1))
        table = np.column_stack([load_data("digits").train_labels[:25], pixels])
        np.savetxt(tmp_path / "few.csv", table, "%d", ",")
        options = {
            "--data": "few.csv", "--limit": "10", "--epochs": "2", "--batch-size": "3", "--lr": "0.01",
            "--optimizer": "adam", "--schedule": "linear", "--seed": "7", "--backend": "im2col",
            "--threads": "1", "--out": "here",
        }  # fmt: skip
        words = [word for option in options.items() for word in option]
        done = convbench_here(tmp_path, "train", "simple", *words)
        assert done.returncode == 0, done.stderr
        assert (
            "few.csv: 10 images to train on, 5 to test on; adam, lr 0.01, batch 3, seed 7, 1 thread\n"
            in done.stdout
        )
        assert {path.name for path in (tmp_path / "here").iterdir()} == FILES
        assert history(tmp_path / "here")["epoch"].tolist() == [1, 2]
        assert {path.name for path in tmp_path.iterdir()} == {"few.csv", "here"}

    def test_more_epochs_for_a_run_that_has_finished(self, tmp_path, convbench_here):
        small = ("train", "simple", "--limit", "32", "--batch-size", "16")
        for arguments in (("--epochs", "1"), ("--resume", "--epochs", "2")):
            done = convbench_here(tmp_path, *small, *arguments)
            assert done.returncode == 0, done.stderr
            newest = convbench_here(tmp_path, "evaluate")
            assert f" {done.stdout.split('test accuracy ')[1].split(';')[0]} of the 359 " in newest.stdout
        assert "\nepoch 2/2  " in done.stdout
        assert "\nepoch 1/2  " not in done.stdout
        (folder,) = (tmp_path / "results/train").iterdir()
        assert history(folder)["epoch"].tolist() == [1, 2]


class TestInterrupted:
    @pytest.fixture
    def started(self, tmp_path):
        """A training under way, in the folder a/, after its first epoch; far from its end."""
        process = convbench_start(tmp_path, *self.words("a"), "--epochs", "100000")
        try:
            self.wait_for(process, "epoch      1/100000  ")
            yield process
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()

    @staticmethod
    def words(out: str) -> tuple[str, ...]:
        # A constant rate: a falling one depends on the number of epochs, which differs here.
        return (
            "train",
            "simple",
            "--limit",
            "120",
            "--batch-size",
            "8",
            "--schedule",
            "constant",
            "--out",
            out,
        )

    @staticmethod
    def wait_for(process: Popen[str], beginning: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        for line in process.stdout:
            if line.startswith(beginning):
                return
            assert time.monotonic() < deadline
        raise AssertionError(process.stderr.read())

    def test_it_goes_on_to_the_same_numbers(self, started, tmp_path):
        started.send_signal(signal.SIGINT)
        said, errors = started.communicate(timeout=DEADLINE_S)
        assert started.returncode == 130
        assert errors == ""
        stopped = re.fullmatch(
            r"stopped in epoch (\d+) after (\d+) of 15 steps; "
            r"`convbench train simple --resume --out a` goes on",
            said.splitlines()[-1],
        )
        assert stopped, said
        epoch, step = map(int, stopped.groups())
        assert epoch >= 2
        assert step < 15
        assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
        assert history(tmp_path / "a")["epoch"].tolist() == list(range(1, epoch))

        resumed = convbench_run(tmp_path, "train", "simple", "--resume", "--out", "a", "--epochs", str(epoch))
        assert resumed.returncode == 0, resumed.stderr
        assert f"\nepoch {epoch}/{epoch}  loss " in resumed.stdout
        whole = convbench_run(tmp_path, *self.words("b"), "--epochs", str(epoch))
        assert whole.returncode == 0, whole.stderr
        histories = [history(tmp_path / out).drop(columns=TIMES) for out in ("a", "b")]
        pd.testing.assert_frame_equal(*histories, check_exact=True)
        assert len(histories[0]) == epoch
        weights = [(tmp_path / out / "weights.npz").read_bytes() for out in ("a", "b")]
        assert weights[0] == weights[1]


class TestEvaluate:
    def test_a_run(self, trained, convbench_here):
        folder, _ = trained
        model, images, labels = build_model("scratch"), *load_data("digits")[2:]
        model.load(folder / FIRST / "weights.npz")
        counts = confusion(model, images, labels)
        right = int(counts.trace())
        done = convbench_here(folder, "evaluate", FIRST)
        assert done.returncode == 0, done.stderr
        table, said = done.stdout.split("\n\n")
        heading, *rows = table.splitlines()
        assert heading.split() == ["class", "images", "right", "mostly", "taken", "for"]
        for label, (row, of_class) in enumerate(zip(rows, counts, strict=True)):
            digit, count, share, *worst = re.split(r" {2,}", row.strip())
            assert (digit, count) == (str(label), str(of_class.sum()))
            assert share == f"{of_class[label] / of_class.sum():.1%}"
            others = {other: int(n) for other, n in enumerate(of_class) if other != label}
            assert (
                worst
                == [f"{other} ({n} times)" for other, n in others.items() if n == max(others.values()) > 0][
                    :1
                ]
            )
        assert right / 359 == pytest.approx(history(folder / FIRST)["test_accuracy"].iloc[-1])
        assert said == (
            f"scratch of {FIRST}/weights.npz: {right / 359:.2%} of the 359 test images of digits right, "
            f"{359 - right} wrong\n"
        )
        again = convbench_here(folder, "evaluate", f"{FIRST}/weights.npz", "--backend", "im2col")
        assert again.stdout == done.stdout

    def test_what_a_class_is_taken_for(self, tmp_path, convbench_here):
        """A network that takes everything for a three."""
        model = build_model("simple")
        for array in model.parameters().values():
            array[:] = 0
        model.parameters()["fc1.bias"][3] = 1
        model.save(tmp_path / "three.npz")
        done = convbench_here(tmp_path, "evaluate", "three.npz")
        assert done.returncode == 0, done.stderr
        counts = np.bincount(load_data("digits").test_labels)
        rows = [re.split(r" {2,}", line.strip()) for line in done.stdout.splitlines()[1:11]]
        assert rows == [
            [str(digit), str(count), "100.0%"]
            if digit == 3
            else [str(digit), str(count), "0.0%", f"3 ({count} times)"]
            for digit, count in enumerate(counts)
        ]
        assert done.stdout.endswith(
            f"simple of three.npz: {counts[3] / 359:.2%} of the 359 test images of digits right, "
            f"{359 - counts[3]} wrong\n"
        )


def read_prediction(said: str) -> tuple[list[str], list[float], str]:
    """The picture's lines, the probabilities in percent, and the sentence."""
    lines = said.split("\n")
    picture, table, (gap, sentence, end) = lines[:14], lines[14:24], lines[24:]
    assert gap == end == ""
    rows = [re.fullmatch(r"(\d)  +(\d+\.\d)%(?:  (#+))?", line) for line in table]
    assert [row[1] for row in rows] == [str(digit) for digit in range(10)]
    probabilities = [float(row[2]) for row in rows]
    for row, probability in zip(rows, probabilities, strict=True):
        assert len(row[3] or "") == pytest.approx(40 * probability / 100, abs=0.55)  # both are rounded
    return picture, probabilities, sentence


class TestPredict:
    def test_a_test_image(self, trained, convbench_here):
        folder, _ = trained
        done = convbench_here(folder, "predict", "3", "--weights", FIRST)
        assert done.returncode == 0, done.stderr
        picture, probabilities, sentence = read_prediction(done.stdout)
        data = load_data("digits")
        inked = data.test_images[3, 0].reshape(14, 2, 28).mean(axis=1).max(axis=1) >= 0.1
        assert [bool(line) for line in picture] == inked.tolist()
        assert sum(probabilities) == pytest.approx(100, abs=0.5)
        best = int(np.argmax(probabilities))
        assert sentence == (
            f"{best} ({probabilities[best]:.1f}%), labelled {data.test_labels[3]}: "
            f"scratch of {FIRST}/weights.npz"
        )
        model = build_model("scratch", seed=9)
        model.load(folder / FIRST / "weights.npz")
        assert model(data.test_images[3:4]).argmax() == best

    def test_an_image_file(self, trained, convbench_here):
        folder, _ = trained
        sheet = Image.new("L", (200, 200), 255)
        ImageDraw.Draw(sheet).line([(100, 30), (100, 170)], 0, 16)
        sheet.save(folder / "one.png")
        done = convbench_here(folder, "predict", "one.png", "--weights", FIRST, "--backend", "conv1=window")
        assert done.returncode == 0, done.stderr
        picture, probabilities, sentence = read_prediction(done.stdout)
        assert sum(bool(line) for line in picture) == 10  # the digit is 20 of 28 pixels high
        best = int(np.argmax(probabilities))
        assert sentence == f"{best} ({probabilities[best]:.1f}%): scratch of {FIRST}/weights.npz"

    def test_a_number_may_be_a_file_in_a_folder(self, trained, convbench_here):
        folder, _ = trained
        with Image.new("L", (28, 28)) as image:
            image.paste(255, (10, 5, 14, 22))
            image.save(folder / "7", "PNG")
        done = convbench_here(folder, "predict", "./7", "--weights", FIRST)
        assert done.returncode == 0, done.stderr
        assert "labelled" not in done.stdout


def assert_refused(done: CompletedProcess[str], message: str) -> None:
    """One line of these words, or that begins with them, and nothing else."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith(f"convbench: {message}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


BEFORE = "expected one of `convbench train` before"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nope"], "model is 'nope'; expected one of mnist3, mnist2, scratch, lenet, simple, "),
        (["train", "simple", "--data", "nope"], "data is 'nope'; expected 'digits', 'mnist', "),
        (["train", "simple", "--backend", "nope"], "backend is 'nope'; expected one of auto, loops, "),
        (["train", "simple", "--backend", "conv1=nope"], "backend is 'nope'; expected one of auto, "),
        (
            ["train", "scratch", "--backend", "conv2=loops"],
            "backend names layer 'conv2'; expected some of conv1, pool1 of scratch",
        ),
        (
            ["train", "simple", "--backend", "conv1="],
            "backend is 'conv1='; expected a name, or LAYER=NAME,LAYER=NAME",
        ),
        (["train", "simple", "--epochs", "0"], "epochs is 0; expected a positive int"),
        (["train", "simple", "--batch-size", "0"], "batch_size is 0; expected a positive int"),
        (["train", "simple", "--lr", "-1"], "lr is -1.0; expected a number above 0"),
        (["train", "simple", "--lr", "nan"], "lr is nan; expected a number above 0"),
        (["train", "simple", "--momentum", "1.5"], "momentum is 1.5; expected a number from 0 to below 1"),
        (["train", "simple", "--optimizer", "rmsprop"], "optimizer is 'rmsprop'; expected 'sgd' or 'adam'"),
        (["train", "simple", "--schedule", "up"], "schedule is 'up'; expected 'constant' or 'linear'"),
        (["train", "simple", "--seed", "-1"], "seed is -1; expected an int of 0 or more"),
        (["train", "simple", "--limit", "0"], "limit is 0; expected a positive int"),
        (["train", "simple", "--threads", "0"], "--threads is 0; expected 1 to "),
        (
            ["train", "simple", "--data", "mnist", "--data-dir", "."],
            "data_dir is '.', without mnist; expected",
        ),
        (["train", "simple", "--resume"], f"no run of simple in results/train/; {BEFORE}"),
        (
            ["train", "simple", "--resume", "--out", "."],
            ". holds no run; expected a folder with a checkpoint",
        ),
        (["evaluate"], f"no run in results/train/; {BEFORE}"),
        (["evaluate", "missing.npz"], "missing.npz does not exist; expected a file of weights"),
        (["evaluate", "odd.npz"], "odd.npz fits none of mnist3, mnist2, scratch, lenet, simple, tanhavg; "),
        (
            ["evaluate", "odd.npz", "--model", "simple"],
            "odd.npz has no conv1.bias; expected it with shape (8,)",
        ),
        (["evaluate", "noise.npz"], "noise.npz is a file of another kind; expected a NumPy archive (.npz)"),
        (["evaluate", "good.npz", "--model", "nope"], "model is 'nope'; expected one of mnist3, "),
        (
            ["evaluate", "good.npz", "--model", "lenet"],
            "good.npz has no conv2.weight; expected it with shape",
        ),
        (["evaluate", "good.npz", "--data", "nope"], "data is 'nope'; expected 'digits', 'mnist', "),
        (["evaluate", "good.npz", "--threads", "0"], "--threads is 0; expected 1 to "),
        (["predict", "0"], f"no run in results/train/; {BEFORE}"),
        (
            ["predict", "359", "--weights", "good.npz"],
            "index is 359; expected 0 to 358, or the path of an image",
        ),
        (["predict", "no.png", "--weights", "good.npz"], "no.png does not exist; expected an image file"),
        (["predict", "noise.npz", "--weights", "good.npz"], "noise.npz is no image that Pillow can read; "),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, convbench_here, arguments, message):
    build_model("simple").save(tmp_path / "good.npz")
    save_weights(tmp_path / "odd.npz", {"conv1.weight": np.zeros((8, 1, 3, 3), np.float32)})
    (tmp_path / "noise.npz").write_text("hello world")
    before = content(tmp_path)
    assert_refused(convbench_here(tmp_path, *arguments), message)
    assert content(tmp_path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scratch", "--out", FIRST], f"{FIRST} holds a run already; expected --resume to go on, or another"),
        (
            ["scratch", "--resume", "--out", FIRST],
            f"the run in {FIRST} has finished its 1 epochs; expected --ep",
        ),
        (
            ["scratch", "--resume", "--out", FIRST, "--epochs", "2", "--lr", "0.1"],
            f"--lr is 0.1 but the run in {FIRST} has 0.05; expected the same",
        ),
        (
            ["lenet", "--resume", "--out", FIRST, "--epochs", "2"],
            f"--model is lenet but the run in {FIRST} has scratch; expected the same",
        ),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else "",
)
def test_a_run_that_is_there_is_left_alone(trained, convbench_here, arguments, message):
    folder, _ = trained
    before = content(folder)
    assert_refused(convbench_here(folder, "train", *arguments), message)
    assert content(folder) == before


def test_bad_input_in_a_process_of_its_own(tmp_path):
    assert_refused(convbench_run(tmp_path, "train", "nope"), "model is 'nope'; expected one of ")
    assert list(tmp_path.iterdir()) == []


def test_a_learning_rate_that_is_too_large(tmp_path, convbench_here):
    """The loss leaves the numbers; the last line says what to do."""
    done = convbench_here(tmp_path, "train", "simple", "--limit", "64", "--batch-size", "16", "--lr", "1e30")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert re.fullmatch(
        r"convbench: the loss became (nan|inf) in step 2 of epoch 1; expected a finite number: "
        r"try an lr smaller than 1e\+30\n",
        done.stderr,
    )
    (row,) = (tmp_path / "results" / "train" / "simple-digits-1" / "history.csv").read_text().splitlines()
    assert row.startswith("epoch,")  # nothing of it was saved


def test_one_that_shows_in_the_test_alone(tmp_path, convbench_here):
    """One step: the loss before it is fine, the parameters after it are not."""
    done = convbench_here(tmp_path, "train", "simple", "--limit", "64", "--epochs", "1", "--lr", "1e30")
    assert done.returncode == 2
    assert "on the test images after epoch 1; expected a finite number" in done.stderr
