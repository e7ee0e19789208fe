"""The digits that come with the project's dependencies, and those in IDX and CSV files."""

from __future__ import annotations

import gzip
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from trainer import load_data
from trainer.idx import read_idx

SHARED = os.environ.get("CONVBENCH_DATA")
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
COLUMNS = "785, separated by commas: the label, then 28 x 28 pixels"


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Neither this machine's data nor the network."""

    def fetch(name):
        raise AssertionError(f"downloads {name}")

    monkeypatch.delenv("CONVBENCH_DATA", raising=False)
    monkeypatch.setattr("trainer.data.fetch", fetch)


def idx(array: np.ndarray) -> bytes:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


def digits(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of bytes; 0, 9 and 255 are among them."""
    rng = np.random.default_rng(seed)
    images, labels = rng.integers(0, 256, (count, 28, 28)), rng.integers(0, 10, count)
    images[0, 0, :2] = 0, 255
    labels[:2] = (0, 9)[:count]
    return images.astype(np.uint8), labels.astype(np.uint8)


def write_set(folder: Path, *, dotted: bool = False, packed: bool = False, seed: int = 0) -> list[np.ndarray]:
    """Seven images and labels for training and three for testing, as IDX files; what is in them."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [*digits(7, seed), *digits(3, seed + 1)]
    for name, array in zip(FILES, arrays, strict=True):
        path = folder / ((name.replace("-idx", ".idx") if dotted else name) + (".gz" if packed else ""))
        path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    return arrays


def write_csv(
    path: Path, images: np.ndarray, labels: np.ndarray, header: str = "", field: str = "%d"
) -> None:
    rows = np.column_stack([labels, images.reshape(len(images), -1)])
    lines = [header] * bool(header) + [",".join(field % value for value in row) for row in rows]
    content = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def assert_holds(data, arrays):
    """`data` is what the files hold, as `Data` promises it."""
    for images, expected in zip(data[::2], arrays[::2], strict=True):
        assert images.dtype == np.float32
        assert images.flags.c_contiguous
        np.testing.assert_array_equal(images, expected[:, None] / np.float32(255), strict=True)
    for labels, expected in zip(data[1::2], arrays[1::2], strict=True):
        np.testing.assert_array_equal(labels, expected.astype(np.int64), strict=True)


def fails_with(message: str):
    """A ValueError of exactly these words, in one line."""
    assert "\n" not in message
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def test_digits():
    data = load_data("digits")
    assert data.train_images.shape == (1438, 1, 28, 28)
    assert data.test_images.shape == (359, 1, 28, 28)
    assert data.train_images.dtype == np.float32
    assert data.train_labels.dtype == np.int64
    for images in (data.train_images, data.test_images):
        assert images.min() == 0
        assert images.max() == 1
    assert set(data.train_labels) == set(data.test_labels) == set(range(10))


def test_digits_can_be_told_apart():
    """The nearest mean image names most digits: images and labels belong together."""
    data = load_data("digits")
    flat = data.train_images.reshape(len(data.train_images), -1)
    means = np.array([flat[data.train_labels == digit].mean(axis=0) for digit in range(10)])
    distances = ((data.test_images.reshape(-1, 1, 784) - means) ** 2).sum(axis=2)
    assert (distances.argmin(axis=1) == data.test_labels).mean() > 0.8


def test_shared_data_cannot_be_changed():
    for data in (load_data("digits"), load_data("digits", limit=10)):
        with pytest.raises(ValueError, match="read-only"):
            data.train_images[0] = 0


@pytest.mark.parametrize("name", ["nope", "", "MNIST", None])
def test_unknown_data(name):
    with fails_with(
        f"data is '{name}'; expected 'digits', 'mnist', 'fashion-mnist', a folder with four IDX files "
        "or with a train and a test CSV, or a .csv or .csv.gz file"
    ):
        load_data(name)


@pytest.mark.parametrize("name", ["missing.csv", "notes.txt"])
def test_path_of_no_data(tmp_path, name):
    (tmp_path / "notes.txt").write_text("digits")
    with pytest.raises(ValueError, match=rf"data is '.*{name}'; expected 'digits', "):
        load_data(tmp_path / name)


@pytest.mark.parametrize("limit", [1, np.int64(5), 1438, 100_000])
def test_limit(limit):
    whole, limited = load_data("digits"), load_data("digits", limit=limit)
    assert len(limited.train_images) == len(limited.train_labels) == min(limit, 1438)
    np.testing.assert_array_equal(limited.train_images, whole.train_images[:limit])
    np.testing.assert_array_equal(limited.train_labels, whole.train_labels[:limit])
    assert len(limited.test_images) == len(limited.test_labels) == 359


def test_limit_of_files(tmp_path):
    images, labels, *test = write_set(tmp_path)
    assert_holds(load_data(tmp_path, limit=4), [images[:4], labels[:4], *test])
    assert_holds(load_data(tmp_path, limit=8), [images, labels, *test])


@pytest.mark.parametrize("limit", [0, -1, 2.5, "10", True])
def test_wrong_limit(limit):
    with fails_with(f"limit is {limit!r}; expected a positive int"):
        load_data("digits", limit=limit)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("dotted", [False, True], ids=["dashed", "dotted"])
def test_idx_folder(tmp_path, dotted, packed):
    arrays = write_set(tmp_path, dotted=dotted, packed=packed)
    assert_holds(load_data(tmp_path), arrays)
    assert_holds(load_data(str(tmp_path)), arrays)


def test_files_may_be_of_different_kinds(tmp_path):
    """As in a copy from Kaggle: folders have the files' names; and a .gz that a browser has unpacked."""
    arrays = write_set(tmp_path, dotted=True)
    (tmp_path / FILES[0]).mkdir()
    (tmp_path / "t10k-images.idx3-ubyte").rename(tmp_path / "t10k-images-idx3-ubyte.gz")
    assert_holds(load_data(tmp_path), arrays)


def test_loaded_files_may_be_changed(tmp_path):
    write_set(tmp_path)
    for part in load_data(tmp_path):
        part[:] = 0


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_data_dir(tmp_path, name):
    arrays = write_set(tmp_path / name)
    assert_holds(load_data(name, data_dir=tmp_path), arrays)
    assert_holds(load_data(name, data_dir=str(tmp_path / name)), arrays)


def test_data_dir_is_this_folder(tmp_path, monkeypatch):
    arrays = write_set(tmp_path / "mnist")
    monkeypatch.chdir(tmp_path / "mnist")
    assert_holds(load_data("mnist", data_dir="."), arrays)


def test_folder_in_data_dir_comes_first(tmp_path):
    write_set(tmp_path / "mnist", seed=0)
    arrays = write_set(tmp_path / "mnist" / "mnist", seed=5)
    assert_holds(load_data("mnist", data_dir=tmp_path / "mnist"), arrays)


def test_environment(tmp_path, monkeypatch):
    arrays = write_set(tmp_path / "mnist")
    monkeypatch.setenv("CONVBENCH_DATA", str(tmp_path))
    assert_holds(load_data("mnist"), arrays)
    monkeypatch.setenv("CONVBENCH_DATA", str(tmp_path / "mnist"))
    assert_holds(load_data("mnist"), arrays)


def test_data_dir_comes_before_the_environment(tmp_path, monkeypatch):
    write_set(tmp_path / "shared" / "mnist", seed=0)
    arrays = write_set(tmp_path / "own" / "mnist", seed=5)
    monkeypatch.setenv("CONVBENCH_DATA", str(tmp_path / "shared"))
    assert_holds(load_data("mnist", data_dir=tmp_path / "own"), arrays)


@pytest.mark.parametrize("shared", ["", "missing", "other"])
def test_environment_without_the_data(tmp_path, monkeypatch, shared):
    """What is not there comes from the cache."""
    write_set(tmp_path / "other")  # not called mnist: these may be any digits
    arrays = write_set(tmp_path / "cache", seed=5)
    monkeypatch.setattr("trainer.data.fetch", lambda name: tmp_path / "cache")
    monkeypatch.setenv("CONVBENCH_DATA", shared and str(tmp_path / shared))
    assert_holds(load_data("mnist"), arrays)


def test_data_dir_without_the_data(tmp_path, monkeypatch):
    write_set(tmp_path / "shared" / "mnist")
    monkeypatch.setenv("CONVBENCH_DATA", str(tmp_path / "shared"))
    write_set(tmp_path / "fashion-mnist")
    with fails_with(
        f"data_dir is '{tmp_path}', without mnist; expected {', '.join(FILES)}, "
        f"each as it is or .gz, in {tmp_path / 'mnist'}"
    ):
        load_data("mnist", data_dir=str(tmp_path))


@pytest.mark.parametrize("missing", FILES)
def test_missing_file(tmp_path, monkeypatch, missing):
    folder = tmp_path / "mnist"
    write_set(folder, packed=True)
    (folder / f"{missing}.gz").unlink()
    message = f"{folder} has no {missing} or {missing}.gz; expected all of {', '.join(FILES)}"
    monkeypatch.setenv("CONVBENCH_DATA", str(tmp_path))
    for arguments in ({"name": folder}, {"name": "mnist", "data_dir": tmp_path}, {"name": "mnist"}):
        with fails_with(message):
            load_data(**arguments)


IMAGES = idx(np.zeros((2, 28, 28)))
LABELS = idx(np.zeros(2))


@pytest.mark.parametrize(
    ("ndim", "content", "words"),
    [
        (3, b"", "is empty; expected an IDX file of images"),
        (3, gzip.compress(b"", mtime=0), "is empty; expected an IDX file of images"),
        (3, LABELS, "is an IDX file of labels; expected an IDX file of images"),
        (1, IMAGES, "is an IDX file of images; expected an IDX file of labels"),
        (1, b"<html>", "has the magic number 3c 68 74 6d; expected an IDX file of labels"),
        (1, b"\0\0\x0d\1", "has the magic number 00 00 0d 01; expected an IDX file of labels"),
        (3, b"\0\0", "has the magic number 00 00; expected an IDX file of images"),
        (3, IMAGES[:9], "is truncated: it has 9 bytes; the header of an IDX file of images has 16"),
        (
            3,
            IMAGES[:-1],
            "is truncated: it has 1583 bytes; expected 1584, as its header announces 2 x 28 x 28 images",
        ),
        (
            3,
            IMAGES + b"\0",
            "is too long: it has 1585 bytes; expected 1584, as its header announces 2 x 28 x 28 images",
        ),
        (
            1,
            gzip.compress(LABELS[:-1], mtime=0),
            "is truncated: it has 9 bytes; expected 10, as its header announces 2 labels",
        ),
        (
            3,
            b"\0\0\x08\3" + struct.pack(">3I", 4_000_000_000, 28, 28) + b"\0\0",
            "is truncated: it has 18 bytes; expected 3136000000016, "
            "as its header announces 4000000000 x 28 x 28 images",
        ),
        (
            3,
            b"\0\0\x08\3" + struct.pack(">3I", *[2**32 - 1] * 3),
            f"is truncated: it has 16 bytes; expected {(2**32 - 1) ** 3 + 16}, "
            "as its header announces 4294967295 x 4294967295 x 4294967295 images",
        ),
        (
            3,
            b"\0\0\x08\3" + struct.pack(">3I", 0, 2**32 - 1, 2**32 - 1),
            "holds no images: its header announces 0 x 4294967295 x 4294967295; expected some",
        ),
        (1, idx(np.zeros(0)), "holds no labels: its header announces 0; expected some"),
        (
            3,
            gzip.compress(IMAGES, mtime=0)[:-12],
            "is truncated or corrupt: Compressed file ended before the end-of-stream marker was reached; "
            "expected a whole gzip file",
        ),
    ],
)
def test_broken_idx(tmp_path, ndim, content, words):
    path = tmp_path / "file-ubyte"
    path.write_bytes(content)
    with fails_with(f"{path} {words}"):
        read_idx(path, ndim)


@pytest.mark.parametrize("at", [3, 12, -6], ids=["header", "data", "checksum"])
def test_corrupt_gzip(tmp_path, at):
    content = bytearray(gzip.compress(bytes(range(256)), mtime=0))
    content[at] ^= 0xFF
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    message = rf"^{re.escape(str(path))} is truncated or corrupt: .+; expected a whole gzip file$"
    with pytest.raises(ValueError, match=message):
        read_idx(path, 3)


@pytest.mark.parametrize("array", [np.arange(3), np.arange(24).reshape(2, 3, 4)], ids=["labels", "images"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
def test_read_idx(tmp_path, array, pack):
    path = tmp_path / "file"
    path.write_bytes(pack(idx(array)))
    np.testing.assert_array_equal(read_idx(path, array.ndim), array.astype(np.uint8), strict=True)


def test_denied_file_stays_an_os_error(tmp_path, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    write_set(tmp_path)
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(PermissionError, match="train-images-idx3-ubyte"):
        load_data(tmp_path)


def test_images_of_another_size(tmp_path):
    write_set(tmp_path)
    path = tmp_path / FILES[0]
    path.write_bytes(idx(np.zeros((7, 32, 30))))
    with fails_with(f"{path} holds images of 32 x 30; expected 28 x 28"):
        load_data(tmp_path)


def test_more_images_than_labels(tmp_path):
    write_set(tmp_path)
    labels = tmp_path / FILES[3]
    labels.write_bytes(idx(np.zeros(2)))
    images = tmp_path / FILES[2]
    with fails_with(f"{images} holds 3 images but {labels} 2 labels; expected a label for each image"):
        load_data(tmp_path)


def test_label_of_no_digit(tmp_path):
    write_set(tmp_path)
    path = tmp_path / FILES[1]
    path.write_bytes(idx(np.array([0, 9, 3, 10, 4, 5, 6])))
    with fails_with(f"{path} holds the label 10, at 3; expected 0 to 9"):
        load_data(tmp_path)


HEADERS = {
    "none": "",
    "kaggle": ",".join(["label", *(f"pixel{pixel}" for pixel in range(784))]),
    "rows and columns": ",".join(
        ["label", *(f"{row}x{column}" for row in range(28) for column in range(28))]
    ),
    "quoted": ",".join(['"label"', *(f'"{pixel}"' for pixel in range(784))]),
    "byte order mark": "\ufefflabel," + ",".join(map(str, range(784))),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv(tmp_path, header, suffix):
    """Every fifth row is held out."""
    images, labels = digits(11)
    path = tmp_path / f"mnist{suffix}"
    write_csv(path, images, labels, header)
    kept = [0, 1, 2, 3, 5, 6, 7, 8, 10]
    expected = [images[kept], labels[kept], images[[4, 9]], labels[[4, 9]]]
    assert_holds(load_data(path), expected)
    assert_holds(load_data(str(path)), expected)


@pytest.mark.parametrize("field", ["%.18e", '"%d"', " %d "], ids=["savetxt", "quoted", "spaced"])
def test_csv_of_numbers_in_other_words(tmp_path, field):
    images, labels = digits(5)
    write_csv(tmp_path / "digits.csv", images, labels, field=field)
    assert_holds(load_data(tmp_path / "digits.csv"), [images[:4], labels[:4], images[4:], labels[4:]])


def test_csv_of_more_rows_than_are_read_at_once(tmp_path):
    images, labels = digits(1)
    path = tmp_path / "many.csv"
    write_csv(path, images, labels)
    path.write_bytes(path.read_bytes() * 5000)
    data = load_data(path)
    assert len(data.train_images) == 4000
    assert len(data.test_images) == 1000
    assert (data.train_images == data.test_images[0]).all()


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("mnist_train.csv", "mnist_test.csv"),
        ("Train.CSV.gz", "Test.csv"),
        ("latest_train.csv", "latest_test.csv"),
    ],
)
def test_csv_folder(tmp_path, train, test):
    arrays = [*digits(3), *digits(2, seed=1)]
    write_csv(tmp_path / train, *arrays[:2], HEADERS["kaggle"])
    write_csv(tmp_path / test, *arrays[2:])
    (tmp_path / "train.txt").write_text("about these digits")
    assert_holds(load_data(tmp_path), arrays)
    assert_holds(load_data(tmp_path, limit=2), [arrays[0][:2], arrays[1][:2], *arrays[2:]])


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ((), "no .csv or .csv.gz file"),
        (("train.csv",), "train.csv"),
        (("train_test.csv",), "train_test.csv"),
        (("test.csv", "train.csv", "train_small.csv"), "test.csv, train.csv, train_small.csv"),
    ],
)
def test_folder_of_other_files(tmp_path, files, found):
    for file in files:
        write_csv(tmp_path / file, *digits(2))
    with fails_with(
        f"{tmp_path} has {found}; expected four IDX files ({', '.join(FILES)}, each as it is or .gz), "
        "or one CSV with 'train' in its name and one with 'test'"
    ):
        load_data(tmp_path)


def row(first: str = "7", last: str = "0", between: int = 783) -> str:
    return ",".join([first, *["0"] * between, last]) + "\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", f"holds no rows; expected {COLUMNS}"),
        (HEADERS["kaggle"], f"holds no rows; expected {COLUMNS}"),
        (row(between=782) * 5, f"has 784 columns in line 1; expected {COLUMNS}"),
        (row() + row(between=784), f"has 786 columns in line 2; expected {COLUMNS}"),
        (row() + "7,0,0\n", f"has 3 columns in line 2; expected {COLUMNS}"),
        ((row() * 5).replace(",", ";"), f"has 1 column in line 2; expected {COLUMNS}"),
        (
            f"label\n{row()}\n{row(last='256')}",
            "has '256' for pixel 784 in line 4; expected a whole number, 0 to 255",
        ),
        (
            row() * 5000 + row(last="-1"),
            "has '-1' for pixel 784 in line 5001; expected a whole number, 0 to 255",
        ),
        (row(last="300") * 5000, "has '300' for pixel 784 in line 1; expected a whole number, 0 to 255"),
        (row(last="0.5"), "has '0.5' for pixel 784 in line 1; expected a whole number, 0 to 255"),
        (row(last="inf"), "has 'inf' for pixel 784 in line 1; expected a whole number, 0 to 255"),
        (row() + row(last="nan"), "has 'nan' for pixel 784 in line 2; expected a whole number, 0 to 255"),
        (row() + row(last=""), "has '' for pixel 784 in line 2; expected a whole number, 0 to 255"),
        (row(last="9" * 30), f"has '{'9' * 20}' for pixel 784 in line 1; expected a whole number, 0 to 255"),
        (row(last="True") * 2, "has 'True' for pixel 784 in line 1; expected a whole number, 0 to 255"),
        (row() + row("10"), "has '10' for the label in line 2; expected a whole number, 0 to 9"),
        (row("-1"), "has '-1' for the label in line 1; expected a whole number, 0 to 9"),
        (row() + row("seven"), "has 'seven' for the label in line 2; expected a whole number, 0 to 9"),
        (row() + row("\xff\0"), "has '\ufffd\\x00' for the label in line 2; expected a whole number, 0 to 9"),
        (row() * 4, "has 4 rows; expected 5 or more, to hold out every fifth"),
    ],
)
def test_broken_csv(tmp_path, content, words):
    path = tmp_path / "digits.csv"
    path.write_bytes(content.encode("latin-1"))
    with fails_with(f"{path} {words}"):
        load_data(path)


def test_csv_with_an_open_quote(tmp_path):
    path = tmp_path / "digits.csv"
    path.write_text(row() + row(last='"4'))
    with pytest.raises(ValueError, match=r"^\S+digits\.csv is not a CSV of digits: .*EOF inside string"):
        load_data(path)


def test_truncated_csv(tmp_path):
    path = tmp_path / "digits.csv.gz"
    write_csv(path, *digits(5))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ValueError, match=rf"^{re.escape(str(path))} is truncated or corrupt: .*whole gzip file$"
    ):
        load_data(path)


@pytest.mark.skipif(not SHARED, reason="CONVBENCH_DATA does not name a folder with MNIST")
def test_mnist():
    data = load_data("mnist", data_dir=SHARED)
    assert data.train_images.shape == (60_000, 1, 28, 28)
    assert data.test_images.shape == (10_000, 1, 28, 28)
    assert data.train_images.max() == data.test_images.max() == 1
    assert data.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
