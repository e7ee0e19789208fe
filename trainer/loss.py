"""What training makes small."""

from __future__ import annotations

import numpy as np

from trainer.fused import cross_entropy


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes) that follow from `logits` of that shape; each row sums to 1."""
    exponentials: np.ndarray = np.exp(
        logits - logits.max(axis=1, keepdims=True)
    )  # shifted: exp does not overflow
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean of -log(probability of the label), and its gradient with respect to the logits.

    logits (N, classes) float; labels (N,) ints from 0. Returns the loss and an array of logits' shape and
    dtype. Raises ValueError where the two do not fit together.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not len(labels):
        raise ValueError(
            f"logits has shape {logits.shape} and labels {labels.shape}; expected (N, classes) and (N,)"
        )
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        raise ValueError(
            f"labels lie in {labels.min()}..{labels.max()}; expected classes, 0..{logits.shape[1] - 1}"
        )
    gradient = np.empty(logits.shape, logits.dtype)
    return cross_entropy(np.ascontiguousarray(logits), labels, gradient), gradient
