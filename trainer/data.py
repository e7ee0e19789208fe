"""Real digits to train and measure on."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kernels.axis import is_int
from trainer.csv_file import read_csv
from trainer.download import SOURCES, fetch
from trainer.idx import read_idx

_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SIDE = 28
_CSV = (".csv", ".csv.gz")


class Data(NamedTuple):
    """Images (N, 1, 28, 28), float32 from 0 to 1, and labels (N,), int64, for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_data(
    name: str | Path = "digits", *, data_dir: str | Path | None = None, limit: int | None = None
) -> Data:
    """The data set called `name`, or in the files at that path.

    "digits" are the 1,797 handwritten digits that come with scikit-learn (E. Alpaydin, C. Kaynak, "Optical
    Recognition of Handwritten Digits", UCI, 1998), 8x8 brought to 28x28; every fifth is held out for
    testing. "mnist" and "fashion-mnist" are four IDX files in the folder of that name in `data_dir`, or
    else in $CONVBENCH_DATA (either may be that folder itself), or else in the user's cache, downloaded at
    first use. A path is that of a folder with four such files, a folder with a CSV for training and one for
    testing, or one CSV, of which every fifth row is held out. `limit` keeps only the first training images.

    Raises ValueError for an unknown name, files that are missing or broken, and a failed download.
    """
    if limit is not None and (not is_int(limit) or limit < 1):
        raise ValueError(f"limit is {limit!r}; expected a positive int")
    if name == "digits":
        return _first(_digits(), limit)
    data = _read_folder(_find(str(name), data_dir)) if name in SOURCES else _read(str(name))
    return _scaled(_first(data, limit))


@lru_cache(maxsize=1)
def _digits() -> Data:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    # As in MNIST: the digit fills a box of 20x20 in the middle of the image.
    enlarged = zoom(digits.images / 16, (1, 2.5, 2.5), order=1, mode="nearest", grid_mode=True)
    images = np.pad(enlarged, ((0, 0), (4, 4), (4, 4)))[:, None].astype(np.float32)
    data = _held_out(images, digits.target.astype(np.int64))
    for part in data:
        part.flags.writeable = False  # shared by all callers
    return data


def _held_out(images: np.ndarray, labels: np.ndarray) -> Data:
    test = np.arange(len(images)) % 5 == 4
    return Data(images[~test], labels[~test], images[test], labels[test])


def _first(data: Data, limit: int | None) -> Data:
    return data._replace(train_images=data.train_images[:limit], train_labels=data.train_labels[:limit])


def _scaled(data: Data) -> Data:
    """Data of bytes, images (N, 28, 28), as `Data` promises it."""
    return Data(*_as_promised(*data[:2]), *_as_promised(*data[2:]))


def _as_promised(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scaled = np.divide(images[:, None], np.float32(255), dtype=np.float32, order="C")
    return scaled, labels.astype(np.int64)


def _find(name: str, data_dir: str | Path | None) -> Path:
    """The folder with the files of "mnist" or "fashion-mnist"."""
    if data_dir is not None:
        given = _held_by(Path(data_dir), name)
        if given is None:
            raise ValueError(
                f"data_dir is {str(data_dir)!r}, without {name}; expected {', '.join(_FILES)}, "
                f"each as it is or .gz, in {Path(data_dir) / name}"
            )
        return given
    shared = os.environ.get("CONVBENCH_DATA")
    return (_held_by(Path(shared), name) if shared else None) or fetch(name)


def _held_by(base: Path, name: str) -> Path | None:
    """`base`/`name`, or `base` where it has that name itself, if any of the four files is in it."""
    folders = (base / name, base) if base.absolute().name == name else (base / name,)
    return next((folder for folder in folders if _has_idx(folder)), None)


def _read(name: str) -> Data:
    path = Path(name)
    if _is_csv(path):
        images, labels = read_csv(path)
        if len(images) < 5:
            raise ValueError(f"{path} has {len(images)} rows; expected 5 or more, to hold out every fifth")
        return _held_out(images, labels)
    if name and path.is_dir():
        return _read_folder(path) if _has_idx(path) else _read_csvs(path)
    raise ValueError(
        f"data is {name!r}; expected 'digits', {', '.join(map(repr, SOURCES))}, a folder with four IDX files "
        "or with a train and a test CSV, or a .csv or .csv.gz file"
    )


def _idx_file(folder: Path, file: str) -> Path | None:
    names = (file, f"{file}.gz", file.replace("-idx", ".idx"), file.replace("-idx", ".idx") + ".gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _has_idx(folder: Path) -> bool:
    return any(_idx_file(folder, file) for file in _FILES)


def _read_folder(folder: Path) -> Data:
    """The bytes in a folder's four IDX files."""
    paths = []
    for file in _FILES:
        path = _idx_file(folder, file)
        if path is None:
            raise ValueError(f"{folder} has no {file} or {file}.gz; expected all of {', '.join(_FILES)}")
        paths.append(path)
    return Data(*_read_pair(*paths[:2]), *_read_pair(*paths[2:]))


def _read_pair(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (_SIDE, _SIDE):
        height, width = images.shape[1:]
        raise ValueError(f"{images_path} holds images of {height} x {width}; expected {_SIDE} x {_SIDE}")
    if len(images) != len(labels):
        raise ValueError(
            f"{images_path} holds {len(images)} images but {labels_path} {len(labels)} labels; "
            "expected a label for each image"
        )
    if labels.max() > 9:
        at = int(labels.argmax())
        raise ValueError(f"{labels_path} holds the label {labels[at]}, at {at}; expected 0 to 9")
    return images, labels


def _read_csvs(folder: Path) -> Data:
    """The bytes in a folder's two CSV files."""
    files = sorted(path for path in folder.iterdir() if _is_csv(path))
    train = [path for path in files if "train" in path.name.lower()]
    test = [path for path in files if "test" in path.name.lower() and path not in train]
    if len(train) != 1 or len(test) != 1:
        found = ", ".join(path.name for path in files) or "no .csv or .csv.gz file"
        raise ValueError(
            f"{folder} has {found}; expected four IDX files ({', '.join(_FILES)}, each as it is or .gz), "
            "or one CSV with 'train' in its name and one with 'test'"
        )
    return Data(*read_csv(train[0]), *read_csv(test[0]))


def _is_csv(path: Path) -> bool:
    return path.name.lower().endswith(_CSV) and path.is_file()
