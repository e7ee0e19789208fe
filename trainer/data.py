"""Real digits to train and measure on."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Data(NamedTuple):
    """Images (N, 1, 28, 28), float32 from 0 to 1, and labels (N,), int64, for training and for testing."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_data(name: str = "digits") -> Data:
    """The data set called `name`.

    "digits" are the 1,797 handwritten digits that come with scikit-learn (E. Alpaydin, C. Kaynak, "Optical
    Recognition of Handwritten Digits", UCI, 1998), 8x8 brought to 28x28; every fifth is held out for
    testing. Raises ValueError for an unknown name.
    """
    if name != "digits":
        raise ValueError(f"data is {name!r}; expected 'digits'")
    return _digits()


@lru_cache(maxsize=1)
def _digits() -> Data:
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    digits = load_digits()
    # As in MNIST: the digit fills a box of 20x20 in the middle of the image.
    enlarged = zoom(digits.images / 16, (1, 2.5, 2.5), order=1, mode="nearest", grid_mode=True)
    images = np.pad(enlarged, ((0, 0), (4, 4), (4, 4)))[:, None].astype(np.float32)
    labels = digits.target.astype(np.int64)
    held_out = np.arange(len(images)) % 5 == 4
    parts = images[~held_out], labels[~held_out], images[held_out], labels[held_out]
    for part in parts:
        part.flags.writeable = False  # shared by all callers
    return Data(*parts)
