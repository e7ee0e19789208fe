"""The digits that come with the project's dependencies."""

from __future__ import annotations

import numpy as np
import pytest

from trainer import load_data


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
    with pytest.raises(ValueError, match="read-only"):
        load_data("digits").train_images[0] = 0


def test_unknown_data():
    with pytest.raises(ValueError, match="data is 'nope'; expected 'digits'"):
        load_data("nope")
